"""What the table would run (`--dry_run`): its cells, their steps and images, hours, and disk space.

Steps that depend on images which are not there yet, such as phantoms before they are rendered, count with the largest
number that the config allows.
"""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.data.task_schedule import JOINT, count_visit_steps, make_plan
from mtpret_jax.evaluation import test_scores
from mtpret_jax.models.torchvision_weights import trunk_shapes
from mtpret_jax.report.dry_run import STORED_BYTES, describe_bytes
from mtpret_jax.report.tables import align
from mtpret_jax.report.words import say_count
from mtpret_jax.runtime import image_counts, prepare_data
from mtpret_jax.runtime.atomic_io import read_json_lines
from mtpret_jax.runtime.logging import METRICS
from mtpret_jax.stages.table import counts
from mtpret_jax.stages.table.cells import Cell, Labels, list_stages, make_cells, make_pretraining, resolve
from mtpret_jax.stages.table.jobs import check_finished, make_jobs

STAGES = ('pretrain', 'continual', 'finetune')


@dataclasses.dataclass
class Group:
  """Runs of one kind. `stage`: one of STAGES; `steps` and `images` are those of the `left` runs, None if not known."""

  title: str
  stage: str
  runs: int = 0
  left: int = 0
  steps: int | None = 0
  images: int | None = 0
  speeds: list[float] = dataclasses.field(default_factory=list)  # images/s of finished runs

  def add(self, config: ConfigDict, length: tuple[int, int] | None) -> None:
    """Adds a run. `length`: its steps and images."""
    self.runs += 1
    if test_scores.is_finished(config):
      self.speeds += [line['images_per_second'] for line in read_json_lines(pathlib.Path(config.workdir, METRICS))]
      return
    self.left += 1
    if length is None or self.steps is None or self.images is None:
      self.steps = self.images = None
    else:
      self.steps, self.images = self.steps + length[0], self.images + length[1]


def describe_table(config: ConfigDict) -> list[str]:
  """The lines of a dry run of a table."""
  config = resolve(config)
  stages = list_stages(config)
  for stage in stages:
    prepare_data.choose_datasets(stage)
  prepare_data.check_archives(stages)
  prepare_data.check_unchanged(stages)
  kept = counts.count_kept(config)
  too_few = counts.find_too_few(kept, config.min_images)
  cells, pretraining = make_cells(config, too_few), make_pretraining(config, too_few)
  check_finished(make_jobs(cells, pretraining))
  groups = group_runs(config, cells, pretraining, kept)
  lines = [f'{say_count(len(cells), "cell")} of {say_count(len(config.tasks), "task")}, '
           f'{say_count(len(pretraining), "pretraining run")}, in {config.workdir}',
           *(f'  {line}' for line in counts.describe_left_out(config, too_few)),
           *(f'  {line}' for line in align([('runs', 'number', 'finished', 'steps left', 'images left', 'hours left'),
                                            *(describe_group(config, group) for group in groups)])),
           *(f'  {line}' for line in advise_speed(config, groups))]
  if not all((name, fraction) in kept for fraction in config.fractions for name in config.tasks):
    lines.append('  The phantoms are rendered when the table runs: until then, steps are the largest possible, and '
                 'shares of the labels that keep too few images are not left out.')
  return [*lines, *(f'  {line}' for line in describe_disk(config, cells, pretraining))]


def group_runs(config: ConfigDict, cells: Sequence[Cell], pretraining: Mapping[str, ConfigDict],
               kept: Mapping[Labels, Sequence[counts.Kept]]) -> list[Group]:
  """Stage 1, stage 2, and the cells of each task."""
  first, second = Group('stage 1', 'pretrain'), Group('stage 2', 'continual')
  third = {task: Group(f'stage 3, {task}', 'finetune') for task in config.tasks}
  for stage in pretraining.values():
    (first if stage.objective == 'moco' else second).add(stage, measure_length(config, stage, kept))
  for cell in cells:
    third[cell.task].add(cell.config, measure_length(config, cell.config, kept))
  return [first, second, *third.values()]


def measure_length(config: ConfigDict, stage: ConfigDict,
                   kept: Mapping[Labels, Sequence[counts.Kept]]) -> tuple[int, int] | None:
  """(steps, images) of a run, where an image counts each time that it is seen; None if not known."""
  if stage.objective == 'moco':
    return stage.steps, stage.steps * stage.batch
  lengths = {}
  for name, task_config in stage.tasks.items():
    own = kept.get((name, stage.data.fraction))
    if own:
      images = own[config.seeds.index(stage.data.fraction_seed)].images
      lengths[name] = count_visit_steps(task_config, images)
    elif task_config.steps or task_config.max_steps:
      lengths[name] = task_config.steps or task_config.max_steps
    else:
      return None
  plan = make_plan(lengths, stage.rounds, stage.order, stage.seed)
  batches = {name: task_config.batch for name, task_config in stage.tasks.items()}
  batches[JOINT] = sum(batches.values())
  return plan.steps, sum(visit.length * batches[visit.task] for visit in plan.visits)


def describe_group(config: ConfigDict, group: Group) -> Sequence[str]:
  numbers = ['?', '?'] if group.steps is None else [f'{group.steps:,}', f'{group.images:,}']
  return [group.title, f'{group.runs:,}', f'{group.runs - group.left:,}', *numbers, describe_hours(config, group)]


def describe_hours(config: ConfigDict, group: Group) -> str:
  speed, source = find_speed(config, group)
  if not group.left:
    return '0'
  if not speed or group.images is None:
    return '?'
  return f'{group.images / speed / 3600:.2g} at {speed:.3g} images/s ({source})'


def find_speed(config: ConfigDict, group: Group) -> tuple[float, str]:
  """(images/s, where the number is from); 0 if it is not known."""
  if given := config.images_per_second[group.stage]:
    return given, 'given'
  return (statistics.median(group.speeds), 'measured') if group.speeds else (0.0, '')


def advise_speed(config: ConfigDict, groups: Sequence[Group]) -> list[str]:
  """What the hours are, and how they get known."""
  unknown = dict.fromkeys(group.stage for group in groups if group.left and not find_speed(config, group)[0])
  lines = ['hours: of training in one process, without compiling, validation and scoring']
  if unknown:
    lines.append(f'hours are known when a run of the stage is finished, or with '
                 f'{" ".join(f"--config.images_per_second.{stage}=N" for stage in unknown)}')
  return lines


def describe_disk(config: ConfigDict, cells: Sequence[Cell], pretraining: Mapping[str, ConfigDict]) -> list[str]:
  """Rough sizes: the heads are not counted."""
  sizes = [(count_checkpoint_bytes(stage), stage) for stage in pretraining.values()]
  checkpoints = sum(size * stage.keep_finished for size, stage in sizes)
  checkpoints += max((size * max(stage.keep - stage.keep_finished, 0) for size, stage in sizes), default=0)  # in a run
  of_cells = [count_checkpoint_bytes(cell.config) * (cell.config.keep + 1) for cell in cells]
  if config.keep_checkpoints:
    of_cells = [count_checkpoint_bytes(cell.config) * (cell.config.keep_finished + 1) for cell in cells]
  images = count_prepared_images(config)
  prepared = '?' if images is None else describe_bytes(images * STORED_BYTES[config.stages.pretrain.data.stored_size])
  cells_size = sum(of_cells) if config.keep_checkpoints else max(of_cells, default=0)
  while_running = '' if config.keep_checkpoints else ' while a cell runs'
  return [f'disk, roughly: {describe_bytes(checkpoints)} of checkpoints of pretraining, {describe_bytes(cells_size)} '
          f'of cells{while_running}, {prepared} of prepared images']


def count_checkpoint_bytes(stage: ConfigDict) -> int:
  """The trunk's weights, what the optimiser keeps of them, and the key encoder or the anchor; float32."""
  weights = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(trunk_shapes(stage.trunk)[0]))
  copies = 1 + {'sgd': 1, 'adamw': 2}[stage.optimiser.kind]
  copies += stage.objective == 'moco' or stage.memory.anchor != 'none'
  return 4 * copies * weights


def count_prepared_images(config: ConfigDict) -> int | None:
  """The images of all datasets of the table; None if an archive is not there."""
  names = {name for stage in list_stages(config) for name in (
    stage.data.datasets if stage.objective == 'moco' else [own.dataset for own in stage.tasks.values()])}
  if not config.data.archives:
    return len(names) * config.data.phantoms.images
  rows = [image_counts.list_rows(name, config.stages.pretrain) for name in names]
  return sum(len(own) for own in rows if own is not None)
