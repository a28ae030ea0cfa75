"""How many images a run would use, counted before anything is prepared: from the tables and file names of the archives.

Images that turn out to be unreadable when the dataset is prepared are still counted.
"""

import collections
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import SPLIT_RULES, SPLITS, MissingSplit, rank_patients
from mtpret_jax.runtime.prepare_data import refuse_archive
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.dataset import check_annotation, describe_split, open_task
from mtpret_jax.tasks.split_checks import check_flip, check_flips, check_labels, check_split, check_uncertain
from tfds_builders import build
from tfds_builders.common import dataset, images, index, label_columns


@dataclasses.dataclass(frozen=True)
class Images:
  """Images of a dataset or task. Attributes:
    splits: {split: number of images}; None for phantoms that are not rendered yet.
    left_out: {split: number of images that the task cannot use}.
    whole: every image is a training image, whatever the split rule (`data.whole`).
  """

  splits: dict[str, int] | None
  left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
  whole: bool = False


def count_images(config: ConfigDict) -> dict[str, Images]:
  """The images of each dataset in stage 1, and of each task in stages 2 and 3.

  Raises:
    ConfigError, MissingSplit: the run would be refused for a split that it needs.
  """
  if config.objective == 'moco':
    return {name: count_dataset(name, config) for name in config.data.datasets}
  return {name: count_task(name, config) for name in config.tasks}


def count_dataset(name: str, config: ConfigDict) -> Images:
  rows = list_rows(name, config)
  if rows is None:
    return Images(None)
  if name in config.data.whole:
    return Images({**dict.fromkeys(SPLITS, 0), 'train': len(rows)}, whole=True)
  counts = collections.Counter(row['splits'][config.data.split] for row in rows)
  if not counts['train']:
    raise MissingSplit(f'{name} has no train images under the split rule {config.data.split!r}: set '
                       f'--config.data.split or --config.data.whole')
  return Images({split: counts[split] for split in SPLITS})


def count_task(name: str, config: ConfigDict) -> Images:
  task_config = config.tasks[name]
  rows = list_rows(task_config.dataset, config)
  if rows is None:
    return Images(None)
  splits = SPLITS if len(config.tasks) == 1 else SPLITS[:2]  # a run with several tasks does not use the test splits
  kept, left_out = dict.fromkeys(SPLITS, 0), {}
  if not has_archive(task_config.dataset, config):  # without its archive, the labels are in the records only
    for split in splits:
      check_split(config, name, split)
      kept[split] = len(open_task(config, name, split, config.data.fraction if split == 'train' else 1.0))
    return Images(kept)
  about = read_tables(task_config.dataset, config.data).info.metadata
  check_annotation(name, task_config, about)
  check_flip(name, task_config, about)
  check_uncertain(name, task_config, about)
  check_flips(config, name, about)
  for split in SPLITS:
    of_split = [row for row in rows if row['splits'][config.data.split] == split]
    usable = find_usable_rows(config, name, split, about, of_split)
    kept[split], left_out[split] = len(usable), len(of_split) - len(usable)
    if split in splits:
      if not usable:
        raise ConfigError(f'tasks.{name}: {describe_split(split, task_config.dataset, config.data.split)} has no image '
                          f'with a usable label: set --config.tasks.{name}.dataset or --config.data.split to what has')
      check_labels(config, name, split, about, [row['labels'] for row in usable])
  return Images(kept, left_out)


def find_usable_rows(config: ConfigDict, name: str, split: str, about: Mapping[str, Any],
                     rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
  """The rows of one split that the task can use, of which `data.fraction` keeps a share in training."""
  task_config = config.tasks[name]
  usable = select_usable(task_config, about, rows, split)
  if split != 'train' or config.data.fraction == 1:
    return usable
  shares = rank_patients(rows, config.data.fraction_seed)
  kept = [row for row in usable if shares[row['patient']] < config.data.fraction]
  check_classes(name, config, list_shown(task_config, about, usable), list_shown(task_config, about, kept))
  return kept


def select_usable(task_config: ConfigDict, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
                  split: str) -> list[Mapping[str, Any]]:
  """The rows of one split that the task can use."""
  find_defect = find_kind(task_config.kind).find_defect
  return [row for row in rows if not find_defect(about, task_config, row['labels'], split)]


def list_shown(task_config: ConfigDict, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> set[str]:
  """The classes that at least one of the rows shows."""
  classes = find_kind(task_config.kind).list_classes(about, task_config, [row['labels'] for row in rows])
  return {class_name for class_name, shown_N in classes.items() if shown_N.any()}


def check_classes(name: str, config: ConfigDict, every: Collection[str], kept: Collection[str]) -> None:
  """Raises ConfigError if `data.fraction` keeps no training image of one of the classes `every`, but only of `kept`."""
  missing = sorted(set(every) - set(kept))
  if missing:
    raise ConfigError(f'tasks.{name}: data.fraction={config.data.fraction:g} keeps no training image of '
                      f'{config.tasks[name].dataset} with {missing[0]}: set a larger --config.data.fraction')


def has_archive(name: str, config: ConfigDict) -> bool:
  return bool(config.data.archives) and not build.find_missing([name], config.data.archives)  # '': current folder


def list_rows(name: str, config: ConfigDict) -> list[dict[str, Any]] | None:
  """For each image of an archive: `patient`, `stratum`, `splits` by each rule, and `labels` as in a record. Without the
  archive, only the `splits` of a prepared dataset. None for phantoms that are not rendered yet."""
  if has_archive(name, config):
    return read_rows(name, config.data.archives, config.data.dir, config.data.stored_size)
  path = build.locate(name, config.data.dir, config.data.stored_size)
  if not config.data.archives and not build.is_prepared(path):
    return None
  rows = index.read(path)
  return [{'splits': {**row, 'patient': row['split']}} for row in rows]  # `split` is that of the rule `patient`


def read_tables(name: str, data: ConfigDict) -> tfds.core.GeneratorBasedBuilder:
  """As `build.read_tables`, for a config's `data`. Raises ConfigError if the user has to correct the archive."""
  return keep_tables(name, data.archives, data.dir, data.stored_size)


# Of a large archive the tables take seconds, and the stages of a recipe read the same ones.
@functools.lru_cache(maxsize=32)
def keep_tables(name: str, archives_dir: str, data_dir: str, size: str) -> tfds.core.GeneratorBasedBuilder:
  with refuse_archive(name, archives_dir, data_dir, size):
    return build.read_tables(name, archives_dir)


@functools.lru_cache(maxsize=32)
def read_rows(name: str, archives_dir: str, data_dir: str, size: str) -> list[dict[str, Any]]:
  """The rows of `list_rows` from an archive."""
  builder = keep_tables(name, archives_dir, data_dir, size)
  classes = list(builder.info.metadata['box_classes'])
  # A record's patient has the dataset's name as a prefix, and `rank_patients` orders by its hash.
  return [{'patient': f'{name}:{entry.patient}', 'stratum': builder.strata[entry.image_id],
           'splits': {rule: builder.split_rules[rule].get(entry.image_id, '') for rule in SPLIT_RULES},
           'labels': make_labels(entry, classes)} for entry in builder.entries]


def make_labels(entry: dataset.Entry, box_classes: Sequence[str]) -> dict[str, Any]:
  """The fields of a record that say whether a task can use it. The mask is one pixel: annotated or not."""
  return {'image_id': entry.image_id, 'patient': entry.patient, **entry.fields,
          'mask': ANNOTATED if entry.mask else NOT_ANNOTATED,
          'objects': {'class_id': [box_classes.index(class_name) for class_name, *_ in entry.objects]}}


ANNOTATED, NOT_ANNOTATED = (images.encode(np.full((1, 1), value, np.uint8)) for value in (0, label_columns.UNANNOTATED))
