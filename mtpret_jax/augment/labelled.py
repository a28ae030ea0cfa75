"""Views on the device of images with labels: mask and boxes move with the image, what is stated of the whole stays.

The mask is carried by two matrices per image, too, with a single one in each row: nearest neighbour without gathers.
Classes are small integers, which a product of any precision carries exactly.

Letters: B images, M slots for boxes, H W stored rows and columns, h w rows and columns of the view.
"""

import jax
import jax.numpy as jnp

from mtpret_jax.augment import views
from mtpret_jax.models.detection import boxes


def make_labelled_view(batch, rng, config, dtype):
  """One random view of each image, with its labels.

  Args:
    batch: `image` (B, H, W, 1) uint8; `mask` (B, H, W) integers from -1 to 127; `boxes` (B, M, 4) in 0-1 and `class_id`
      (B, M), -1 in empty slots. Both are moved where there; any other field is handed on as it is.
    config: size, crop_area, crop_ratio, flip, jitter, brightness, contrast, min_visibility.

  Returns:
    The batch with `image` (B, size, size, 1) standardised, in `dtype`; `mask` (B, size, size) int32; `boxes` cut at
    the border of the view. A box of which less than `min_visibility` of its area is left becomes an empty slot.
  """
  rng_crop, rng_flip, rng_jitter = jax.random.split(rng, 3)
  images_BHW = views.scale_to_unit(batch['image'])
  count, height, width = images_BHW.shape
  crop_B4 = views.draw_crops(rng_crop, count, height, width, config)
  flip_B = jax.random.bernoulli(rng_flip, config.flip, (count,))
  rows_BhH, columns_BwW = views.make_matrices(crop_B4, flip_B, (height, width), config.size)
  views_Bhw = views.jitter_intensity(views.multiply(rows_BhH, images_BHW, columns_BwW), rng_jitter, config)
  view = batch | {'image': views.standardise(views_Bhw, images_BHW)[..., None].astype(dtype)}
  if 'mask' in batch:
    view['mask'] = move_mask(batch['mask'], crop_B4, flip_B, config.size)
  if 'boxes' in batch:
    view['boxes'], view['class_id'] = move_boxes(batch['boxes'], batch['class_id'], crop_B4, flip_B, (height, width),
                                             config.min_visibility)
  return view


def make_labelled_plain(batch, size, dtype):
  """The batch with the whole image at (size, size), standardised, and the mask of that size: for evaluation."""
  count, height, width, _ = batch['image'].shape
  plain = batch | {'image': views.make_plain(batch['image'], size, dtype)}
  if 'mask' in batch:
    whole_B4 = jnp.tile(jnp.array([[0.0, 0.0, height, width]]), (count, 1))
    plain['mask'] = move_mask(batch['mask'], whole_B4, jnp.zeros(count, bool), size)
  return plain


def move_mask(mask_BHW, crop_B4, flip_B, size):
  """Crops (top, left, height, width in pixels, inside the image) at (size, size) by nearest neighbour, then flipped."""
  _, height, width = mask_BHW.shape
  rows_BhH = pick_nearest(crop_B4[:, 0], crop_B4[:, 2], height, size)
  columns_BwW = pick_nearest(crop_B4[:, 1], crop_B4[:, 3], width, size)
  columns_BwW = jnp.where(flip_B[:, None, None], columns_BwW[:, ::-1], columns_BwW)
  return jnp.rint(views.multiply(rows_BhH, mask_BHW.astype(jnp.float32), columns_BwW)).astype(jnp.int32)


def pick_nearest(start_B, length_B, available, size):
  """(B, size, available): a one at the pixel in which the centre of each pixel of the view lies."""
  centre_Bh = start_B[:, None] + (jnp.arange(size)[None] + 0.5) * length_B[:, None] / size
  nearest_Bh = jnp.clip(jnp.floor(centre_Bh), 0, available - 1).astype(jnp.int32)
  return jax.nn.one_hot(nearest_Bh, available)


def move_boxes(boxes_BM4, kind_BM, crop_B4, flip_B, available, least):
  """(boxes, kind) in 0-1 of the crop (top, left, height, width in pixels of `available`, height and width of the
  image), after the flip; of a box at least the share `least` must be left."""
  share_B4 = crop_B4 / jnp.array([[*available, *available]], jnp.float32)
  corner, sides = share_B4[:, :2], share_B4[:, 2:]
  moved_BM4 = ((boxes_BM4 - jnp.concatenate([corner, corner], 1)[:, None])
               / jnp.concatenate([sides, sides], 1)[:, None])
  y0, x0, y1, x1 = jnp.moveaxis(moved_BM4, -1, 0)
  mirrored_BM4 = jnp.stack([y0, 1 - x1, y1, 1 - x0], axis=-1)
  moved_BM4 = jnp.where(flip_B[:, None, None], mirrored_BM4, moved_BM4)
  cut_BM4 = boxes.clip(moved_BM4, (1, 1))
  left_BM = boxes.compute_areas(cut_BM4)
  stays_BM = (kind_BM >= 0) & (left_BM > 0) & (left_BM >= least * boxes.compute_areas(moved_BM4))
  return jnp.where(stays_BM[..., None], cut_BM4, 0), jnp.where(stays_BM, kind_BM, -1)
