"""How many images a run would use, counted before anything is prepared: from the tables and file names of the archives.

Images that turn out to be unreadable when the dataset is prepared are still counted.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import SPLITS, rank_patients
from mtpret_jax.tasks import find_kind
from tfds_builders import build
from tfds_builders.common import archives, dataset, images


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
  """The images of each dataset in stage 1, and of each task in stages 2 and 3."""
  if config.objective == 'moco':
    return {name: count_dataset(name, config) for name in config.data.datasets}
  return {name: count_task(task_config, config) for name, task_config in config.tasks.items()}


def count_dataset(name: str, config: ConfigDict) -> Images:
  rows = list_rows(name, config)
  if rows is None:
    return Images(None)
  if name in config.data.whole:
    return Images({**dict.fromkeys(SPLITS, 0), 'train': len(rows)}, whole=True)
  counts = collections.Counter(row[config.data.split] for row in rows)
  return Images({split: counts[split] for split in SPLITS})


def count_task(task_config: ConfigDict, config: ConfigDict) -> Images:
  rows = list_rows(task_config.dataset, config)
  if rows is None:
    return Images(None)
  about = read_tables(task_config.dataset, config.data.archives).info.metadata
  find_defect = find_kind(task_config.kind).find_defect
  kept, left_out = {}, {}
  for split in SPLITS:
    of_split = [row for row in rows if row[config.data.split] == split]
    if split == 'train':
      shares = rank_patients(of_split)
      of_split = [row for row in of_split if shares[row['patient']] < config.data.fraction]
    left_out[split] = sum(bool(find_defect(about, task_config, row['labels'], split)) for row in of_split)
    kept[split] = len(of_split) - left_out[split]
  return Images(kept, left_out)


def list_rows(name: str, config: ConfigDict) -> list[dict[str, Any]] | None:
  """For each image of an archive: its patient, stratum, split by each rule, and labels as in a record. None for
  phantoms. Raises ConfigError for an archive that is missing."""
  if not config.data.archives:
    return None
  try:
    builder = read_tables(name, config.data.archives)
  except archives.ArchiveMissing as error:
    raise ConfigError(str(error)) from error
  # A record's patient has the dataset's name as a prefix, and `rank_patients` orders by its hash.
  return [{'patient': f'{name}:{entry.patient}', 'stratum': builder.strata[entry.image_id],
           **{rule: split_of.get(entry.image_id, '') for rule, split_of in builder.split_rules.items()},
           'labels': make_labels(entry)} for entry in builder.entries]


# Of a large archive the tables take seconds, and the stages of a recipe read the same ones.
read_tables = functools.lru_cache(maxsize=32)(build.read_tables)


def make_labels(entry: dataset.Entry) -> dict[str, Any]:
  """The fields of a record that say whether a task can use it. The mask is one pixel: annotated or not."""
  return {'image_id': entry.image_id, **entry.fields, 'mask': ANNOTATED if entry.mask else NOT_ANNOTATED,
          'objects': {'class_id': [class_name for class_name, *_ in entry.objects]}}


ANNOTATED, NOT_ANNOTATED = (images.encode(np.full((1, 1), value, np.uint8)) for value in (0, dataset.UNANNOTATED))
