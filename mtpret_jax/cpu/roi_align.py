"""RoIAlign that reads only the pixels that an RoI samples.

The plain formulation (`models/detection/roi_align.py`) is matrix products over whole maps. A CPU spends more on their
intermediate results than on the samples themselves, and has caches that make reading single pixels cheap.
docs/performance.md shows the speed-up.

Each cell is a weighted sum of pixels: with two samples along each side and two neighbours of each sample, T = 4 rows
times T columns.

Letters: B images, R RoIs, N RoIs of all images, P Q cells along the sides of an RoI, T pixels of a cell along a side,
C channels.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from mtpret_jax.cpu.conv import find_mesh

CHUNK = 4  # RoIs whose gradients are computed at once: they must stay in the cache

Maps = Sequence[jax.Array]
Pixels = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def align_on_devices(maps: Maps, rois_BR4: jax.Array, level_BR: jax.Array, cells: int, samples: int,
                     first_level: int) -> jax.Array:
  """As `align_by_products` of the plain formulation, for each device's own images. Otherwise XLA would send whole maps
  to all devices."""
  scales = jnp.array([2.0 ** -(index + first_level) for index in range(len(maps))], jnp.float32)
  edges_BR4 = rois_BR4 * scales[level_BR][..., None]
  own = functools.partial(align, cells, samples)
  mesh = find_mesh(maps[0])
  if mesh is not None:
    split = P(mesh.axis_names)
    own = jax.shard_map(own, mesh=mesh, in_specs=(split, split, split), out_specs=split, check_vma=False)
  return own(tuple(maps), edges_BR4, level_BR)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def align(cells: int, samples: int, maps: Maps, edges_BR4: jax.Array, level_BR: jax.Array) -> jax.Array:
  """Features of each RoI from its level: (B, R, cells, cells, C).

  Args:
    samples: along each side of a cell.
    maps: (B, H, W, C) of each level.
    edges_BR4: (y0, x0, y1, x1) in pixels of the RoI's own map. They get no gradient.
    level_BR: index of that map.
  """
  shape, channels = edges_BR4.shape[:2], maps[0].shape[-1]
  table = jnp.concatenate([level.reshape(len(level), -1, channels) for level in maps], axis=1).reshape(-1, channels)
  rows_NPT, row_weights_NPT, columns_NQT, column_weights_NQT = find_pixels(cells, samples, maps, edges_BR4, level_BR)
  total: jax.Array | float = 0.0
  # One sum of gathers, which XLA turns into one loop. As a sum over an axis, the pixels would be written to memory.
  for row, column in itertools.product(range(2 * samples), repeat=2):
    index_NPQ = rows_NPT[:, :, None, row] + columns_NQT[:, None, :, column]
    weight_NPQ = row_weights_NPT[:, :, None, row] * column_weights_NQT[:, None, :, column]
    total += weight_NPQ[..., None] * table.at[index_NPQ].get(mode='promise_in_bounds')
  return jnp.reshape(total, (*shape, cells, cells, channels)).astype(maps[0].dtype)


def align_forward(cells: int, samples: int, maps: Maps, edges_BR4: jax.Array, level_BR: jax.Array) -> tuple:
  return align(cells, samples, maps, edges_BR4, level_BR), (maps, edges_BR4, level_BR)


def align_backward(cells: int, samples: int, saved: tuple, gradient_BRPQC: jax.Array) -> tuple:
  """The gradient for the maps: each cell is added to the pixels that it was read from, a few RoIs at a time."""
  maps, edges_BR4, level_BR = saved
  batch, channels = len(edges_BR4), maps[0].shape[-1]
  sizes = [level.shape[1] * level.shape[2] for level in maps]

  def add(total: jax.Array, chunk: tuple) -> tuple[jax.Array, None]:
    gradient_NPQC, rows_NPT, row_weights_NPT, columns_NQT, column_weights_NQT = chunk
    index_NPQTT = rows_NPT[:, :, None, :, None] + columns_NQT[:, None, :, None, :]
    weight_NPQTT = row_weights_NPT[:, :, None, :, None] * column_weights_NQT[:, None, :, None, :]
    added = weight_NPQTT[..., None] * gradient_NPQC[:, :, :, None, None].astype(jnp.float32)
    return total.at[index_NPQTT].add(added, mode='promise_in_bounds'), None

  pixels = find_pixels(cells, samples, maps, edges_BR4, level_BR)
  chunks = tuple(map(split_chunks, (gradient_BRPQC.reshape(-1, *gradient_BRPQC.shape[2:]), *pixels)))
  total, _ = jax.lax.scan(add, jnp.zeros((batch * sum(sizes), channels)), chunks)
  parts = jnp.split(total.reshape(batch, -1, channels), np.cumsum(sizes[:-1]), axis=1)
  gradients = tuple(part.reshape(level.shape).astype(level.dtype) for part, level in zip(parts, maps, strict=True))
  return gradients, jnp.zeros_like(edges_BR4), None


align.defvjp(align_forward, align_backward)


def split_chunks(rows_N: jax.Array) -> jax.Array:
  """(N, ...) -> (chunks, CHUNK, ...), with zeros in the last chunk if it is not full: weights of zero add nothing."""
  missing = -len(rows_N) % CHUNK
  if missing:
    rows_N = jnp.pad(rows_N, ((0, missing), *((0, 0) for _ in rows_N.shape[1:])))
  return rows_N.reshape(-1, CHUNK, *rows_N.shape[1:])


def find_pixels(cells: int, samples: int, maps: Maps, edges_BR4: jax.Array, level_BR: jax.Array) -> Pixels:
  """(rows_NPT, row_weights_NPT, columns_NQT, column_weights_NQT). Row plus column is the index of a pixel among those
  of all images and levels, level after level in each image."""
  heights, widths = (np.array([level.shape[axis] for level in maps]) for axis in (1, 2))
  starts = np.cumsum([0, *(heights * widths)])
  height_BR, width_BR, start_BR = (jnp.asarray(numbers, jnp.int32)[level_BR] for numbers in (heights, widths, starts))
  start_BR += int(starts[-1]) * jnp.arange(len(edges_BR4), dtype=jnp.int32)[:, None]
  row_BRPT, row_weight_BRPT = find_neighbours(edges_BR4[..., 0], edges_BR4[..., 2], height_BR, cells, samples)
  column_BRQT, column_weight_BRQT = find_neighbours(edges_BR4[..., 1], edges_BR4[..., 3], width_BR, cells, samples)
  row_BRPT = start_BR[..., None, None] + row_BRPT * width_BR[..., None, None]
  rows_NPT, row_weights_NPT, columns_NQT, column_weights_NQT = (
    array.reshape(-1, *array.shape[2:]) for array in (row_BRPT, row_weight_BRPT, column_BRQT, column_weight_BRQT))
  return rows_NPT, row_weights_NPT, columns_NQT, column_weights_NQT


def find_neighbours(start_BR: jax.Array, stop_BR: jax.Array, length_BR: jax.Array, cells: int,
                    samples: int) -> tuple[jax.Array, jax.Array]:
  """(index_BRPT, weight_BRPT) along one axis: the two neighbours of each sample of a cell, and their weights in its
  mean. Same rules as `bilinear_weights` of the plain formulation."""
  step_BR = jnp.maximum(stop_BR - start_BR, 1.0) / cells
  offsets = (jnp.arange(cells * samples) + 0.5) / samples
  position_BRS = start_BR[..., None] + offsets[None, None] * step_BR[..., None]
  last_BR1 = length_BR[..., None] - 1
  inside_BRS = (position_BRS >= -1) & (position_BRS <= length_BR[..., None])
  position_BRS = jnp.clip(position_BRS, 0, last_BR1.astype(jnp.float32))
  below_BRS = jnp.floor(position_BRS).astype(jnp.int32)
  index = jnp.stack([below_BRS, jnp.minimum(below_BRS + 1, last_BR1)], axis=-1)
  share_BRS = position_BRS - below_BRS
  weight = jnp.stack([1 - share_BRS, share_BRS], axis=-1) * inside_BRS[..., None] / samples
  shape = (*start_BR.shape, cells, 2 * samples)
  return index.reshape(shape), weight.reshape(shape)
