"""Readings -> batches of squares -> a prediction for each reading, in order.

Letters: B images of a batch, S side of the square that a stored image is stretched to.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtpret_jax.data.records import stretch
from mtpret_jax.predict.reading import Reading, Unreadable

Prediction = dict[str, np.ndarray]  # one image's arrays
# {S: (B, S, S, 1) uint8} -> arrays on the device with leading axis B
Compute = Callable[[Mapping[int, np.ndarray]], Any]


def run_batches(readings: Iterable[Reading | Unreadable], batch: int, sizes: Iterable[int], compute: Compute,
                combine: Callable[[Any], Mapping[str, np.ndarray]]
                ) -> Iterator[tuple[Reading | Unreadable, Prediction | None]]:
  """Yields each reading with its row of what `compute` gives for batches of images, of which it gets a square of each
  of `sizes`; the last batch is padded."""
  pending: tuple[list[Reading | Unreadable], Any] | None = None
  for items in group(readings, batch):
    images = [item.image for item in items if isinstance(item, Reading)]
    outputs = compute({size: stack(images, size, batch) for size in sizes}) if images else None
    # The device computes this batch while the results of the last one are used.
    if pending:
      yield from split_rows(*pending, combine)
    pending = items, outputs
  if pending:
    yield from split_rows(*pending, combine)


def stack(images: Sequence[np.ndarray], size: int, batch: int) -> np.ndarray:
  """(B, S, S, 1): the images stretched to a square, padded to a whole batch."""
  padding = [np.zeros((size, size, 1), np.uint8)] * (batch - len(images))
  return np.stack([*(stretch(image, size) for image in images), *padding])


def group(readings: Iterable[Reading | Unreadable], batch: int) -> Iterator[list[Reading | Unreadable]]:
  """Lists with `batch` readings each, the last one with fewer; unreadable images lie between them."""
  items: list[Reading | Unreadable] = []
  count = 0
  for item in readings:
    items.append(item)
    count += isinstance(item, Reading)
    if count == batch:
      yield items
      items, count = [], 0
  if items:
    yield items


def split_rows(items: Sequence[Reading | Unreadable], outputs: Any, combine: Callable[[Any], Mapping[str, np.ndarray]]
               ) -> Iterator[tuple[Reading | Unreadable, Prediction | None]]:
  rows = {} if outputs is None else combine(jax.device_get(outputs))
  row = 0
  for item in items:
    if isinstance(item, Reading):
      yield item, {field: values[row] for field, values in rows.items()}
      row += 1
    else:
      yield item, None
