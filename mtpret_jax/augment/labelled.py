"""Random views of labelled images on the device. Mask and boxes move with the image; labels of the whole image are
unchanged. In a flipped image, labels that name a side, such as 'left lung', become those of the other side.

Like the image (`views.py`), the mask is resampled by two matrices, here with a single 1 in each row: nearest neighbour
without gathers. Class numbers are small integers, which a matrix product of any precision carries exactly.

Letters: B images, M slots for boxes, T findings, H W stored rows and columns, h w rows and columns of the view.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mtpret_jax.augment import views
from mtpret_jax.models.detection import boxes


def make_labelled_view(batch: Mapping[str, jax.Array], rng: jax.Array, config: ConfigDict,
                       dtype: str, mirror: Sequence[int] | None = None) -> dict[str, jax.Array]:
  """One random view of each image, with its labels.

  Args:
    batch: `image` (B, H, W, 1) uint8; optionally `mask` (B, H, W) int8 or int16, from -1 to 254, and `boxes` (B, M, 4)
      in 0-1 with `class_id` (B, M), -1 in empty slots; `present` and `label_mask` (B, T). Any other field is passed on
      unchanged.
    config: size, crop_area, crop_ratio, flip, jitter, brightness, contrast, min_visibility, as in
      `configs/common.py:labelled_augment`.
    mirror: the class that each class becomes in a flipped image, see `swap_sides`.

  Returns:
    The batch with `image` (B, size, size, 1), standardised, in `dtype`; `mask` (B, size, size) int32; `boxes` clipped
    to the view. A box with less than `min_visibility` of its area in the view becomes an empty slot.
  """
  # No blur, unlike MoCo's views: it would hide small findings.
  rng_crop, rng_flip, rng_jitter = jax.random.split(rng, 3)
  images_BHW = views.scale_to_unit(batch['image'])
  count, height, width = images_BHW.shape
  crop_B4 = views.draw_crops(rng_crop, count, height, width, config)
  flip_B = jax.random.bernoulli(rng_flip, config.flip, (count,))
  rows_BhH, columns_BwW = views.make_matrices(crop_B4, flip_B, (height, width), config.size)
  views_Bhw = views.apply_matrices(rows_BhH, images_BHW, columns_BwW)
  views_Bhw = views.jitter_intensity(views_Bhw, rng_jitter, config)
  # The same crop and flip for image, mask and boxes; the jitter is for the image only.
  view = {**batch, 'image': views.standardise(views_Bhw, images_BHW)[..., None].astype(dtype)}
  if 'mask' in batch:
    view['mask'] = move_mask(batch['mask'], crop_B4, flip_B, config.size)
  if 'boxes' in batch:
    view['boxes'], view['class_id'] = move_boxes(batch['boxes'], batch['class_id'], crop_B4, flip_B, (height, width),
                                                 config.min_visibility)
  return view if mirror is None else swap_sides(view, flip_B, mirror)


def swap_sides(view: Mapping[str, jax.Array], flip_B: jax.Array, mirror: Sequence[int]) -> dict[str, jax.Array]:
  """The labels of flipped images, with the classes of the two sides exchanged.

  Args:
    view: fields as of `make_labelled_view`.
    flip_B: (B,) bool.
    mirror: the place of the class that each class becomes. It is its own inverse.
  """
  swapped = dict(view)
  for field in ('present', 'label_mask'):
    if field in view:
      swapped[field] = jnp.where(flip_B[:, None], view[field][:, jnp.asarray(mirror)], view[field])
  for field in ('mask', 'class_id'):
    if field in view:
      classes = flipped = view[field]
      for old, new in enumerate(mirror):  # selects, not a gather, because few classes have a side
        if old != new:
          flipped = jnp.where(classes == old, new, flipped)
      swapped[field] = jnp.where(flip_B.reshape(-1, *[1] * (classes.ndim - 1)), flipped, classes)
  return swapped


def make_labelled_plain(batch: Mapping[str, jax.Array], size: int, dtype: str) -> dict[str, jax.Array]:
  """The batch with whole images at (size, size), standardised, and masks of that size: the input for evaluation."""
  count, height, width, _ = batch['image'].shape
  plain = {**batch, 'image': views.make_plain(batch['image'], size, dtype)}
  if 'mask' in batch:
    whole_B4 = jnp.tile(jnp.array([[0.0, 0.0, height, width]]), (count, 1))
    plain['mask'] = move_mask(batch['mask'], whole_B4, jnp.zeros(count, bool), size)
  return plain  # boxes are fractions of the image, so they stay as they are


def move_mask(mask_BHW: jax.Array, crop_B4: jax.Array, flip_B: jax.Array, size: int) -> jax.Array:
  """Crops to (top, left, height, width) in px, which lies inside the image; resizes by nearest neighbour; flips.
  Returns (B, size, size) int32."""
  _, height, width = mask_BHW.shape
  rows_BhH = pick_nearest(crop_B4[:, 0], crop_B4[:, 2], height, size)
  columns_BwW = pick_nearest(crop_B4[:, 1], crop_B4[:, 3], width, size)
  columns_BwW = jnp.where(flip_B[:, None, None], columns_BwW[:, ::-1], columns_BwW)
  # Exact although TPUs multiply in bf16: every sum has one non-zero term, a class from -1 to 254.
  return jnp.rint(views.apply_matrices(rows_BhH, mask_BHW.astype(jnp.float32), columns_BwW)).astype(jnp.int32)


def pick_nearest(start_B: jax.Array, length_B: jax.Array, available: int, size: int) -> jax.Array:
  """(B, size, available): for each pixel of the view, a one at the stored pixel that contains its centre."""
  centre_Bh = start_B[:, None] + (jnp.arange(size)[None] + 0.5) * length_B[:, None] / size
  nearest_Bh = jnp.clip(jnp.floor(centre_Bh), 0, available - 1).astype(jnp.int32)
  return jax.nn.one_hot(nearest_Bh, available)


def move_boxes(boxes_BM4: jax.Array, class_BM: jax.Array, crop_B4: jax.Array, flip_B: jax.Array,
               image_size: tuple[int, int], min_visibility: float) -> tuple[jax.Array, jax.Array]:
  """(boxes_BM4, class_BM) in the view: 0-1 of the crop, after the flip.

  `boxes_BM4` is in 0-1 of the image of `image_size` (height, width), `crop_B4` is (top, left, height, width) px. A box
  with less than `min_visibility` of its area in the crop becomes an empty slot: class -1 and a box of zeros.
  """
  crop_B4 = crop_B4 / jnp.array([[*image_size, *image_size]], jnp.float32)
  corner, sides = crop_B4[:, :2], crop_B4[:, 2:]
  # Coordinates of the crop; a box may reach outside 0-1.
  moved_BM4 = ((boxes_BM4 - jnp.concatenate([corner, corner], 1)[:, None])
               / jnp.concatenate([sides, sides], 1)[:, None])
  y0, x0, y1, x1 = jnp.moveaxis(moved_BM4, -1, 0)
  mirrored_BM4 = jnp.stack([y0, 1 - x1, y1, 1 - x0], axis=-1)
  moved_BM4 = jnp.where(flip_B[:, None, None], mirrored_BM4, moved_BM4)
  visible_BM4 = boxes.clip(moved_BM4, (1, 1))
  # Areas before and after clipping are both in units of the crop, so their ratio is the visible share.
  visible_BM = boxes.compute_areas(visible_BM4)
  keep_BM = (class_BM >= 0) & (visible_BM > 0) & (visible_BM >= min_visibility * boxes.compute_areas(moved_BM4))
  return jnp.where(keep_BM[..., None], visible_BM4, 0), jnp.where(keep_BM, class_BM, -1)
