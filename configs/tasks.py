"""The tasks of stages 2 and 3: what is learned from which dataset, at which size.

MUSCLE has four tasks: `pneumonia`, `abnormality`, `lung` and `tuberculosis`. MTPret has seven tasks, and two external
ones. Our sources do not name the added ones, so `bone_age`, `jaw`, `knee` and the external `findings` and `fracture`
are assumed. `covid` is a third external task, for trunks that were pretrained without the archives that its images are
from. Our sources do not give image sizes and batches either, so these are also assumed: 224 px for one label per image
and 512 px for masks and boxes are common practice.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common

muscle4 = ('pneumonia', 'abnormality', 'lung', 'tuberculosis')
mtpret7 = (*muscle4, 'bone_age', 'jaw', 'knee')
# MTPret's two external tasks are on datasets that its pretraining never saw. As far as is known, these two share no
# image with `common.mtpret11`. `covid` cannot be one of them: most of its images are also in datasets of that list.
external2 = ('findings', 'fracture')

TASKS: Mapping[str, Mapping[str, Any]] = {
  'pneumonia': dict(kind='classification', dataset='kermany_pneumonia', findings=('pneumonia',)),
  'abnormality': dict(kind='classification', dataset='mura'),
  'lung': dict(kind='segmentation', dataset='lung_masks'),
  'tuberculosis': dict(kind='detection', dataset='tbx11k', box_factor=1),
  'bone_age': dict(kind='regression', dataset='rsna_bone_age'),
  'jaw': dict(kind='segmentation', dataset='panoramic_dental'),
  'knee': dict(kind='classification', dataset='knee_oa'),
  'covid': dict(kind='classification', dataset='covid19_radiography', external=True),
  'findings': dict(kind='detection', dataset='vinbigdata_cxr', box_factor=2, external=True),
  'fracture': dict(kind='classification', dataset='frac_atlas', external=True),
}


def make_task_config(name: str, *, small: int, large: int, batch: int, deeplab: ConfigDict, detector: ConfigDict,
                     objects: int, steps: int = 0, epochs: float = 1.0, min_steps: int = 1,
                     max_steps: int = 0) -> ConfigDict:
  """The config of one task, at `small` px where an image has one label and `large` px where it has masks or boxes."""
  if name not in TASKS:
    raise ValueError(f'unknown task {name!r}: choose one of {", ".join(TASKS)}')
  task = TASKS[name]
  kind = task['kind']
  size = large if kind in ('segmentation', 'detection') else small
  return ConfigDict(dict(
    kind=kind,                   # 'classification', 'regression', 'segmentation' or 'detection'
    dataset=task['dataset'],     # name of the dataset
    findings=task.get('findings', ()),  # classification: which of the dataset's findings to learn; () means all
    # classification: use only the images with this finding, such as 'pneumonia' to classify its cause; '': all images
    among='',
    size=round(size * 1.15),     # px, side of the images that reach the device; `augment` crops from them; assumed
    batch=batch,                 # images per step, over all devices; assumed
    group=batch,                 # images in a batch-norm group
    steps=steps,                 # steps of a visit; 0: `epochs` sets its length
    epochs=epochs,               # with `steps=0`: epochs of the training images in a visit; 1 is recalled for stage 2
    min_steps=min_steps,         # with `steps=0`: a visit has at least this many steps; assumed
    max_steps=max_steps,         # with `steps=0`: a visit has at most this many steps; 0: no limit
    # (peak, final) learning rate of this task's visits; () takes the optimiser's; a range per task is recalled
    learning_rates=(),
    # detection: training keeps at most this many boxes per image, the largest; evaluation counts all
    objects=task.get('box_factor', 0) * objects,
    # detection: when images that were examined and have no box are used: 'never', 'evaluation' (validation and test) or
    # 'always' (training too)
    negatives='evaluation',
    # classification: what training makes of labels that are uncertain: 'ignore' (unknown), 'zeros', 'ones' or 'soft' (a
    # number from 0.55 to 0.85); scores always leave them out
    uncertain='ignore',
    # 'shuffled', or 'balanced': the groups of images with the same rarest class are drawn equally often
    sampler='shuffled',
    loss=dict(
      # classification and segmentation: weights of the classes: 'none', 'balanced' (from the training labels), or a
      # number for each class, such as '1,3.5'
      class_weights='none',
      focal=0.0,                 # classification: gamma of the focal loss; 0: cross-entropy; Lin et al. 2017: 2
    ),
    external=task.get('external', False),  # if True, a trunk that was pretrained on this dataset's images is refused
    head={'segmentation': deeplab, 'detection': detector}.get(kind, ConfigDict()),
    augment=common.labelled_augment(size),
  ))


def make_task_configs(names: Iterable[str], **numbers: Any) -> ConfigDict:
  """{task: its config}, in the order of `names`; the orders 'cyclic' and 'sequential' visit the tasks in this order."""
  configs = ConfigDict(sort_keys=False)
  for name in names:
    configs[name] = make_task_config(name, **numbers)
  return configs


def make_own_config(small: int, large: int, **numbers: Any) -> ConfigDict:
  """The section `task` of a config, for a dataset of your own. The run makes a task of it (`runtime/own_task.py`), with
  the fields of any other task, and takes from the data what is empty or 0 here."""
  task_config = make_task_config('pneumonia', small=small, large=large, **numbers)
  del task_config['head']
  task_config.findings = ()
  task_config.augment.size = 0
  task_config.update(own_fields(small, large, **numbers))
  return task_config


def own_fields(small: int, large: int, *, deeplab: ConfigDict, detector: ConfigDict, **_: Any) -> ConfigDict:
  """The fields of `task` that other tasks do not have, and those whose default is taken from the data."""
  detector = ConfigDict({**detector, 'anchor_sizes': (), 'aspect_ratios': ()})
  return ConfigDict(dict(
    dataset='',                  # name of the dataset, which is that of its folder
    # kind of task: 'classification', 'regression', 'segmentation' or 'detection'; '': the one that the labels allow
    kind='',
    name='',                     # name of the task in all outputs; '': that of the dataset
    objects=0,                   # detection: 0 makes room for all boxes of the image that has most
    size=0,                      # 0: 1.15 times `augment.size`, as in other tasks
    views=(small, large),        # with `augment.size=0`: px, side of the views with one label, and with masks or boxes
    # `head` for each kind; with () for `anchor_sizes` and `aspect_ratios` of `detection`, they fit the training boxes
    heads=dict(segmentation=deeplab, detection=detector),
  ))


def small_numbers() -> dict[str, Any]:
  """Sizes for two CPU cores."""
  deeplab = common.deeplab_v3()
  deeplab.update(width=64, dilations=(1, 2, 4))
  detector = common.faster_rcnn(96)
  detector.update(
    width=64, roi_hidden=128, rpn_proposals_train=(200, 200), rpn_proposals_test=(100, 100), rpn_sample=(64, 32),
    roi_sample=(64, 16), max_detections=20, anchor_sizes=((6,), (10,), (18,), (30,), (48,)))
  return dict(small=64, large=96, batch=16, deeplab=deeplab, detector=detector, objects=8)


def base_numbers() -> dict[str, Any]:
  """Sizes for a small GPU. Ours, between the two others."""
  deeplab = common.deeplab_v3()
  deeplab.update(width=128, dilations=(3, 6, 12))  # on a map of 32 px
  detector = common.faster_rcnn(256)
  detector.update(
    width=128, roi_hidden=256, rpn_proposals_train=(500, 500), rpn_proposals_test=(300, 300), rpn_sample=(128, 64),
    roi_sample=(128, 32), max_detections=60)
  return dict(small=128, large=256, batch=16, deeplab=deeplab, detector=detector, objects=16)


def full_scale_numbers() -> dict[str, Any]:
  """Sizes at full scale."""
  deeplab = common.deeplab_v3()
  deeplab.update(output_stride=16, dilations=(6, 12, 18))  # the DeepLab-V3 paper's values at this stride
  return dict(small=224, large=512, batch=32, deeplab=deeplab, detector=common.faster_rcnn(512), objects=32)


NUMBERS = {'small': small_numbers, 'base': base_numbers, 'paper': full_scale_numbers}  # by `preset`


def embedded(names: Iterable[str], steps: int) -> ConfigDict:
  """The tasks on phantoms, small enough for two CPU cores."""
  return make_task_configs(names, steps=steps, **small_numbers())


def real(names: Iterable[str], preset: str, **visit: Any) -> ConfigDict:
  """The tasks on real archives; `visit`: the fields that set the length of a visit."""
  return make_task_configs(names, **NUMBERS[preset](), **visit)


def own(preset: str, **visit: Any) -> ConfigDict:
  """The section `task`; arguments as of `real`."""
  return make_own_config(**NUMBERS[preset](), **visit)
