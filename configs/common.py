"""Numbers that several configs share: profiles of datasets, recipes.

The nine sets of `muscle9` are those of MUSCLE (Liao et al., MICCAI 2022). MTPret (2024) has eleven; which two it added
is not public, so the last two of `mtpret11` are our assumption.
"""

from ml_collections import ConfigDict

embedded = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental')

muscle9 = ('nih_chest_xray', 'shenzhen_cxr', 'montgomery_cxr', 'indiana_cxr', 'rsna_bone_age', 'kermany_pneumonia',
           'mura', 'lung_masks', 'tbx11k')

mtpret11 = (*muscle9, 'knee_oa', 'panoramic_dental')

# MTPret also scores two tasks whose datasets were not in its pretraining and which are not public: our assumption, too.
# Most images of the first are also in archives above (its README.md says which): it is external only without those.
external2 = ('covid19_radiography', 'vinbigdata_cxr')


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
