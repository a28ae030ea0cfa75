"""How many images a run would use, counted before anything is prepared: from the tables and file names of the archives.

Images that turn out to be unreadable when the dataset is prepared are still counted.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import SPLITS, rank_patients
from mtpret_jax.runtime import prepare_data
from mtpret_jax.tasks import find_kind
from tfds_builders import build
from tfds_builders.common import dataset, images


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


def check_archives(stages: Iterable[ConfigDict]) -> None:
  """Raises ConfigError, with a line for each missing archive."""
  names: dict[str, set[str]] = {}  # folder of archives -> datasets that are in it
  for config in stages:
    names.setdefault(config.data.archives, set()).update(config.data.datasets)
  for folder in filter(None, names):
    prepare_data.check_archives(sorted(names[folder]), folder)


def count_images(config: ConfigDict) -> dict[str, Images]:
  """The images of each dataset in stage 1, and of each task in stages 2 and 3."""
  if config.objective == 'moco':
    return {name: count_dataset(name, config) for name in config.data.datasets}
  return {name: count_task(name, config) for name in config.tasks}


def count_dataset(name: str, config: ConfigDict) -> Images:
  rows = list_rows(name, config)
  if rows is None:
    return Images(None)
  if name in config.data.whole:
    return Images({**dict.fromkeys(SPLITS, 0), 'train': len(rows)}, whole=True)
  counts = collections.Counter(row[config.data.split] for row in rows)
  return Images({split: counts[split] for split in SPLITS})


def count_task(name: str, config: ConfigDict) -> Images:
  """The images that a task can use. Raises ConfigError if the run would be refused for a split that it needs."""
  task_config = config.tasks[name]
  rows = list_rows(task_config.dataset, config)
  if rows is None:
    return Images(None)
  about, kind = read_tables(task_config.dataset, config.data.archives).info.metadata, find_kind(task_config.kind)
  kept, left_out = {}, {}
  for split in SPLITS:
    of_split = [row for row in rows if row[config.data.split] == split]
    if split == 'train':
      shares = rank_patients(of_split)
      of_split = [row for row in of_split if shares[row['patient']] < config.data.fraction]
    usable = [row['labels'] for row in of_split if not kind.find_defect(about, task_config, row['labels'], split)]
    kept[split], left_out[split] = len(usable), len(of_split) - len(usable)
    if split != 'test' or len(config.tasks) == 1:  # several tasks are not scored on test splits
      defect = 'has no image with a usable label' if not usable else '' if split == 'validation' else (
        kind.find_split_defect(about, task_config, usable))
      if defect:
        raise ConfigError(f'tasks.{name}: the {split} split of {task_config.dataset} by the rule {config.data.split!r} '
                          f'{defect}: set --config.tasks.{name}.dataset or --config.data.split to what has more')
  return Images(kept, left_out)


def list_rows(name: str, config: ConfigDict) -> list[dict[str, Any]] | None:
  """For each image of an archive: its patient, stratum, split by each rule, and labels as in a record. None for
  phantoms."""
  if not config.data.archives:
    return None
  builder = read_tables(name, config.data.archives)
  classes = list(builder.info.metadata['box_classes'])
  # A record's patient has the dataset's name as a prefix, and `rank_patients` orders by its hash.
  return [{'patient': f'{name}:{entry.patient}', 'stratum': builder.strata[entry.image_id],
           **{rule: split_of.get(entry.image_id, '') for rule, split_of in builder.split_rules.items()},
           'labels': make_labels(entry, classes)} for entry in builder.entries]


# Of a large archive the tables take seconds, and the stages of a recipe read the same ones.
read_tables = functools.lru_cache(maxsize=32)(build.read_tables)


def make_labels(entry: dataset.Entry, box_classes: Sequence[str]) -> dict[str, Any]:
  """The fields of a record that say whether a task can use it. The mask is one pixel: annotated or not."""
  return {'image_id': entry.image_id, 'patient': entry.patient, **entry.fields,
          'mask': ANNOTATED if entry.mask else NOT_ANNOTATED,
          'objects': {'class_id': [box_classes.index(class_name) for class_name, *_ in entry.objects]}}


ANNOTATED, NOT_ANNOTATED = (images.encode(np.full((1, 1), value, np.uint8)) for value in (0, dataset.UNANNOTATED))
