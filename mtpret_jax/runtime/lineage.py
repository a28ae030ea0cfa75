"""The earlier runs whose weights a run starts from: what they were trained on, and what this means for test scores.

A *lineage* follows `init_from` back to the first run. Its checks raise before training; its notes go to `scores.json`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.models.weight_files import ENDINGS
from mtpret_jax.runtime.initial_weights import SCRATCH
from tfds_builders import leakage


@dataclasses.dataclass(frozen=True)
class EarlierRun:
  """What a run was trained on.

  Attributes:
    datasets: their names.
    split_rule: `data.split`.
    whole: the datasets of which all images were training images (`data.whole`).
    labels: whether it learned labels (stages 2 and 3).
    fraction, fraction_seed: the share of training patients that it used, and which ones.
  """

  workdir: str
  datasets: tuple[str, ...]
  split_rule: str
  whole: tuple[str, ...] = ()
  labels: bool = False
  fraction: float = 1.0
  fraction_seed: int = 0


@dataclasses.dataclass(frozen=True)
class Lineage:
  """What a run starts from.

  Attributes:
    runs: the earlier runs, the first one first.
    weights_file: the file that the first of them, or this run, starts from; '' if there is none.
    missing_run: the workdir of an earlier run that is not there any more; '' if all are.
  """

  runs: tuple[EarlierRun, ...] = ()
  weights_file: str = ''
  missing_run: str = ''

  @property
  def datasets(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for run in self.runs for name in run.datasets))

  @property
  def unknown_start(self) -> str:
    """In words, what the trunk was trained on but keeps no record; '' if everything is known."""
    if self.weights_file:
      return f'the weights file {self.weights_file}, which has no record of the images it was trained on'
    if self.missing_run:
      return f'the run in {self.missing_run}, which is not there any more'
    return ''


def describe_run(config: Mapping[str, Any], workdir: str | pathlib.Path) -> EarlierRun:
  """What a run with this config is trained on."""
  data = config['data']
  return EarlierRun(str(workdir), tuple(data['datasets']), data['split'], tuple(data.get('whole', ())),
                    config['objective'] == 'multitask', data.get('fraction', 1.0), data.get('fraction_seed', 0))


def find_origin(config: Mapping[str, Any], workdir: pathlib.Path | None) -> pathlib.Path:
  """The path in `init_from`. If it is relative and not here, it may be relative to the folder in which the run was
  started: `workdir` is where that run is now, and its config has the workdir as it was given then."""
  source, given = pathlib.Path(config['init_from']), pathlib.Path(str(config.get('workdir', '')))
  if workdir is None or source.is_absolute() or source.exists() or given.is_absolute():
    return source
  folder = workdir.resolve()
  for part in reversed(given.parts):
    if folder.name != part:
      return source
    folder = folder.parent
  return folder / source


def trace_lineage(config: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
                  later: Sequence[pathlib.Path] = (), workdir: pathlib.Path | None = None) -> Lineage:
  """The runs that the trunk of a run descends from.

  Args:
    planned: {workdir: config} of runs that will have been made by then, such as the earlier stages of a recipe. A
      folder in it is not read.
    later: runs that descend from this one, to detect a cycle.
    workdir: the folder of the run, if it is an earlier one.

  Raises:
    ConfigError: a config.json on the way cannot be read, or the runs form a cycle.
  """
  if config['init'] == SCRATCH:
    return Lineage()
  source = find_origin(config, workdir)
  if source.resolve() in later:
    raise ConfigError(f'the chain of init_from leads from the run in {source} back to itself: its {saved.FILE}, or '
                      f'that of an earlier run, is damaged; {saved.REMEDY}')
  before = planned.get(config['init_from'])
  if before is None:
    if source.is_file() or source.suffix.lower() in ENDINGS:
      return Lineage(weights_file=str(source))
    if not (source / saved.FILE).exists():  # `check_init` refuses this for the run itself
      return Lineage(missing_run=str(source))
    before = saved.read_config(source, saved.LINEAGE)
  earlier = trace_lineage(before, planned, (*later, source.resolve()), source)
  # The folder may have been moved since, so `source` is used and not the workdir in its config.
  return dataclasses.replace(earlier, runs=(*earlier.runs, describe_run(before, source)))


def check_lineage(config: ConfigDict, lineage: Lineage) -> None:
  """Raises ConfigError if test or validation images of this run were training images of an earlier one: it used a
  dataset of this run with another split rule, or all of its images; or an external task shares images with a dataset
  that an earlier run used."""
  this = describe_run(config, config.workdir)
  for earlier in lineage.runs:
    for name in this.datasets:
      if name in this.whole or name not in earlier.datasets:
        continue
      if name in earlier.whole:
        raise ConfigError(
          f'the run in {earlier.workdir} trained on all images of {name} (data.whole), test images included, so '
          f'{this.workdir} with data.split={this.split_rule!r} cannot be scored on it: set --config.init_from to a '
          f'run without {name} in data.whole, or leave {name} out of this run')
      if earlier.split_rule != this.split_rule:
        raise ConfigError(
          f'the run in {earlier.workdir} used {name} with data.split={earlier.split_rule!r}, and {this.workdir} uses '
          f'it with {this.split_rule!r}: training images of the one are test images of the other. Set '
          f'--config.data.split={earlier.split_rule}, or --config.init_from to a run with '
          f'data.split={this.split_rule!r}')
  check_external(config, lineage)


def check_external(config: ConfigDict, lineage: Lineage) -> None:
  """Raises ConfigError if an external task shares images with one of the datasets its trunk was pretrained on."""
  for name, task_config in config.get('tasks', {}).items():
    if task_config.external:
      try:
        leakage.check_external(task_config.dataset, lineage.datasets)
      except leakage.NotExternal as error:
        raise ConfigError(f'{error}; to run it anyway, as an internal task, add '
                          f'--config.tasks.{name}.external=False') from error


def describe_lineage(config: ConfigDict, lineage: Lineage) -> dict[str, Any]:
  """The field `pretraining` of `scores.json`: the earlier runs, the weights file, and notes that a reader of the scores
  needs (see docs/scores.md)."""
  return {'runs': [{'workdir': run.workdir, 'datasets': list(run.datasets), 'split_rule': run.split_rule,
                    'whole': list(run.whole)} for run in lineage.runs],
          'weights_file': lineage.weights_file or None, 'notes': list_notes(config, lineage)}


def list_notes(config: ConfigDict, lineage: Lineage) -> list[str]:
  """What a reader of the scores must know about the pretraining, a sentence each."""
  this, notes = describe_run(config, config.workdir), []
  for name, task_config in config.tasks.items():
    for run in (*lineage.runs, this):
      notes += note_overlap(name, task_config.dataset, run, run is this)
    for run in lineage.runs:
      if not run.labels or task_config.dataset not in run.datasets or this.fraction == 1:
        continue
      if run.fraction > this.fraction:
        notes.append(f'{name}: the run in {run.workdir} learned the labels of {run.fraction:g} of the training '
                     f'patients of {task_config.dataset}, this run only of {this.fraction:g}')
      elif run.fraction_seed != this.fraction_seed:
        notes.append(f'{name}: the run in {run.workdir} learned the labels of other training patients of '
                     f'{task_config.dataset} than this run, because their data.fraction_seed differs')
    if lineage.unknown_start and task_config.external:
      notes.append(f'{name}: called external, but this cannot be checked: the trunk starts from '
                   f'{lineage.unknown_start}')
  if lineage.unknown_start and not all(task_config.external for task_config in config.tasks.values()):
    notes.append(f'the trunk starts from {lineage.unknown_start}: it may have seen test images')
  return notes


def note_overlap(task: str, dataset: str, run: EarlierRun, is_this: bool) -> list[str]:
  """A sentence if a run saw images of a task's dataset as another dataset, else nothing."""
  shared = {other: why for other in run.datasets if other != dataset
            if (why := leakage.explain_overlap(dataset, other))}
  if not shared:
    return []
  who = 'this run' if is_this else f'the run in {run.workdir}'
  how = 'with their labels' if run.labels else 'without labels'
  also = "; MUSCLE's own protocol does too" if shared.keys() <= leakage.MUSCLE_OVERLAPS.get(dataset, set()) else ''
  return [f'{task}: {who} saw images of this test set, {how}, as {" and ".join(shared)}{also} '
          f'({"; ".join(dict.fromkeys(shared.values()))})']
