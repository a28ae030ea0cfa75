"""Anchor boxes (Ren et al. 2015), laid out as by torchvision's `AnchorGenerator`."""

from collections.abc import Sequence

import numpy as np


def make_anchors(image_size: tuple[int, int], grids: Sequence[tuple[int, int]], anchor_sizes: Sequence[Sequence[float]],
                 aspect_ratios: Sequence[float]) -> np.ndarray:
  """(A, 4) f32 (y0, x0, y1, x1) in pixels of an image of `image_size` (height, width).

  Args:
    grids: (rows, columns) of the feature map of each level.
    anchor_sizes: for each level, the square roots of the anchor areas, px.
    aspect_ratios: height over width.

  The order is level, row, column, aspect ratio, size. As in torchvision, the first anchor is centred on the image's
  corner rather than on the middle of its cell, and corners are rounded to whole pixels.
  """
  levels = []
  for grid, level_sizes in zip(grids, anchor_sizes, strict=True):
    strides = [length // count for length, count in zip(image_size, grid, strict=True)]
    shifts = np.stack(np.meshgrid(*(np.arange(count) * stride for count, stride in zip(grid, strides, strict=True)),
                                  indexing='ij'), axis=-1)
    cell = make_cell_anchors(level_sizes, aspect_ratios)
    levels.append((np.tile(shifts, 2)[:, :, None] + cell[None, None]).reshape(-1, 4))
  # NumPy, not jax: anchors depend on shapes only, so they are constants of the compiled step.
  return np.concatenate(levels).astype(np.float32)


def make_cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
  """The anchors of one cell, centred on (0, 0): (ratios x sizes, 4)."""
  height_scale, size = np.sqrt(np.asarray(aspect_ratios, np.float32))[:, None], np.asarray(sizes, np.float32)[None]
  sides = np.stack([height_scale * size, 1 / height_scale * size], axis=-1)
  half = sides.reshape(-1, 2) / 2
  return np.round(np.concatenate([-half, half], axis=1))
