"""3 x 3 convolutions at stride 1 with 2.25 times fewer multiplications: Winograd's F(2 x 2, 3 x 3) as in Lavin and
Gray, "Fast algorithms for convolutional neural networks" (CVPR 2016).

An output of 2 x 2 pixels depends on a tile of 4 x 4 input pixels; neighbouring tiles overlap by two. Tiles, kernel and
outputs are each transformed by a small matrix from both sides. In between, 16 matrix products replace the convolution.
Results differ from those of a direct convolution by about 5e-7 of the largest value.

Letters: B images, H rows, W columns, C input channels, D output channels; h w rows and columns of tiles, H / 2 and
W / 2. A *table* is a list of 4 x 4, 3 x 3 or 2 x 2 arrays: the array at (i, j) holds pixel (i, j) of every tile, kernel
or output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Table = Sequence[Sequence[jax.Array]] | jax.Array
Matrix = Sequence[Sequence[float]]

TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))   # B^T in the paper
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))   # G
RESULT = ((1, 1, 1, 0), (0, 1, -1, -1))                              # A^T
TILES = 1024          # tiles that are computed at once, of one image or a few, so that they stay in the cores' caches
CHANNELS = 64, 512    # with fewer or more, the transforms cost more than they save
PRODUCTS = 2 ** 22    # input channels x output channels x tiles; below this, the longer compilation does not pay off


def suits(images_BHWC: jax.Array, out: int) -> bool:
  """Whether this is faster than a direct convolution to `out` channels, and possible: the images must not be split over
  devices, because they are processed a few at a time."""
  batch, height, width, channels = images_BHWC.shape
  return (images_BHWC.dtype == jnp.float32 and height % 2 == width % 2 == 0 and batch > 1
          and CHANNELS[0] <= min(channels, out) and max(channels, out) <= CHANNELS[1]
          and channels * out * batch * height * width // 4 >= PRODUCTS
          and is_on_one_device())


def is_on_one_device() -> bool:
  """Whether the arrays of this trace are not split: there is one device, or this is inside `shard_map`."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.size <= 1 or mesh.are_all_axes_manual


def convolve(images_BHWC: jax.Array, kernel_33CD: jax.Array) -> jax.Array:
  """The convolution with one pixel of zero padding: (B, H, W, D)."""
  return run(jnp.matmul, images_BHWC, transform(KERNEL, kernel_33CD))


def images_gradient(gradient_BHWD: jax.Array, kernel_33CD: jax.Array) -> jax.Array:
  """The gradient with respect to the images, (B, H, W, C): the convolution with the rotated kernel. Rotating the kernel
  by 180 degrees exchanges the first and last row, and the first and last column, of the transformed kernel."""
  kernel = transform(KERNEL, kernel_33CD)
  rotated = [[kernel[row][column] for column in (3, 1, 2, 0)] for row in (3, 1, 2, 0)]
  return run(multiply_transposed, gradient_BHWD, rotated)


def run(product: Callable, images_BHWC: jax.Array, kernel: Table) -> jax.Array:
  """The convolution with a transformed kernel, a few images at a time: (B, H, W, output channels).
  `product(pixels (B, h, w, input channels), kernel)` computes each of the 16 matrix products."""
  def convolve_piece(images_BHWC: jax.Array) -> jax.Array:
    return join(transform(RESULT, multiply(product, transform(TILE, cut_tiles(images_BHWC)), kernel)))

  return jax.lax.map(convolve_piece, split(images_BHWC)).reshape(*images_BHWC.shape[:3], -1)


def kernel_gradient(images_BHWC: jax.Array, gradient_BHWD: jax.Array) -> jax.Array:
  """The gradient with respect to the kernel: (3, 3, C, D)."""
  def transform_both(piece: tuple[jax.Array, jax.Array]) -> tuple[Table, Table]:
    images_BHWC, gradient_BHWD = piece
    return transform(TILE, cut_tiles(images_BHWC)), transform(transpose(RESULT), cut_results(gradient_BHWD))

  def add(total: list, piece: tuple[jax.Array, jax.Array]) -> tuple[list, None]:
    return jax.tree.map(jnp.add, total, multiply(contract, *transform_both(piece))), None

  pieces, channels = (split(images_BHWC), split(gradient_BHWD)), images_BHWC.shape[-1]
  if gradient_BHWD[..., 0].size // 4 < channels:  # few tiles: the 16 sums are the larger arrays, so compute them once
    total: Any = multiply(contract, *jax.lax.map(transform_both, pieces))
  else:
    zeros = jnp.zeros((channels, gradient_BHWD.shape[-1]), images_BHWC.dtype)
    total = jax.lax.scan(add, [[zeros] * 4] * 4, pieces)[0]
  return jnp.stack([jnp.stack(row) for row in transform(transpose(KERNEL), total)])


def split(images_BHWC: jax.Array) -> jax.Array:
  """(pieces, images of a piece, H, W, C) with at least two pieces. A loop over pieces makes XLA compute its input once,
  before the loop; without it, XLA fuses what computes the images into each of the 16 arrays, pixel by pixel."""
  batch, height, width, _ = images_BHWC.shape
  most = min(max(TILES // (height * width // 4), 1), batch // 2)
  count = max(count for count in range(1, most + 1) if batch % count == 0)
  return images_BHWC.reshape(-1, count, *images_BHWC.shape[1:])


def transform(matrix: Matrix, table: Table) -> Table:
  """matrix @ table @ matrix^T."""
  rows = [[combine(factors, column) for column in transpose(table)] for factors in matrix]
  return [[combine(factors, row) for factors in matrix] for row in rows]


def transpose(table: Table | Matrix) -> list[tuple]:
  return list(zip(*table, strict=True))


def combine(factors: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
  """The sum of factor * array. Factors of 0, 1 and -1 need no multiplication."""
  (first, array), *rest = [term for term in zip(factors, arrays, strict=True) if term[0]]
  total = array if first == 1 else first * array
  for factor, array in rest:
    total = total + array if factor == 1 else total - array if factor == -1 else total + factor * array
  return total


def multiply(product: Callable, tiles: Table, others: Table) -> Table:
  """`product` of the arrays at the same place in both tables."""
  return [[product(*both) for both in zip(*rows, strict=True)] for rows in zip(tiles, others, strict=True)]


def multiply_transposed(one_BhwD: jax.Array, other_CD: jax.Array) -> jax.Array:
  return jax.lax.dot_general(one_BhwD, other_CD, (((3,), (1,)), ((), ())))


def contract(one_BhwC: jax.Array, other_BhwD: jax.Array) -> jax.Array:
  """The sum over all pixels of each product of two channels: (C, D). There may be more leading axes."""
  one, other = (pixels.reshape(-1, pixels.shape[-1]) for pixels in (one_BhwC, other_BhwD))
  return jax.lax.dot_general(one, other, (((0,), (0,)), ((), ())))


def cut_tiles(images_BHWC: jax.Array) -> Table:
  """The 4 x 4 table of all overlapping tiles."""
  _, height, width, _ = images_BHWC.shape
  padded = jnp.pad(images_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return [[padded[:, row:row + height - 1:2, column:column + width - 1:2] for column in range(4)] for row in range(4)]


def cut_results(gradient_BHWD: jax.Array) -> Table:
  """The 2 x 2 table of all outputs."""
  return [[gradient_BHWD[:, row::2, column::2] for column in (0, 1)] for row in (0, 1)]


def join(table: Table) -> jax.Array:
  """The inverse of `cut_results`."""
  batch, h, w, channels = table[0][0].shape
  rows = jnp.stack([jnp.stack(row, axis=3) for row in table], axis=2)
  return rows.reshape(batch, 2 * h, 2 * w, channels)
