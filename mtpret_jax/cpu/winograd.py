"""3 x 3 convolutions at stride 1 with 2.25 times fewer products: F(2 x 2, 3 x 3) of Lavin and Gray, "Fast algorithms
for convolutional neural networks" (CVPR 2016), after Winograd.

A result of 2 x 2 pixels needs a tile of 4 x 4 pixels; tiles overlap by two. Tiles, kernel and results are each
transformed by a small matrix from both sides; in between, 16 matrix products take the place of the convolution.

Letters: B images, H rows, W columns, C input channels, D output channels; a table is 4 x 4, 3 x 3 or 2 x 2 arrays, each
of which has one pixel of every tile, result or kernel.
"""

import jax
import jax.numpy as jnp

TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))   # B^T in the paper
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))   # G
RESULT = ((1, 1, 1, 0), (0, 1, -1, -1))                              # A^T
TILES = 1024          # that are computed at once, a few images' or one's: what comes of them stays in the cores' caches
CHANNELS = 64, 512    # fewer are not worth the transforms
PRODUCTS = 2 ** 22    # of channels in, channels out and tiles, below which it is not worth compiling


def suits(images_BHWC, out):
  """Whether it is worth while. The images must be in one place, since they are taken a few at a time."""
  batch, height, width, channels = images_BHWC.shape
  return (images_BHWC.dtype == jnp.float32 and height % 2 == width % 2 == 0 and batch > 1
          and CHANNELS[0] <= min(channels, out) and max(channels, out) <= CHANNELS[1]
          and channels * out * batch * height * width // 4 >= PRODUCTS
          and lies_in_one_place())


def lies_in_one_place():
  """Whether what is computed here lies on one device: there is only one, or each computes its own."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.size <= 1 or mesh.are_all_axes_manual


def convolve(images_BHWC, kernel_33CD):
  """The convolution, padded by one pixel of zeros: (B, H, W, D)."""
  return run(jnp.matmul, images_BHWC, transform(KERNEL, kernel_33CD))


def pull_images(gradient_BHWD, kernel_33CD):
  """The gradient by the images, (B, H, W, C): the convolution with the kernel turned about its centre, which exchanges
  the first and the last of the transformed kernel's rows and columns."""
  kernel = transform(KERNEL, kernel_33CD)
  return run(multiply_turned, gradient_BHWD, [[kernel[row][column] for column in (3, 1, 2, 0)] for row in (3, 1, 2, 0)])


def run(product, images_BHWC, kernel):
  def convolve_some(images_BHWC):
    return join(transform(RESULT, multiply(product, transform(TILE, cut_tiles(images_BHWC)), kernel)))

  return jax.lax.map(convolve_some, split(images_BHWC)).reshape(*images_BHWC.shape[:3], -1)


def pull_kernel(images_BHWC, gradient_BHWD):
  """The gradient by the kernel: (3, 3, C, D). Piece by piece, but where the tiles are fewer than the channels: there
  the 16 sums are what is large, and are made once."""
  def transform_both(some):
    images_BHWC, gradient_BHWD = some
    return transform(TILE, cut_tiles(images_BHWC)), transform(turn(RESULT), cut_results(gradient_BHWD))

  def add(total, some):
    return jax.tree.map(jnp.add, total, multiply(contract, *transform_both(some))), None

  pieces, channels = (split(images_BHWC), split(gradient_BHWD)), images_BHWC.shape[-1]
  if gradient_BHWD[..., 0].size // 4 < channels:
    total = multiply(contract, *jax.lax.map(transform_both, pieces))
  else:
    zeros = jnp.zeros((channels, gradient_BHWD.shape[-1]), images_BHWC.dtype)
    total, _ = jax.lax.scan(add, [[zeros] * 4] * 4, pieces)
  return jnp.stack([jnp.stack(row) for row in transform(turn(KERNEL), total)])


def split(images_BHWC):
  """(pieces, images of a piece, H, W, C), two pieces at least: only what a loop is given is made before it, and XLA
  would otherwise compute the images again, pixel by pixel, for each of the 16 arrays."""
  batch, height, width, _ = images_BHWC.shape
  most = min(max(TILES // (height * width // 4), 1), batch // 2)
  count = max(count for count in range(1, most + 1) if batch % count == 0)
  return images_BHWC.reshape(-1, count, *images_BHWC.shape[1:])


def transform(matrix, table):
  """matrix @ table @ matrix^T."""
  rows = [[combine(factors, column) for column in turn(table)] for factors in matrix]
  return [[combine(factors, row) for factors in matrix] for row in rows]


def turn(table):
  return list(zip(*table, strict=True))


def combine(factors, arrays):
  """The sum of factor x array."""
  (first, array), *rest = [term for term in zip(factors, arrays, strict=True) if term[0]]
  total = array if first == 1 else first * array
  for factor, array in rest:
    total = total + array if factor == 1 else total - array if factor == -1 else total + factor * array
  return total


def multiply(product, tiles, others):
  return [[product(*both) for both in zip(*rows, strict=True)] for rows in zip(tiles, others, strict=True)]


def multiply_turned(one_BhwD, other_CD):
  return jax.lax.dot_general(one_BhwD, other_CD, (((3,), (1,)), ((), ())))


def contract(one_BhwC, other_BhwD):
  """The sum over all pixels of the products of each channel with each: (C, D). Leading axes may be more."""
  one, other = (pixels.reshape(-1, pixels.shape[-1]) for pixels in (one_BhwC, other_BhwD))
  return jax.lax.dot_general(one, other, (((0,), (0,)), ((), ())))


def cut_tiles(images_BHWC):
  _, height, width, _ = images_BHWC.shape
  padded = jnp.pad(images_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return [[padded[:, row:row + height - 1:2, column:column + width - 1:2] for column in range(4)] for row in range(4)]


def cut_results(gradient_BHWD):
  return [[gradient_BHWD[:, row::2, column::2] for column in (0, 1)] for row in (0, 1)]


def join(table):
  """The pixels of a 2 x 2 table side by side."""
  batch, h, w, channels = table[0][0].shape
  rows = jnp.stack([jnp.stack(row, axis=3) for row in table], axis=2)
  return rows.reshape(batch, 2 * h, 2 * w, channels)
