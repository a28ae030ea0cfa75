"""Which of torchvision's models the names and shapes of an export are compared with."""

import pathlib

FIXTURE = pathlib.Path(__file__).with_name('names.npz')
CLASSES = 3  # outputs; the background counts as one of the masks and of the detector
# kind of task -> torchvision's models; the trunk of the last two is its resnet50
MODELS = {'classification': ('resnet18', 'densenet121'), 'segmentation': ('deeplabv3_resnet50',),
          'detection': ('fasterrcnn_resnet50_fpn',)}
