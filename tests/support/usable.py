"""The records that a task can use, of a source that is not on the disk."""

from mtpret_jax.tasks.dataset import find_usable, keep_places


def keep_usable(task_config, source):
  """(the records that the task can use, {reason: number left out})."""
  usable = find_usable('task', task_config, source)
  return keep_places(source, usable), dict(usable.left_out)
