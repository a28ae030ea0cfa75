"""Values that several configs share: lists of datasets, augmentation, heads.

`muscle9` has the datasets of MUSCLE (Liao et al., MICCAI 2022). MTPret (2024) has eleven. The two that it added are not
public knowledge, so the last two of `mtpret11` are assumed.
"""

from ml_collections import ConfigDict

embedded = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental')

muscle9 = ('nih_chest_xray', 'shenzhen_cxr', 'montgomery_cxr', 'indiana_cxr', 'rsna_bone_age', 'kermany_pneumonia',
           'mura', 'lung_masks', 'tbx11k')

mtpret11 = (*muscle9, 'knee_oa', 'panoramic_dental')

# The datasets of MTPret's two external tasks, which its pretraining never saw. They are not public knowledge: assumed.
# Most images of covid19_radiography also lie in archives above (see its README.md), so it is external only to a trunk
# that was pretrained without those archives.
external2 = ('covid19_radiography', 'vinbigdata_cxr')


def phantoms() -> ConfigDict:
  """The phantom archives of the embedded runs. Stages share the folder, so all of them must use the same values."""
  return ConfigDict(dict(
    images=2000,  # images in each phantom dataset
    size=96,      # px, longer side of a phantom image
    seed=0,       # seed of the simulated patients
  ))


def moco_v2_augment(size: int) -> ConfigDict:
  """MoCo v2's augmentation for grey images of `size` px (facebookresearch/moco, main_moco.py --aug-plus). Colour and
  hue jitter do nothing on a grey image and are left out."""
  return ConfigDict(dict(
    size=size,                  # px, side of a view
    crop_area=(0.2, 1.0),       # range of the crop's area, as a share of the image; MoCo v2: 0.2 to 1
    crop_ratio=(3 / 4, 4 / 3),  # range of the crop's width over height; MoCo v2
    flip=0.5,                   # probability of a left-right flip; MoCo v2
    blur=0.5,                   # probability of a Gaussian blur; MoCo v2
    # range of the blur's standard deviation, px of the view; MoCo v2 has 0.1 to 2 px at 224 px, scaling it with the
    # size is assumed
    blur_sigma=(0.1 * size / 224, 2.0 * size / 224),
    jitter=0.8,                 # probability of a change of brightness and contrast; MoCo v2
    brightness=0.4,             # largest relative change of brightness; MoCo v2
    contrast=0.4,               # largest relative change of contrast; MoCo v2
  ))


def labelled_augment(size: int) -> ConfigDict:
  """Augmentation for learning labels, on views of `size` px. It is milder than MoCo's, because the finding must stay in
  the view. All values are assumed; the papers give none.

  A mirrored chest has its heart on the right. No label of the bundled datasets depends on the side. Set `flip=0` for
  labels that do, such as 'left lung'.
  """
  return ConfigDict(dict(
    size=size,                  # px, side of a view
    crop_area=(0.6, 1.0),       # range of the crop's area, as a share of the image; assumed
    crop_ratio=(4 / 5, 5 / 4),  # range of the crop's width over height; assumed
    flip=0.5,                   # probability of a left-right flip; assumed; use 0 where a label depends on the side
    jitter=0.8,                 # probability of a change of brightness and contrast; assumed
    brightness=0.2,             # largest relative change of brightness; assumed
    contrast=0.2,               # largest relative change of contrast; assumed
    min_visibility=0.3,         # share of a box's area that must lie in the crop, or the box is dropped; assumed
  ))


def deeplab_v3() -> ConfigDict:
  """The segmentation head with torchvision's values (`deeplabv3_resnet50`)."""
  return ConfigDict(dict(
    output_stride=8,         # image px per px of the trunk's last map: 8, 16 or 32; torchvision: 8
    width=256,               # channels of the head; torchvision: 256
    # spacing of the atrous kernels' taps, px of the map; torchvision: (12, 24, 36) at output stride 8
    dilations=(12, 24, 36),
    dice=0.0,                # weight of a soft Dice loss that is added to the cross-entropy; torchvision has none
  ))


def faster_rcnn(size: int) -> ConfigDict:
  """The detection head with torchvision's values (`fasterrcnn_resnet50_fpn`), for images of `size` px. torchvision's
  anchors are 32 to 512 px on images of 800 px; scaling them with the image, to whole pixels, is our choice."""
  return ConfigDict(dict(
    width=256,                         # channels of the feature pyramid; torchvision: 256
    roi_hidden=1024,                   # channels of the RoI head's two fully connected layers; torchvision: 1024
    # sides of the anchors on each of the five pyramid levels, px; torchvision: 32 to 512 px at 800 px, scaled
    anchor_sizes=tuple((round(side * size / 800),) for side in (32, 64, 128, 256, 512)),
    aspect_ratios=(0.5, 1.0, 2.0),     # height over width of the anchors; torchvision
    # proposals in training: at most so many per level before NMS, and per image after it; torchvision: 2000
    rpn_proposals_train=(2000, 2000),
    rpn_proposals_test=(1000, 1000),   # the same in inference; torchvision: 1000
    rpn_nms_iou=0.7,                   # NMS drops a proposal that overlaps a better one by more (IoU); torchvision
    # IoU of an anchor with its best box: below the first it is background, from the second on an object; torchvision
    rpn_match_iou=(0.3, 0.7),
    # anchors per image in the RPN loss, and at most so many on objects; torchvision: (256, 128)
    rpn_sample=(256, 128),
    # IoU of a proposal with its best box: below the first it is background, from the second on an object; torchvision
    roi_match_iou=(0.5, 0.5),
    # proposals per image in the RoI loss, and at most so many on objects; torchvision: (512, 128)
    roi_sample=(512, 128),
    min_score=0.05,                    # lowest score of a detection; torchvision
    roi_nms_iou=0.5,                   # the same for detections of one class; torchvision
    max_detections=100,                # detections per image, at most; torchvision: 100
  ))
