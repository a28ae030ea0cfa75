"""RoI align (He et al. 2017) over a feature pyramid, as torchvision's `MultiScaleRoIAlign` (corners not shifted).

Bilinear samples on a grid, averaged per cell, are separable: two small matrices per region, one over rows and one over
columns. So a region is two matrix products and neither it nor its gradient gathers or scatters. The price is that the
products run over whole maps: at 512 px some 40 GFLOP per image for 512 regions, a few milliseconds on an accelerator.

Letters: B images, R regions, H W rows and columns of a map, C channels, P cells along a side.
"""

import functools

import jax
import jax.numpy as jnp

SAMPLES = 2  # along each side of a cell
CANONICAL_SIDE, CANONICAL_LEVEL, FIRST_LEVEL = 224, 4, 2  # Lin et al. 2017, equation 1; levels by log2 of the stride


def align(maps, regions_BR4, cells):
  """The content of each region on its level: (B, R, cells, cells, C).

  `maps`: at strides 4, 8, 16, ... from the finest, (B, H, W, C) each. `regions_BR4`: (y0, x0, y1, x1), px of the image.
  """
  level_BR = jnp.clip(find_levels(regions_BR4), 0, len(maps) - 1)
  return sum(align_level(cells, 2.0 ** -(index + FIRST_LEVEL), map_BHWC, regions_BR4, level_BR == index)
             for index, map_BHWC in enumerate(maps))


def find_levels(regions_BR4):
  """The level whose stride suits the size of each region, 0 at stride 4; not limited to the levels that there are."""
  sides = jnp.maximum(regions_BR4[..., 2:] - regions_BR4[..., :2], 0)
  scale_BR = jnp.sqrt(sides[..., 0] * sides[..., 1]) / CANONICAL_SIDE
  level_BR = jnp.floor(CANONICAL_LEVEL + jnp.log2(jnp.maximum(scale_BR, 1e-6)) + 1e-6)
  return level_BR.astype(jnp.int32) - FIRST_LEVEL


@functools.partial(jax.checkpoint, static_argnums=(0, 1))  # the half-done product is many times larger than the result
def align_level(cells, scale, map_BHWC, regions_BR4, here_BR):
  """(B, R, P, P, C), zero for the regions that are not `here_BR`."""
  edges = regions_BR4 * scale
  rows_BRPH = weigh(edges[..., 0], edges[..., 2], cells, map_BHWC.shape[1]) * here_BR[..., None, None]
  columns_BRPW = weigh(edges[..., 1], edges[..., 3], cells, map_BHWC.shape[2])
  product = functools.partial(jnp.einsum, precision='highest')
  half_BRPWC = product('brph,bhwc->brpwc', rows_BRPH.astype(map_BHWC.dtype), map_BHWC)
  return product('brpwc,brqw->brpqc', half_BRPWC, columns_BRPW.astype(map_BHWC.dtype))


def weigh(start_BR, stop_BR, cells, length):
  """(B, R, P, length): how much each pixel of a line counts in each cell of a region from `start` to `stop`.

  A region is at least a pixel long. Samples beyond the outermost pixels see those, and beyond one pixel more, nothing.
  """
  step_BR = jnp.maximum(stop_BR - start_BR, 1.0) / cells
  places = (jnp.arange(cells * SAMPLES) + 0.5) / SAMPLES
  at_BRS = start_BR[..., None] + places[None, None] * step_BR[..., None]
  inside_BRS = (at_BRS >= -1) & (at_BRS <= length)
  distance = jnp.abs(jnp.clip(at_BRS, 0, length - 1)[..., None] - jnp.arange(length)[None, None, None])
  weight_BRSL = jnp.maximum(1 - distance, 0) * inside_BRS[..., None]
  return weight_BRSL.reshape(*start_BR.shape, cells, SAMPLES, length).mean(-2)
