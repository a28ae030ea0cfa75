"""Values that several configs share: lists of datasets, augmentation, heads.

`muscle9` has the datasets of MUSCLE (Liao et al., MICCAI 2022). MTPret (2024) has eleven datasets. Our sources
do not name the two that it added, so the last two of `mtpret11` are assumed.
"""

from ml_collections import ConfigDict

embedded = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental')

muscle9 = ('nih_chest_xray', 'shenzhen_cxr', 'montgomery_cxr', 'indiana_cxr', 'rsna_bone_age', 'kermany_pneumonia',
           'mura', 'lung_masks', 'tbx11k')

mtpret11 = (*muscle9, 'knee_oa', 'panoramic_dental')


def phantoms() -> ConfigDict:
  """The phantom archives of the `embedded` variants, which need no download. All stages share `data.dir`, so they must
  use the same values."""
  return ConfigDict(dict(
    images=2000,  # images in each phantom dataset
    size=96,      # px, longer side of a phantom image
    seed=0,       # seed of the simulated patients
    # how much exposures differ in ways that have nothing to do with the labels: technique, beam, position, breath,
    # objects, letters; from 0 (none) to 1 (as in an archive of many scanners)
    variation=0.0,
  ))


def moco_v2_augment(size: int) -> ConfigDict:
  """MoCo v2's augmentation for grey views of `size` px (facebookresearch/moco, main_moco.py --aug-plus). Saturation and
  hue jitter have no effect on a grey image and are left out."""
  return ConfigDict(dict(
    size=size,                  # px, side of a view
    crop_area=(0.2, 1.0),       # range of the crop's area, as a share of the image; MoCo v2: 0.2 to 1
    crop_ratio=(3 / 4, 4 / 3),  # range of the crop's width over height; MoCo v2
    flip=0.5,                   # probability of a left-right flip; MoCo v2
    # largest rotation of a view before its crop, in degrees either way; MoCo v2: 0; MoCo-CXR: 10
    rotation=0.0,
    blur=0.5,                   # probability of a Gaussian blur; MoCo v2: 0.5
    # range of the blur's standard deviation, in px of the view; MoCo v2: 0.1 to 2 px at 224 px; scaling it with the
    # size is assumed
    blur_sigma=(0.1 * size / 224, 2.0 * size / 224),
    jitter=0.8,                 # probability of a change of brightness and contrast; MoCo v2
    brightness=0.4,             # largest relative change of brightness; MoCo v2
    contrast=0.4,               # largest relative change of contrast; MoCo v2
  ))


def labelled_augment(size: int) -> ConfigDict:
  """Augmentation for learning labels, on views of `size` px. It is milder than MoCo's, because the finding must stay in
  the view. All values are assumed; our sources give none.

  A flip moves the heart to the other side, which is harmless here: no label of the bundled datasets depends on the
  side. Where labels name both sides, such as 'left lung' and 'right lung', a flip swaps them. Where they name one side
  only, a flip is refused.
  """
  return ConfigDict(dict(
    size=size,                  # px, side of a view
    crop_area=(0.6, 1.0),       # range of the crop's area, as a share of the image; assumed
    crop_ratio=(4 / 5, 5 / 4),  # range of the crop's width over height; assumed
    # probability of a left-right flip; assumed; it swaps labels such as 'left lung' and 'right lung'; must be 0 where a
    # label names one side only
    flip=0.5,
    jitter=0.8,                 # probability of a change of brightness and contrast; assumed
    brightness=0.2,             # largest relative change of brightness; assumed
    contrast=0.2,               # largest relative change of contrast; assumed
    min_visibility=0.3,         # a box is dropped if less than this share of its area lies in the crop; assumed
  ))


def deeplab_v3() -> ConfigDict:
  """The segmentation head with torchvision's values (`deeplabv3_resnet50`)."""
  return ConfigDict(dict(
    output_stride=8,         # stride of the trunk's last feature map, in image px: 8, 16 or 32; torchvision: 8
    width=256,               # channels of the head; torchvision: 256
    # dilation rates of the atrous convolutions, in px of the feature map; torchvision: (12, 24, 36) at output stride 8
    dilations=(12, 24, 36),
    dice=0.0,                # weight of a soft Dice loss that is added to the cross-entropy; torchvision: none
  ))


def faster_rcnn(size: int) -> ConfigDict:
  """The detection head with torchvision's values (`fasterrcnn_resnet50_fpn`), for images of `size` px. torchvision's
  anchors are 32 to 512 px on images of 800 px; scaling them with the image, to whole pixels, is assumed."""
  return ConfigDict(dict(
    width=256,                         # channels of the feature pyramid; torchvision: 256
    roi_hidden=1024,                   # channels of the RoI head's two fully connected layers; torchvision: 1024
    # sides of the anchor boxes on each of the five pyramid levels, px; torchvision: 32 to 512 px at 800 px, scaled
    anchor_sizes=tuple((round(side * size / 800),) for side in (32, 64, 128, 256, 512)),
    aspect_ratios=(0.5, 1.0, 2.0),     # height over width of the anchor boxes; torchvision
    # largest number of proposals in training: per level before NMS, per image after NMS; torchvision: 2000
    rpn_proposals_train=(2000, 2000),
    # largest number of proposals in inference: per level before NMS, per image after NMS; torchvision: 1000
    rpn_proposals_test=(1000, 1000),
    rpn_nms_iou=0.7,                   # NMS drops a proposal that overlaps a better one by more (IoU); torchvision
    # thresholds on an anchor box's IoU with its best true box: below the first it is background, at or above the second
    # it is an object, between them it is ignored; torchvision
    rpn_match_iou=(0.3, 0.7),
    # number of anchor boxes per image in the RPN loss, and the largest number of these that may lie on objects;
    # torchvision: (256, 128)
    rpn_sample=(256, 128),
    # thresholds on a proposal's IoU with its best true box: below the first it is background, at or above the second it
    # is an object; torchvision
    roi_match_iou=(0.5, 0.5),
    # number of proposals per image in the RoI loss, and the largest number of these that may lie on objects;
    # torchvision: (512, 128)
    roi_sample=(512, 128),
    min_score=0.05,                    # detections with a lower score are dropped; torchvision
    # NMS drops a detection that overlaps a better one of the same class by more (IoU); torchvision
    roi_nms_iou=0.5,
    max_detections=100,                # at most this many detections per image; torchvision: 100
  ))
