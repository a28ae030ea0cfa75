"""Views on the device: MoCo v2's augmentations that mean something on a grey image, seeded by the step.

Crop, flip and blur are linear and separable, so all three are two small matrices per image, `rows_BhH @ image_BHW @
columns_BWw`: matrix products instead of gathers. Blur therefore comes before the intensity jitter; the two commute but
for the jitter's clipping. Colour, saturation, hue and grey conversion do nothing on a grey image and are left out.

Letters: B images, H W stored rows and columns, h w rows and columns of the view.
"""

import jax
import jax.numpy as jnp

ATTEMPTS = 10  # of torchvision's RandomResizedCrop, before it takes the whole image


def make_view(images_BHW1, rng, config, dtype):
  """(B, H, W, 1) uint8 -> (B, size, size, 1) standardised, in `dtype`. One random view of each image."""
  rng_crop, rng_flip, rng_blur, rng_jitter = jax.random.split(rng, 4)
  images_BHW = scale_to_unit(images_BHW1)
  batch, height, width = images_BHW.shape
  box_B4 = draw_crops(rng_crop, batch, height, width, config)
  flip_B = jax.random.bernoulli(rng_flip, config.flip, (batch,))
  sigma_B = draw_sigmas(rng_blur, batch, config)
  views_Bhw = resample(images_BHW, box_B4, flip_B, sigma_B, config.size)
  views_Bhw = jitter_intensity(views_Bhw, rng_jitter, config)
  return standardise(views_Bhw, images_BHW)[..., None].astype(dtype)


def make_plain(images_BHW1, size, dtype):
  """The whole image at (size, size), standardised: what is shown to a trunk that is being evaluated."""
  images_BHW = scale_to_unit(images_BHW1)
  batch, height, width = images_BHW.shape
  box_B4 = jnp.tile(jnp.array([[0.0, 0.0, height, width]]), (batch, 1))
  views_Bhw = resample(images_BHW, box_B4, jnp.zeros(batch, bool), jnp.zeros(batch), size)
  return standardise(views_Bhw, images_BHW)[..., None].astype(dtype)


def scale_to_unit(images_BHW1):
  return images_BHW1[..., 0].astype(jnp.float32) / 255


def standardise(views_Bhw, images_BHW):
  """Z-score by the mean and deviation of the whole stored image: after the jitter, which it therefore leaves alone."""
  mean = images_BHW.mean((1, 2), keepdims=True)
  deviation = images_BHW.std((1, 2), keepdims=True)
  return (views_Bhw - mean) / jnp.maximum(deviation, 1 / 255)


def draw_crops(rng, batch, height, width, config):
  """torchvision's RandomResizedCrop without rounding to whole pixels: (B, 4) as (top, left, height, width)."""
  rng_area, rng_ratio, rng_top, rng_left = jax.random.split(rng, 4)
  low, high = config.crop_area
  area = jax.random.uniform(rng_area, (batch, ATTEMPTS), minval=low, maxval=high) * height * width
  low, high = config.crop_ratio
  ratio = jnp.exp(jax.random.uniform(rng_ratio, (batch, ATTEMPTS), minval=jnp.log(low), maxval=jnp.log(high)))
  wide, tall = jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)
  fits = (wide <= width) & (tall <= height)
  first = jnp.argmax(fits, axis=1)[:, None]
  tall = jnp.where(fits.any(1), jnp.take_along_axis(tall, first, 1)[:, 0], height)
  wide = jnp.where(fits.any(1), jnp.take_along_axis(wide, first, 1)[:, 0], width)
  top = jax.random.uniform(rng_top, (batch,)) * (height - tall)
  left = jax.random.uniform(rng_left, (batch,)) * (width - wide)
  return jnp.stack([top, left, tall, wide], axis=1)


def draw_sigmas(rng, batch, config):
  """Standard deviation of each image's blur in pixels of the view; 0 is no blur."""
  rng_sigma, rng_apply = jax.random.split(rng)
  low, high = config.blur_sigma
  sigma_B = jax.random.uniform(rng_sigma, (batch,), minval=low, maxval=high)
  return jnp.where(jax.random.bernoulli(rng_apply, config.blur, (batch,)), sigma_B, 0.0)


def resample(images_BHW, box_B4, flip_B, sigma_B, size):
  """Crops (top, left, height, width in pixels) resized to (size, size), antialiased, then flipped and blurred."""
  rows_BhH, columns_BwW = make_matrices(box_B4, flip_B, images_BHW.shape[1:], size)
  blur = jax.vmap(make_blur, (0, None))(sigma_B, size)
  return multiply(blur @ rows_BhH, images_BHW, blur @ columns_BwW)


def multiply(rows_BhH, images_BHW, columns_BwW):
  return jnp.einsum('bhH,bHW,bwW->bhw', rows_BhH, images_BHW, columns_BwW, optimize='optimal')


def make_matrices(box_B4, flip_B, available, size):
  """(rows, columns) that crop, resize and flip images of `available` (height, width)."""
  rows_BhH = jax.vmap(make_rows, (0, 0, None, None))(box_B4[:, 0], box_B4[:, 2], available[0], size)
  columns_BwW = jax.vmap(make_rows, (0, 0, None, None))(box_B4[:, 1], box_B4[:, 3], available[1], size)
  return rows_BhH, jnp.where(flip_B[:, None, None], columns_BwW[:, ::-1], columns_BwW)


def make_rows(start, length, available, size):
  """(size, available) weights of a bilinear resize of [start, start + length), as Pillow and torchvision do it with
  antialiasing: a triangle as wide as the shrinkage, over the pixels whose centre is in the crop."""
  shrink = length / size
  centre = start + (jnp.arange(size) + 0.5) * shrink
  pixel = jnp.arange(available) + 0.5
  distance = jnp.abs(pixel[None] - centre[:, None]) / jnp.maximum(shrink, 1.0)
  inside = (pixel > start) & (pixel < start + length)
  weights = jnp.maximum(1 - distance, 0.0) * inside[None]
  return weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-6)


def make_blur(sigma, size):
  """(size, size) Gaussian blur; the identity at sigma 0. At the border the weights that remain are scaled to one."""
  at = jnp.arange(size, dtype=jnp.float32)
  distance = at[:, None] - at[None]
  weights = jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-3)))
  return weights / weights.sum(1, keepdims=True)


def jitter_intensity(views_Bhw, rng, config):
  """torchvision's ColorJitter on a grey image: brightness, then contrast about the view's mean, clipped to 0..1."""
  rng_apply, rng_brightness, rng_contrast = jax.random.split(rng, 3)
  shape = (len(views_Bhw), 1, 1)
  apply = jax.random.bernoulli(rng_apply, config.jitter, shape)
  brightness = 1 + config.brightness * jax.random.uniform(rng_brightness, shape, minval=-1.0)
  contrast = 1 + config.contrast * jax.random.uniform(rng_contrast, shape, minval=-1.0)
  bright = jnp.clip(views_Bhw * brightness, 0.0, 1.0)
  mean = bright.mean((1, 2), keepdims=True)
  return jnp.where(apply, jnp.clip(mean + (bright - mean) * contrast, 0.0, 1.0), views_Bhw)
