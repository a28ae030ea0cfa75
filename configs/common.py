"""Numbers that several configs share: datasets, profiles, recipes."""

from ml_collections import ConfigDict


def moco_v2_augment(size):
  """MoCo v2's recipe (facebookresearch/moco main_moco.py --aug-plus) for a grey image of `size` px. The blur is the
  reference's 0.1-2 px at 224 px, scaled with the size (the scaling is our assumption)."""
  return ConfigDict(dict(
    size=size,                  # px, side of a view
    crop_area=(0.2, 1.0),       # share of the image
    crop_ratio=(3 / 4, 4 / 3),  # width over height
    flip=0.5,                   # probability of a left-right flip
    blur=0.5,                   # probability
    blur_sigma=(0.1 * size / 224, 2.0 * size / 224),  # px of the view
    jitter=0.8,                 # probability of brightness and contrast
    brightness=0.4,
    contrast=0.4,
  ))
