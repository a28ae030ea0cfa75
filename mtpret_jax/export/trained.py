"""Reads the trained model of a run in parts: its tasks, weights, config and scores."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.config.schema import MOCO, MULTITASK, find_mistake
from mtpret_jax.evaluation import operating_points
from mtpret_jax.evaluation.test_scores import STATES
from mtpret_jax.objectives.multitask import TRUNK, find_owner
from mtpret_jax.runtime import checkpoint, model_file, weights_file
from mtpret_jax.tasks.fitted import FittedTask


@dataclasses.dataclass(frozen=True)
class Trained:
  """Attributes:
    run: its folder.
    config: of the run.
    chosen: which state this is, 'best' by validation or 'last'.
    step: of the state.
    params, stats: parameters and running statistics as the train state has them, NumPy arrays.
    tasks: {name: `FittedTask`}; {} after stage 1.
  """

  run: pathlib.Path
  config: ConfigDict
  chosen: str
  step: int
  params: Mapping[str, Any]
  stats: Mapping[str, Any]
  tasks: Mapping[str, FittedTask]

  def take_trunk(self, task: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(params, stats) of the trunk, with the running statistics of a task."""
    stats = self.stats[TRUNK]
    return self.params[TRUNK], stats if task is None else stats[find_owner(self.config, task)]

  def take_head(self, task: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return self.params[task], self.stats[task]

  def check_state(self, asked: str | None) -> None:
    """Raises ConfigError if another state is asked for. An export has one only."""
    if asked and asked != self.chosen:
      raise ConfigError(f'{self.run} has only the {self.chosen} state of its run: leave out the state, or export the '
                        f'run again with --state={asked}')

  def read_points(self) -> operating_points.Points:
    """{task: its operating point}. They belong to the best state, so another one has none."""
    return operating_points.read(self.run) if self.chosen == 'best' else {}

  def read_temperature(self, task: str | None) -> float:
    """What the logits of a task are divided by; 1 unless one was fitted on validation."""
    return float(self.read_points().get(task or '', {}).get('temperature', 1.0))


def read_run(run: str | pathlib.Path, state: str = '') -> Trained:
  """The model of the run in a folder, or of a folder that `own_weights` has written.

  Args:
    state: 'best' or 'last'; '' takes the best one of a run with one task, else the last one.

  Raises:
    ConfigError: the folder is no run, has no such state, or one that does not belong to its config.
  """
  folder = pathlib.Path(run)
  if not (folder / saved.FILE).is_file():
    raise ConfigError(explain_no_run(folder))
  config = read_config(folder)
  tasks = model_file.read_tasks(folder, config) if config.objective == 'multitask' else {}
  chosen = state or ('best' if len(tasks) == 1 else 'last')
  trained, metadata = read_state(folder, chosen)
  chosen = metadata.get('state', chosen)  # an exported folder has one state only
  missing = [part for part in (TRUNK, *tasks) if part not in trained['params']]
  if missing:
    raise ConfigError(f'{saved.FILE} in {run} does not belong to its weights, which have no {missing[0]!r}: '
                      f'{saved.REMEDY}')
  params = {part: trained['params'][part] for part in (TRUNK, *tasks)}
  stats = {part: trained['carry']['stats'].get(part, {}) for part in params}
  found = Trained(folder, config, chosen, int(trained['step']), params, stats, tasks)
  found.check_state(state)
  return found


def read_config(folder: pathlib.Path) -> ConfigDict:
  """The config of a run. Raises ConfigError where a field has a value that no run could have."""
  fields = saved.read_config(folder, saved.LINEAGE)
  mistake = find_mistake(fields, MULTITASK if fields['objective'] == 'multitask' else MOCO, complete=False)
  if mistake:
    raise ConfigError(f'{folder / saved.FILE} is damaged: {mistake[0]} is {show(mistake[1])}; {saved.REMEDY}')
  return saved.make_config(fields)


def read_state(folder: pathlib.Path, chosen: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
  """(state, metadata) of an exported folder or of a run."""
  if (folder / weights_file.FILE).is_file():
    return weights_file.read_weights(folder)
  try:
    trained, _ = checkpoint.read_state(folder, STATES[chosen])
  except (FileNotFoundError, checkpoint.Damaged) as error:
    other = next(name for name in STATES if name != chosen)
    raise ConfigError(f'{folder} has no {chosen} state ({error}): wait until the run has saved one, resume it if it '
                      f'was stopped, or try --state={other}') from error
  return trained, {}


def explain_no_run(folder: pathlib.Path) -> str:
  """Why a folder is not the workdir of a run, with the runs in it."""
  if not folder.exists():
    return f'there is no folder {str(folder)!r}: give the workdir of a run, such as runs/finetune/pneumonia'
  below = sorted(str(path.parent) for stage in ('*', '*/*') for path in folder.glob(f'{stage}/{saved.FILE}'))
  runs = f'choose one of its runs: {", ".join(below[:8])}' if below else (
    'give the workdir of a run, such as runs/finetune/pneumonia')
  return f'{str(folder)!r} is not the workdir of a run, because it has no {saved.FILE}: {runs}'
