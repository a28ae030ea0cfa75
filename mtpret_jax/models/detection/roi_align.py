"""RoIAlign (He et al. 2017) over a feature pyramid, as torchvision's `MultiScaleRoIAlign` (`aligned=False`).

The average of bilinear samples on a grid is separable: each RoI is two small matrices, one over the map's rows and one
over its columns. So pooling an RoI is two matrix products, and neither it nor its gradient gathers or scatters. The
cost is that the products run over whole maps: at 512 px about 40 GFLOP per image for 512 RoIs, a few milliseconds on an
accelerator. On CPUs, `mtpret_jax.cpu` replaces it with one that reads single pixels.

Letters: B images, R RoIs, H W rows and columns of a map, C channels, P cells along a side of the output.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtpret_jax.runtime import backend

SAMPLES = 2  # bilinear samples along each side of a cell
CANONICAL_SIDE, CANONICAL_LEVEL, FIRST_LEVEL = 224, 4, 2  # Lin et al. 2017, equation 1; level = log2 of the stride


def roi_align(maps: Sequence[jax.Array], rois_BR4: jax.Array, cells: int) -> jax.Array:
  """Features of each RoI from the pyramid level that suits its size: (B, R, cells, cells, C).

  Args:
    maps: (B, H, W, C) at strides 4, 8, 16, ..., finest first.
    rois_BR4: (y0, x0, y1, x1), px of the image.
  """
  level_BR = jnp.clip(assign_levels(rois_BR4), 0, len(maps) - 1)
  plainly, here = (functools.partial(way, cells=cells, samples=SAMPLES, first_level=FIRST_LEVEL)
                   for way in (align_by_products, backend.find('align_rois', align_by_products)))
  if here.func is align_by_products:
    return plainly(maps, rois_BR4, level_BR)
  # As for convolutions: a program for a TPU that is compiled on a CPU has the plain implementation.
  return jax.lax.platform_dependent(list(maps), rois_BR4, level_BR, cpu=here, default=plainly)


def align_by_products(maps: Sequence[jax.Array], rois_BR4: jax.Array, level_BR: jax.Array, cells: int, samples: int,
                      first_level: int) -> jax.Array:
  """(B, R, cells, cells, C): the features of each RoI from the map at `level_BR`, whose stride is
  2 ** (level + first_level) px. Averages `samples` along each side of a cell."""
  # Every level pools every RoI and zeroes those of other levels: four times the work, but static shapes.
  return sum(align_level(cells, samples, 2.0 ** -(index + first_level), map_BHWC, rois_BR4, level_BR == index)
             for index, map_BHWC in enumerate(maps))


def assign_levels(rois_BR4: jax.Array) -> jax.Array:
  """(B, R) int32: the pyramid level for the size of each RoI, 0 at stride 4. Not clipped to the levels that exist."""
  sides = jnp.maximum(rois_BR4[..., 2:] - rois_BR4[..., :2], 0)
  scale_BR = jnp.sqrt(sides[..., 0] * sides[..., 1]) / CANONICAL_SIDE
  level_BR = jnp.floor(CANONICAL_LEVEL + jnp.log2(jnp.maximum(scale_BR, 1e-6)) + 1e-6)
  return level_BR.astype(jnp.int32) - FIRST_LEVEL


# Rematerialised, because the intermediate product is many times larger than the result: storing it would take too much
# memory.
@functools.partial(jax.checkpoint, static_argnums=(0, 1, 2))
def align_level(cells: int, samples: int, scale: float, map_BHWC: jax.Array, rois_BR4: jax.Array,
                here_BR: jax.Array) -> jax.Array:
  """(B, R, P, P, C) from one level; zero for the RoIs that are not `here_BR`."""
  edges = rois_BR4 * scale
  rows_BRPH = bilinear_weights(edges[..., 0], edges[..., 2], map_BHWC.shape[1], cells, samples)
  rows_BRPH *= here_BR[..., None, None]
  columns_BRPW = bilinear_weights(edges[..., 1], edges[..., 3], map_BHWC.shape[2], cells, samples)
  product = functools.partial(jnp.einsum, precision='highest')  # TPUs multiply f32 in bf16 by default
  half_BRPWC = product('brph,bhwc->brpwc', rows_BRPH.astype(map_BHWC.dtype), map_BHWC)
  return product('brpwc,brqw->brpqc', half_BRPWC, columns_BRPW.astype(map_BHWC.dtype))


def bilinear_weights(start_BR: jax.Array, stop_BR: jax.Array, length: int, cells: int, samples: int) -> jax.Array:
  """(B, R, P, length): the weight of each of `length` pixels in each cell of an RoI from `start` to `stop`.

  An RoI is at least one pixel long. As in torchvision, a sample up to one pixel outside the map takes the border's
  value, and a sample further out is zero.
  """
  step_BR = jnp.maximum(stop_BR - start_BR, 1.0) / cells
  offsets = (jnp.arange(cells * samples) + 0.5) / samples
  position_BRS = start_BR[..., None] + offsets[None, None] * step_BR[..., None]
  inside_BRS = (position_BRS >= -1) & (position_BRS <= length)
  distance = jnp.abs(jnp.clip(position_BRS, 0, length - 1)[..., None] - jnp.arange(length)[None, None, None])
  weight_BRSL = jnp.maximum(1 - distance, 0) * inside_BRS[..., None]
  return weight_BRSL.reshape(*start_BR.shape, cells, samples, length).mean(-2)
