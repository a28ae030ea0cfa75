"""A task's dataset: the records that it can learn from, and the rows of its batches."""

import collections
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.labelled_records import LabelledRecord
from mtpret_jax.data.records import decode_image, name_record
from mtpret_jax.data.sources import Source, Subset, advise_update, open_source
from mtpret_jax.tasks import KINDS, find_kind
from mtpret_jax.tasks.task import About, Row

log = logging.getLogger(__name__)


def open_tasks(config: ConfigDict, split: str, fraction: float = 1.0) -> dict[str, Source]:
  """{task: its records of one split}, see `open_task`."""
  return {name: open_task(config, name, split, fraction) for name in config.tasks}


def open_task(config: ConfigDict, name: str, split: str, fraction: float = 1.0) -> Source:
  """The records of one split that the task `name` can use. `fraction` keeps a share of the patients.

  The first call in a process reads index.csv, or every record of the split, see `find_usable`.

  Raises:
    ConfigError: no record can be used.
    MissingSplit, OutdatedIndex, FileNotFoundError: see `open_source`.
  """
  source, usable = open_usable(config, name, split, fraction)
  return keep_places(source, usable)


def open_usable(config: ConfigDict, name: str, split: str, fraction: float = 1.0) -> tuple[Source, 'Usable']:
  """(all records of one split, those that the task `name` can use)."""
  task_config = config.tasks[name]
  seed = config.data.fraction_seed if fraction < 1 else 0  # all patients are the same with every seed
  source = open_source(task_config.dataset, config.data.dir, config.data.stored_size, split, config.data.split,
                       fraction=fraction, fraction_seed=seed)
  check_annotation(name, task_config, source.about)
  # Reading takes seconds for 100,000 images, and a run opens a split several times.
  archive = source.about.get('archive', {}).get('sha256')
  key = (task_config.to_json(), config.data.dir, config.data.stored_size, split, config.data.split, fraction,
         seed, source.version, archive, len(source))
  if key not in USABLE:
    usable = USABLE[key] = find_usable(name, task_config, source)
    if usable.left_out:
      log.info('%s, %s split of %s: left out images: %s', name, split, task_config.dataset,
               describe_left_out(usable.left_out))
  return source, USABLE[key]


@dataclasses.dataclass(frozen=True)
class Usable:
  """The records of a split that a task can use.

  Attributes:
    places: their positions in the split.
    labels: {'patient': ..., those of LABELS that the dataset has, and `TaskKind.summarise_label`} for each of them.
    left_out: {reason: number of the other records}.
  """

  places: Sequence[int]
  labels: Sequence[Mapping[str, Any]]
  left_out: Mapping[str, int]


# The fields of a record that the checks of a split, class weights and the balanced sampler need.
LABELS = ('present', 'label_mask', 'uncertain', 'value', 'objects')
USABLE: dict[tuple, Usable] = {}  # the splits that this process has read


def check_annotation(name: str, task_config: ConfigDict, about: About) -> None:
  """Raises ConfigError if a dataset lacks the annotation or the finding that the task `name` learns from."""
  if not about.get(find_kind(task_config.kind).annotation):
    suitable = ', '.join(kind.name for kind in KINDS.values() if about.get(kind.annotation))
    raise ConfigError(f'tasks.{name}: {task_config.dataset} has no labels for {task_config.kind}'
                      f'{suitable and ", only for " + suitable}: set --config.tasks.{name}.kind or '
                      f'--config.tasks.{name}.dataset')
  for field, findings in {'findings': task_config.findings, 'among': (task_config.among,)}.items():
    unknown = [finding for finding in findings if finding and finding not in about['findings']]
    if unknown:
      raise ConfigError(f'tasks.{name}.{field}: {task_config.dataset} has no finding {unknown[0]!r}: choose '
                        f'one of {", ".join(about["findings"])}')


def find_usable(name: str, task_config: ConfigDict, source: Source) -> Usable:
  """The records that the task `name` can use, by the labels in index.csv. An index of an earlier version has none:
  then every record is read, which takes about a millisecond each.

  Raises:
    ConfigError: there is none.
    OutdatedIndex: see `sources.read_labels`.
  """
  kind = find_kind(task_config.kind)
  places, labels, left_out = [], [], collections.Counter[str]()
  known = source.read_labels() if source.read_labels else None
  if known is None and source.folder:
    advise_update(source.folder)
  for place in range(len(source)):
    record = source.records[place] if known is None else LabelledRecord(known[place], source.records, place)
    defect = kind.find_defect(source.about, task_config, record, source.split)
    if defect:
      left_out[defect] += 1
    else:
      places.append(place)
      labels.append({field: record[field] for field in ('patient', *LABELS) if field in record}
                    | kind.summarise_label(record))
  if not places:
    where = describe_split(source.split, source.name, source.split_rule)
    raise ConfigError(f'{where} has no image for {task_config.kind}: of {len(source)} images, '
                      f'{describe_left_out(left_out)}. Set --config.tasks.{name}.dataset, --config.tasks.{name}.kind '
                      f'or --config.data.split to what has one')
  return Usable(places, labels, left_out)


def keep_places(source: Source, usable: Usable) -> Source:
  source = dataclasses.replace(source, read_labels=lambda: usable.labels)
  if not usable.left_out:
    return source
  places = [(source.split, place) for place in usable.places]
  return dataclasses.replace(source, records=Subset({source.split: source.records}, places), read_patients=None)


def describe_split(split: str, dataset: str, split_rule: str) -> str:
  return f'the {split} split of {dataset} by the split rule {split_rule!r}'


def describe_left_out(left_out: Mapping[str, int]) -> str:
  """'3 with no box, 1 with no annotated pixel'."""
  return ', '.join(f'{count} with {reason}' for reason, count in left_out.items())


def make_reader(source: Source, task_config: ConfigDict) -> Callable[[Mapping], Row]:
  """record -> one row of a batch; picklable, so that worker processes can read."""
  return functools.partial(read_row, source.about, task_config)


def open_for_evaluation(config: ConfigDict, name: str, split: str) -> tuple[Source, Callable[[Mapping], Row]]:
  """(the source of `open_task`, its reader). The reader keeps every label of the split, also where training would cut
  it to a fixed shape."""
  task_config = config.tasks[name]
  source, usable = open_usable(config, name, split)
  return keep_places(source, usable), make_reader(
    source, find_kind(task_config.kind).fit_labels(task_config, usable.labels))


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
