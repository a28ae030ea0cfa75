"""A model under our own names, for `mtpret_jax.load`: the weights, and the files of the run that say what they are."""

import pathlib
import shutil
from collections.abc import Sequence

from mtpret_jax.config import saved
from mtpret_jax.evaluation import operating_points
from mtpret_jax.export.trained import Trained
from mtpret_jax.objectives.multitask import TRUNK, find_owner
from mtpret_jax.runtime import model_file, weights_file
from mtpret_jax.runtime.atomic_io import write_json


def write(trained: Trained, tasks: Sequence[str], folder: pathlib.Path) -> None:
  """Writes a folder that `mtpret_jax.load` takes in place of the run. It has no optimiser state, and can be moved.

  Args:
    tasks: the ones to keep; none after stage 1.
  """
  params, stats = ({part: tree[part] for part in (TRUNK, *tasks)} for tree in (trained.params, trained.stats))
  fields = trained.config.to_dict()
  if tasks:
    owners = {find_owner(trained.config, task) for task in tasks}
    stats[TRUNK] = {owner: stats[TRUNK][owner] for owner in sorted(owners)}
    fields['tasks'] = {task: fields['tasks'][task] for task in tasks}
    model_file.write_tasks(folder, {task: trained.tasks[task] for task in tasks})
  weights_file.write_weights(folder, params, stats, {'step': str(trained.step), 'state': trained.chosen})
  write_json(folder / saved.FILE, {'config': fields})
  points = trained.run / operating_points.FILE
  if points.is_file():
    shutil.copy(points, folder)
