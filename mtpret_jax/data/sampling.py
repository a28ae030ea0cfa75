"""The order in which records are drawn: of one source, of several mixed by weight, and of a task by class."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from mtpret_jax.data.sources import Source

Groups = Sequence[np.ndarray]  # record numbers of a source, by class


def weigh_sources(sources: Sequence[Source], weights: str) -> list[float]:
  """The sampling weight of each source.

  `weights`: 'by_images' in proportion to the number of images, 'balanced' all equal, or numbers such as '2,1,1'.
  """
  if weights == 'by_images':
    return [len(source) for source in sources]
  if weights == 'balanced':
    return [1] * len(sources)
  return [float(number) for number in weights.split(',')]


def mix_sources(sources: Sequence[Source], weights: str, seed: int) -> grain.MapDataset:
  """An endless, shuffled dataset of (index of the source, record).

  No image is repeated until all others of its source have been drawn.
  """
  # A seed for each source: with one for all, sources of the same length would be shuffled alike.
  parts = [shuffle_source(source.records, seed + index).map(functools.partial(add_index, index))
           for index, source in enumerate(sources)]
  return grain.MapDataset.mix(parts, weigh_sources(sources, weights))


def shuffle_source(records: Any, seed: int) -> grain.MapDataset:
  """The records without end, in a new random order each epoch."""
  # In this order: shuffling what is already repeated could draw one image twice before it draws another once.
  return grain.MapDataset.source(records).seed(seed).shuffle().repeat()


def add_index(index: int, record: Any) -> tuple[int, Any]:
  return index, record


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Some of the records of a source, in an order of their own."""

  records: Any
  places: np.ndarray

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> Any:
    return self.records[int(self.places[index])]


def shuffle_task(records: Any, groups: Groups, seed: int) -> grain.MapDataset:
  """The records of a task without end. With groups, each group is shuffled and repeated by itself, and the groups take
  turns, so that the images of a small one are drawn more often; no record is repeated until all others of its group
  have been drawn."""
  if not groups:
    return shuffle_source(records, seed)
  return grain.MapDataset.mix([shuffle_source(Chosen(records, places), seed + index)
                               for index, places in enumerate(groups)])


@dataclasses.dataclass(frozen=True)
class Indices:
  """Stands for a source with `count` records: record i is i."""

  count: int

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> Any:
    return index
