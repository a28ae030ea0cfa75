"""Random views of grey images on the device: MoCo v2's augmentations, seeded by the step.

Crop, flip and blur are linear and separable, so two small matrices per image do all three:
`rows_BhH @ image_BHW @ columns_BwW^T`. On an accelerator, these matrix products are faster than a gather. As part of
them, the blur comes before the intensity jitter; the two commute except for the jitter's clipping. Saturation, hue and
grey conversion do nothing to a grey image and are left out. A rotation, which MoCo v2 lacks, comes first and gathers.

Letters: B images, H W stored rows and columns, h w rows and columns of the view.
"""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

ROTATION = 2**16  # number of the rotation's random stream, apart from those that `split` gives the other operations
ATTEMPTS = 10  # attempts to draw a crop that fits before taking the whole image, as in torchvision's RandomResizedCrop


def make_view(images_BHW1: jax.Array, rng: jax.Array, config: ConfigDict, dtype: str) -> jax.Array:
  """One random view of each image: (B, H, W, 1) uint8 -> (B, size, size, 1), standardised, in `dtype`.

  `config`: size, crop_area, crop_ratio, flip, rotation, blur, blur_sigma, jitter, brightness, contrast, as in
  `configs/common.py:moco_v2_augment`.
  """
  # One key per source of randomness: changing how one is used does not change what the others draw.
  rng_crop, rng_flip, rng_blur, rng_jitter = jax.random.split(rng, 4)
  images_BHW = scale_to_unit(images_BHW1)
  batch, height, width = images_BHW.shape
  crop_B4 = draw_crops(rng_crop, batch, height, width, config)
  flip_B = jax.random.bernoulli(rng_flip, config.flip, (batch,))
  sigma_B = draw_sigmas(rng_blur, batch, config)
  shown_BHW = images_BHW
  if config.rotation:  # without it, MoCo v2's program has no gather
    limit = math.radians(config.rotation)
    angle_B = jax.random.uniform(jax.random.fold_in(rng, ROTATION), (batch,), minval=-limit, maxval=limit)
    shown_BHW = jax.vmap(rotate)(images_BHW, angle_B)
  views_Bhw = resample(shown_BHW, crop_B4, flip_B, sigma_B, config.size)
  views_Bhw = jitter_intensity(views_Bhw, rng_jitter, config)
  # The whole augmentation is computed in f32. Only the finished view is rounded to `dtype`, bfloat16 at full scale.
  return standardise(views_Bhw, images_BHW)[..., None].astype(dtype)


def make_plain(images_BHW1: jax.Array, size: int, dtype: str) -> jax.Array:
  """The whole image at (size, size), standardised: the input for evaluation. (B, size, size, 1)."""
  images_BHW = scale_to_unit(images_BHW1)
  batch, height, width = images_BHW.shape
  whole_B4 = jnp.tile(jnp.array([[0.0, 0.0, height, width]]), (batch, 1))
  views_Bhw = resample(images_BHW, whole_B4, jnp.zeros(batch, bool), jnp.zeros(batch), size)
  return standardise(views_Bhw, images_BHW)[..., None].astype(dtype)


def scale_to_unit(images_BHW1: jax.Array) -> jax.Array:
  """(B, H, W, 1) uint8 -> (B, H, W) f32 in 0-1."""
  return images_BHW1[..., 0].astype(jnp.float32) / 255


def standardise(views_Bhw: jax.Array, images_BHW: jax.Array) -> jax.Array:
  """Z-score by the mean and standard deviation of the whole stored image.

  The view's own statistics would undo the jitter of brightness and contrast.
  """
  mean = images_BHW.mean((1, 2), keepdims=True)
  deviation = images_BHW.std((1, 2), keepdims=True)
  return (views_Bhw - mean) / jnp.maximum(deviation, 1 / 255)  # an image of one grey value has no deviation


def draw_crops(rng: jax.Array, batch: int, height: int, width: int, config: ConfigDict) -> jax.Array:
  """torchvision's RandomResizedCrop without rounding to whole pixels: (B, 4) as (top, left, height, width), px."""
  rng_area, rng_ratio, rng_top, rng_left = jax.random.split(rng, 4)
  low, high = config.crop_area
  area = jax.random.uniform(rng_area, (batch, ATTEMPTS), minval=low, maxval=high) * height * width
  low, high = config.crop_ratio  # uniform in the logarithm: a ratio is as likely as its inverse
  ratio = jnp.exp(jax.random.uniform(rng_ratio, (batch, ATTEMPTS), minval=jnp.log(low), maxval=jnp.log(high)))
  crop_width, crop_height = jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)
  # All attempts are drawn at once and the first that fits is taken: no loop, static shapes.
  fits = (crop_width <= width) & (crop_height <= height)
  first = jnp.argmax(fits, axis=1)[:, None]
  crop_height = jnp.where(fits.any(1), jnp.take_along_axis(crop_height, first, 1)[:, 0], height)
  crop_width = jnp.where(fits.any(1), jnp.take_along_axis(crop_width, first, 1)[:, 0], width)
  top = jax.random.uniform(rng_top, (batch,)) * (height - crop_height)
  left = jax.random.uniform(rng_left, (batch,)) * (width - crop_width)
  return jnp.stack([top, left, crop_height, crop_width], axis=1)


def rotate(image_HW: jax.Array, angle: jax.Array) -> jax.Array:
  """The image, rotated counter-clockwise by `angle` (radians) about its centre: bilinear, with the edge pixels repeated
  outside the image, where zeros would show the angle."""
  height, width = image_HW.shape
  row, column = (height - 1) / 2, (width - 1) / 2  # the centre
  down, right = jnp.meshgrid(jnp.arange(height) - row, jnp.arange(width) - column, indexing='ij')
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  # Where each pixel comes from: the inverse rotation. Rows count downwards.
  rows = row + cosine * down + sine * right
  columns = column + cosine * right - sine * down
  return jax.scipy.ndimage.map_coordinates(image_HW, [rows, columns], order=1, mode='nearest')


def draw_sigmas(rng: jax.Array, batch: int, config: ConfigDict) -> jax.Array:
  """(B,) standard deviation of the blur in pixels of the view; 0 for images that are not blurred."""
  # Every image goes through the same products. At sigma 0 the blur is the identity, so no branch is needed.
  rng_sigma, rng_apply = jax.random.split(rng)
  low, high = config.blur_sigma
  sigma_B = jax.random.uniform(rng_sigma, (batch,), minval=low, maxval=high)
  return jnp.where(jax.random.bernoulli(rng_apply, config.blur, (batch,)), sigma_B, 0.0)


def resample(images_BHW: jax.Array, crop_B4: jax.Array, flip_B: jax.Array, sigma_B: jax.Array, size: int) -> jax.Array:
  """Crops (top, left, height, width, px), resizes to (size, size) with antialiasing, flips, blurs: (B, size, size)."""
  rows_BhH, columns_BwW = make_matrices(crop_B4, flip_B, (images_BHW.shape[1], images_BHW.shape[2]), size)
  # The blur goes into the small matrices, so the images themselves are multiplied only twice.
  blur = jax.vmap(make_blur, (0, None))(sigma_B, size)
  return apply_matrices(blur @ rows_BhH, images_BHW, blur @ columns_BwW)


def apply_matrices(rows_BhH: jax.Array, images_BHW: jax.Array, columns_BwW: jax.Array) -> jax.Array:
  """rows @ image @ columns^T for each image: (B, h, w)."""
  # 'optimal' multiplies the pair first that makes the smaller intermediate. TPUs multiply f32 in bf16 by default; the
  # error, about one grey level of the stored uint8, is accepted here.
  return jnp.einsum('bhH,bHW,bwW->bhw', rows_BhH, images_BHW, columns_BwW, optimize='optimal')


def make_matrices(crop_B4: jax.Array, flip_B: jax.Array, image_size: tuple[int, int],
                  size: int) -> tuple[jax.Array, jax.Array]:
  """(rows_BhH, columns_BwW) that crop, resize and flip images of `image_size` (height, width)."""
  rows_BhH = jax.vmap(make_rows, (0, 0, None, None))(crop_B4[:, 0], crop_B4[:, 2], image_size[0], size)
  columns_BwW = jax.vmap(make_rows, (0, 0, None, None))(crop_B4[:, 1], crop_B4[:, 3], image_size[1], size)
  # A left-right flip reverses the order of the view's columns.
  return rows_BhH, jnp.where(flip_B[:, None, None], columns_BwW[:, ::-1], columns_BwW)


def make_rows(start: jax.Array, length: jax.Array, available: int, size: int) -> jax.Array:
  """(size, available) weights that resize [start, start + length) px to `size` pixels.

  Bilinear with antialiasing, as in Pillow and torchvision: a triangle as wide as the shrinkage, over the pixels whose
  centre is inside the crop.
  """
  shrink = length / size
  centre = start + (jnp.arange(size) + 0.5) * shrink
  pixel = jnp.arange(available) + 0.5
  # At least one pixel wide: an enlarged crop is interpolated, a shrunk one averaged.
  distance = jnp.abs(pixel[None] - centre[:, None]) / jnp.maximum(shrink, 1.0)
  inside = (pixel > start) & (pixel < start + length)
  weights = jnp.maximum(1 - distance, 0.0) * inside[None]
  # A crop narrower than a pixel may contain no centre; its weights would be 0 / 0 without the bound.
  return weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-6)


def make_blur(sigma: jax.Array | float, size: int) -> jax.Array:
  """(size, size) Gaussian blur, the identity at sigma 0. At the border, the weights inside are scaled to sum to one."""
  position = jnp.arange(size, dtype=jnp.float32)
  distance = position[:, None] - position[None]
  # The bound avoids 0 / 0 on the diagonal at sigma 0; beside the diagonal the weights then underflow to 0.
  weights = jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-3)))
  return weights / weights.sum(1, keepdims=True)


def jitter_intensity(views_Bhw: jax.Array, rng: jax.Array, config: ConfigDict) -> jax.Array:
  """torchvision's ColorJitter for grey images: brightness, then contrast about the view's mean, clipped to 0-1.

  Each image is jittered with probability `config.jitter`, by factors of its own within 1 +- `brightness` and 1 +-
  `contrast`.
  """
  # torchvision draws the order of the two for each image; a fixed order needs no branch.
  rng_apply, rng_brightness, rng_contrast = jax.random.split(rng, 3)
  shape = (len(views_Bhw), 1, 1)
  apply = jax.random.bernoulli(rng_apply, config.jitter, shape)
  brightness = 1 + config.brightness * jax.random.uniform(rng_brightness, shape, minval=-1.0)
  contrast = 1 + config.contrast * jax.random.uniform(rng_contrast, shape, minval=-1.0)
  bright = jnp.clip(views_Bhw * brightness, 0.0, 1.0)
  mean = bright.mean((1, 2), keepdims=True)
  return jnp.where(apply, jnp.clip(mean + (bright - mean) * contrast, 0.0, 1.0), views_Bhw)
