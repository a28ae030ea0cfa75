"""What is asked of an image: a task is a head, its loss and its prediction. A new one is a new file and a line here."""

from mtpret_jax.tasks.classification import make_classification
from mtpret_jax.tasks.detection import make_detection
from mtpret_jax.tasks.regression import make_regression
from mtpret_jax.tasks.segmentation import make_segmentation

TASKS = {
  'classification': make_classification,
  'detection': make_detection,
  'regression': make_regression,
  'segmentation': make_segmentation,
}


def make_task(name, about, config):
  """The `Task` called `name` on a dataset that says `about` itself (the metadata of its builder: findings, relation,
  mask, kinds) with the numbers of `config`."""
  if name not in TASKS:
    raise ValueError(f'unknown task {name!r}; have {", ".join(TASKS)}')
  return TASKS[name](about, config)
