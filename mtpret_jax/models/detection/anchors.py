"""Anchors (Ren et al. 2015), the boxes that proposals start from, as torchvision's `AnchorGenerator` lays them."""

import numpy as np


def make_anchors(size, grids, sides, ratios):
  """(A, 4) f32 (y0, x0, y1, x1) in pixels of an image of `size` (height, width), constants of the program.

  `grids`: (rows, columns) of each level's map. `sides`: per level, the square roots of the areas, px. `ratios`: height
  over width. The order is level, row, column, ratio, side. The first anchor's centre is the image's corner, not the
  middle of its first cell, and corners are rounded to whole pixels: both are torchvision's.
  """
  levels = []
  for grid, level_sides in zip(grids, sides, strict=True):
    steps = [length // count for length, count in zip(size, grid, strict=True)]
    corners = np.stack(np.meshgrid(*(np.arange(count) * step for count, step in zip(grid, steps, strict=True)),
                                   indexing='ij'), axis=-1)
    cell = make_cell(level_sides, ratios)
    levels.append((np.tile(corners, 2)[:, :, None] + cell[None, None]).reshape(-1, 4))
  return np.concatenate(levels).astype(np.float32)


def make_cell(sides, ratios):
  """The anchors around (0, 0), (ratios x sides, 4)."""
  tall = np.sqrt(np.float32(ratios))[:, None]
  half = np.stack([tall * np.float32(sides)[None], 1 / tall * np.float32(sides)[None]], axis=-1).reshape(-1, 2) / 2
  return np.round(np.concatenate([-half, half], axis=1))
