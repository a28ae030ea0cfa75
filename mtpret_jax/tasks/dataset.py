"""A task's dataset: the records that it can learn from, and the rows of its batches."""

import collections
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.data.labelled_records import LabelledRecord
from mtpret_jax.data.records import decode_image, name_record, read_text
from mtpret_jax.data.sources import Source, Subset, advise_update, open_source, read_patient_shares
from mtpret_jax.tasks import KINDS, find_kind
from mtpret_jax.tasks.sides import find_unpaired
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
MAX_LISTED = 5  # classes that a message names
FEW = 5  # images of a class; with fewer, its score says little
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


def list_sided_names(task_config: ConfigDict, about: About) -> list[str]:
  """The labels of a task that name a side of the body while none names the other side, such as 'left lung' alone. A
  flip of the image would make them wrong."""
  kind = find_kind(task_config.kind)
  names = kind.select(about, task_config).get(kind.annotation, ())
  return find_unpaired(names) if isinstance(names, Sequence) else []


def check_flip(name: str, task_config: ConfigDict, about: About) -> None:
  """Raises ConfigError if the views of the task `name` are flipped although that makes labels wrong."""
  sided = list_sided_names(task_config, about)
  if sided and task_config.augment.flip:
    raise ConfigError(f'tasks.{name}: {", ".join(map(show, sided[:MAX_LISTED]))} of {task_config.dataset} names one '
                      f'side of the body, and no label names the other side, so a left-right flip would make it wrong',
                      {f'tasks.{name}.augment.flip': 0.0})


def check_flips(config: ConfigDict, name: str, about: About, off: object = False) -> None:
  """Raises ConfigError if predictions of the task `name` are means over flips although the mirror image has other
  labels. `off` is what the advice sets `flips` to."""
  task_config = config.tasks[name]
  if not config.get('flips', False):
    return
  if sided := list_sided_names(task_config, about):
    raise ConfigError(f'flips: {", ".join(map(show, sided[:MAX_LISTED]))} of {task_config.dataset} names one side of '
                      f'the body, and no label names the other side, so the mirror image has other labels',
                      {'flips': off})


def check_uncertain(name: str, task_config: ConfigDict, about: About) -> None:
  """Raises ConfigError for a policy for uncertain labels where the dataset marks none."""
  if task_config.get('uncertain', 'ignore') != 'ignore' and not about.get('uncertain'):
    raise ConfigError(f'tasks.{name}.uncertain={show(task_config.uncertain)}: {task_config.dataset} marks no label as '
                      f'uncertain (-1 in labels.csv; a dataset that an earlier version prepared has to be built again)',
                      {f'tasks.{name}.uncertain': 'ignore'})


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


def check_split(config: ConfigDict, name: str, split: str) -> list[str]:
  """Checks that the task `name` can be trained or scored on a split, before anything is trained. Returns what the user
  should know about the split, see `list_doubts`.

  Raises:
    ConfigError: no record can be used; in training or test, the labels are all the same; `data.fraction` keeps no
      training image of a class that the training split has; or labels do not allow
      what the config asks for (`check_flip`, `check_uncertain`, `check_flips`).
    MissingSplit, OutdatedIndex, FileNotFoundError: see `open_source`.
  """
  task_config = config.tasks[name]
  kind, fraction = find_kind(task_config.kind), config.data.fraction if split == 'train' else 1.0
  source, usable = open_usable(config, name, split, fraction)
  if split == 'train':
    check_flip(name, task_config, source.about)
    check_uncertain(name, task_config, source.about)
    check_flips(config, name, source.about)
  if fraction < 1:
    check_fraction(config, name, kind.list_classes(source.about, task_config, usable.labels))
  check_labels(config, name, split, source.about, usable.labels)
  return list_doubts(config, name, split, source.about, usable.labels)


def check_labels(config: ConfigDict, name: str, split: str, about: About, labels: Sequence[Mapping]) -> None:
  """Raises ConfigError if the task `name` cannot be trained or scored on a split because its labels are all the same.
  With one class in validation only the best state is unknown, see `list_doubts`."""
  task_config = fit_to_split(config.tasks[name], split, labels)
  defect = '' if split == 'validation' else find_kind(task_config.kind).find_split_defect(about, task_config, labels)
  if defect and split == 'train' and config.data.fraction < 1:
    where = describe_split(split, task_config.dataset, config.data.split)
    raise ConfigError(f'tasks.{name}: what data.fraction={config.data.fraction:g} keeps of {where} {defect}, so '
                      f'{task_config.kind} cannot be learned on it: set a larger --config.data.fraction')
  if defect:
    raise ConfigError(f'tasks.{name}: {describe_split(split, task_config.dataset, config.data.split)} {defect}, so '
                      f'{task_config.kind} cannot be {"learned" if split == "train" else "scored"} on it: set '
                      f'--config.tasks.{name}.dataset or --config.data.split to what has more')


def fit_to_split(task_config: ConfigDict, split: str, labels: Sequence[Mapping]) -> ConfigDict:
  """The config by which the labels of a split are read: evaluation makes no use of uncertain ones."""
  return task_config if split == 'train' else find_kind(task_config.kind).fit_labels(task_config, labels)


def list_doubts(config: ConfigDict, name: str, split: str, about: About, labels: Sequence[Mapping]) -> list[str]:
  """Why the task `name` learns less on a split than its config suggests, or why its scores there say less. A sentence
  for each reason."""
  task_config, doubts = fit_to_split(config.tasks[name], split, labels), []
  kind, where = find_kind(task_config.kind), f'tasks.{name}: '
  where += describe_split(split, task_config.dataset, config.data.split)
  if len({read_text(label['patient']) for label in labels}) == 1:
    doubts.append(f'{where} has one patient only (usable images: {len(labels)})')
  if split == 'validation':
    if defect := kind.find_split_defect(about, task_config, labels):
      doubts.append(f'{where} {defect}, so the state that validation finds may not be the best; if no validation gives '
                    f'a score, the last state counts')
      return doubts
  classes = kind.list_classes(about, task_config, labels)
  if missing := [title for title, shown_N in classes.items() if not shown_N.any()]:
    effect = {'train': 'which is not learned', 'validation': 'so the best state is chosen without it',
              'test': 'which has no score'}[split]
    doubts.append(f'{where} has no image with {join(missing)}, {effect}')
  if split == 'test':
    doubts += describe_rare(config, name, split, {title: int(shown_N.sum()) for title, shown_N in classes.items()})
  return doubts


def describe_rare(config: ConfigDict, name: str, split: str, images: Mapping[str, int]) -> list[str]:
  """A sentence if a split has too few images of a class to score it well, else none. `images`: {class: how many show
  it}."""
  rare = [f'{number} image{"s" if number > 1 else ""} with {title}' for title, number in images.items()
          if 0 < number < FEW]
  where = f'tasks.{name}: {describe_split(split, config.tasks[name].dataset, config.data.split)}'
  return [f'{where} has only {join(rare)}, so its score and means over classes are uncertain (a bootstrap resample '
          f'without it averages over the others)'] if rare else []


def join(words: Sequence[str]) -> str:
  """'a, b and 3 more'."""
  rest = f' and {len(words) - MAX_LISTED} more' if len(words) > MAX_LISTED else ''
  return f'{", ".join(words[:MAX_LISTED])}{rest}'


def check_fraction(config: ConfigDict, name: str, classes: Mapping[str, np.ndarray]) -> None:
  """Raises ConfigError if `data.fraction` keeps no training image of a class of which there are some.

  Args:
    classes: {class: (N,) bool, which of the images that are kept show it}.
  """
  missing = [name for name, shown in classes.items() if not shown.any()]
  if not missing:
    return
  task_config, data = config.tasks[name], config.data
  source, usable = open_usable(config, name, 'train')
  shares = read_patient_shares(task_config.dataset, data.dir, data.stored_size, 'train', data.split,
                               data.fraction_seed)
  share_N = np.array([shares[read_text(label['patient'])] for label in usable.labels])
  shown_of = find_kind(task_config.kind).list_classes(source.about, task_config, usable.labels)
  least = {label: float(share_N[shown_of[label]].min()) for label in missing if shown_of[label].any()}
  if not least:
    return
  worst = max(least, key=lambda label: least[label])
  enough = min(math.floor(least[worst] * 10_000 + 1) / 10_000, 1.0)  # a patient is kept above its share
  where = describe_split(source.split, source.name, source.split_rule)
  raise ConfigError(f'data.fraction={data.fraction} keeps no image of {worst!r} of {where}. The smallest fraction that '
                    f'keeps one is {enough:g}', {'data.fraction': enough})


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
