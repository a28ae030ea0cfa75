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


def phantoms():
  """The phantom archives of the embedded runs. Stages share `data/phantoms`, so they must ask for the same ones."""
  return ConfigDict(dict(images=2000, size=96, seed=0))  # for each dataset; px


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


def labelled_augment(size):
  """Views of `size` px to learn labels from. Milder than MoCo's, since what a label names must stay in sight. The
  papers name no numbers, all are our assumption.

  Flips: no label of the datasets that have builders names a side of the patient (lungs are one class, knees and hands
  come as both), so that a mirrored image has a true label. It has the heart on the right, though: `flip=0` is the
  choice where the place of heart, aorta or stomach is itself the finding, and needed for labels such as 'left lung'.
  """
  return ConfigDict(dict(
    size=size,                  # px, side of a view
    crop_area=(0.6, 1.0),       # share of the image
    crop_ratio=(4 / 5, 5 / 4),  # width over height
    flip=0.5,                   # probability of a left-right flip
    jitter=0.8,                 # probability of brightness and contrast
    brightness=0.2,
    contrast=0.2,
    min_visibility=0.3,               # share of a box's area that a crop must leave, else the box is dropped
  ))


def deeplab_v3():
  """The head of segmentation with torchvision's numbers (`deeplabv3_resnet50`)."""
  return ConfigDict(dict(
    output_stride=8,            # of the trunk's last map; 16 is four times cheaper
    width=256,                  # channels
    dilations=(12, 24, 36),         # px of the map between taps; the paper has half of that at output stride 16
    dice=0.0,                   # weight of the soft Dice loss beside the cross-entropy; torchvision has none
  ))


def faster_rcnn(size):
  """The head of detection with torchvision's numbers (`fasterrcnn_resnet50_fpn`) for images of `size` px. Its anchors
  are 32 to 512 px at 800 px; that they are scaled with the size, to whole pixels, is our choice."""
  return ConfigDict(dict(
    width=256,                  # channels of the pyramid
    roi_hidden=1024,                # channels of the box head
    anchor_sizes=tuple((round(side * size / 800),) for side in (32, 64, 128, 256, 512)),  # px, of the anchors on each level
    aspect_ratios=(0.5, 1.0, 2.0),     # height over width
    rpn_proposals_train=(2000, 2000),         # proposals: of each level before suppression, of the image after it
    rpn_proposals_test=(1000, 1000),
    rpn_nms_iou=0.7,         # of two proposals, at most
    rpn_match_iou=(0.3, 0.7),    # overlap with a box: background below the first, object from the second
    rpn_sample=(256, 128),   # anchors of an image that count in the loss, at most so many of them objects
    roi_match_iou=(0.5, 0.5),
    roi_sample=(512, 128),
    min_score=0.05,                 # of a detection, at least
    roi_nms_iou=0.5,            # of two detections of a kind, at most
    max_detections=100,             # in an image, at most
  ))
