"""How large the crops of stage 1 are, for the log."""

import math

from ml_collections import ConfigDict

STORED_SIZES = {'256': 256, '512': 512, 'original': math.inf}  # values of data.stored_size, px


def describe_crops(config: ConfigDict) -> str:
  """A sentence if the smallest crops of stage 1 have fewer pixels than the views and are enlarged; else ''."""
  share = math.sqrt(config.augment.crop_area[0])  # of the side of a square crop
  # An image that is stored with fewer pixels than `data.size` is enlarged before it is cropped.
  side, view = share * min(config.data.size, STORED_SIZES[config.data.stored_size]), config.augment.size
  if side >= view:
    return ''
  needed = math.ceil(view / share)
  stored = next(name for name, size in STORED_SIZES.items() if size >= needed)
  return (f'the smallest crops have {side:.0f} px and are enlarged to {view} px, as MoCo v2 does on ImageNet; '
          f'data.stored_size={stored} and data.size={needed} (or more) keep the detail of larger images')
