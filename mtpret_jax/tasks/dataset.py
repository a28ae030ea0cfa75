"""A task's dataset: the records that it can learn from, the rows of its batches, and its model."""

import collections
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.records import decode_image, name_record
from mtpret_jax.data.sources import Source, Subset, open_source
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.task import About, Row, TaskModel

log = logging.getLogger(__name__)


def open_tasks(config: ConfigDict, split: str, fraction: float = 1.0) -> dict[str, Source]:
  """{task: its records of one split}, see `open_task`."""
  return {name: open_task(config, name, split, fraction) for name in config.tasks}


def open_task(config: ConfigDict, name: str, split: str, fraction: float = 1.0) -> Source:
  """The records of one split that the task `name` can learn from.

  For detection these are the images with boxes, unless `negatives` says that images without boxes were examined and
  are empty. `fraction` keeps a share of the patients.
  """
  task_config = config.tasks[name]
  source = open_source(task_config.dataset, config.data.dir, config.data.stored_size, split, config.data.split,
                       fraction=fraction)
  if task_config.negatives:
    return source
  source, left_out = keep_usable(task_config, source)
  if left_out:
    log.info('%s, %s split of %s: left out images: %s', name, split, task_config.dataset, describe_left_out(left_out))
  return source


def keep_usable(task_config: ConfigDict, source: Source) -> tuple[Source, dict[str, int]]:
  """(the records that this kind of task can learn from, {reason: number left out}).

  Reads every record once, which takes about a millisecond each. Raises ValueError where no record is left.
  """
  find_defect, places, left_out = find_kind(task_config.kind).find_defect, [], collections.Counter[str]()
  for position in range(len(source)):
    defect = find_defect(source.about, task_config, source.records[position])
    if defect:
      left_out[defect] += 1
    else:
      places.append((source.split, position))
  if not places:
    raise ValueError(f'{source.name} {source.split}: none of {len(source)} images has a label for {task_config.kind} '
                     f'({describe_left_out(left_out)}): choose another dataset or kind of task')
  if not left_out:
    return source, {}
  return dataclasses.replace(source, records=Subset({source.split: source.records}, places)), dict(left_out)


def describe_left_out(left_out: Mapping[str, int]) -> str:
  """'3 with no box, 1 with no annotated pixel'."""
  return ', '.join(f'{count} with {reason}' for reason, count in left_out.items())


def make_reader(source: Source, task_config: ConfigDict) -> Callable[[Mapping], Row]:
  """record -> one row of a batch; picklable, so that worker processes can read."""
  return functools.partial(read_row, source.about, task_config)


def read_row(about: About, task_config: ConfigDict, record: Mapping) -> Row:
  """One row of a batch: `image` (S, S, 1) uint8, S being `task_config.size`, and the label.

  | kind of task | label |
  |---|---|
  | classification | `present` (T,) float32, 0 where not known; `label_mask` (T,) bool |
  | regression | `value` (1,) float32, in the dataset's unit |
  | segmentation | `mask` (S, S) int8, -1 where not annotated |
  | detection | `boxes` (M, 4) float32, y0, x0, y1, x1 in 0-1; `class_id` (M,) int32; empty slots: -1, box 0 |

  Raises ValueError where the record has no such label, or one that contradicts the dataset's metadata.
  """
  kind = find_kind(task_config.kind)
  label = {'findings': 'present', 'box_classes': 'objects'}.get(kind.annotation, kind.annotation)
  if label not in record:
    raise ValueError(f'{name_record(record)} has no {label!r}, which {kind.name} needs; it has '
                     f'{", ".join(sorted(record))}')
  return {'image': decode_image(record['image'], task_config.size)} | kind.read_label(about, task_config, record)


def describe_task(about: About, task_config: ConfigDict) -> About:
  """The dataset's metadata, reduced to what the task asks for, such as some of the findings."""
  return find_kind(task_config.kind).select(about, task_config)


def make_task(config: ConfigDict, name: str, source: Source) -> TaskModel:
  """The model of the task `name` on the training records `source`."""
  task_config = config.tasks[name]
  kind = find_kind(task_config.kind)
  try:
    return kind.make_model(describe_task(source.about, task_config), kind.fit_head(task_config, source))
  except KeyError as error:
    raise ConfigError(f'tasks.{name}: {task_config.dataset} has no {error}, which {task_config.kind} needs') from error
