"""The tasks of stages 2 and 3, one task_config each: what is asked of which dataset, at which size.

MUSCLE fine-tunes four: `pneumonia`, `abnormality`, `lung`, `tuberculosis`. MTPret has seven and two external ones that
are not named in public: `bone_age`, `jaw`, `knee`, and `covid` and `findings` are our assumption. What a task_config's numbers
are in the papers is not known either; 224 px for classification and 512 px for the others are common practice.
"""

from ml_collections import ConfigDict

from configs import common

muscle4 = ('pneumonia', 'abnormality', 'lung', 'tuberculosis')
mtpret7 = (*muscle4, 'bone_age', 'jaw', 'knee')
external2 = ('covid', 'findings')


def make_task_config(kind, dataset, findings=(), head=None, *, size, batch, group, steps, objects=0, margin=1.15,
              negatives=False, external=False, **augment):
  return ConfigDict(dict(
    kind=kind,                    # classification, regression, segmentation, detection
    dataset=dataset,
    findings=tuple(findings),     # of the dataset's; () is all
    size=round(size * margin),    # px, side that the host hands to the device
    batch=batch,                  # images, over all devices
    group=group,                  # images in a batch-norm group
    steps=steps,                  # of a visit; 0 is an epoch
    objects=objects,              # boxes in an image, at most
    negatives=negatives,          # detection: whether images without a box are known to show nothing
    external=external,            # whether the scores are to be those of a dataset that pretraining never saw
    head=head or ConfigDict(),
    augment=dict(common.labelled_augment(size), **augment),
  ))


def make_task_configs(names, *, small, big, batch, group, steps, deeplab, detector, objects=32):
  """Cards of the tasks called `names`: `small` px for what asks of the whole image, `big` for what asks where."""
  whole = dict(size=small, batch=batch, group=group, steps=steps)
  where = dict(size=big, batch=batch, group=group, steps=steps)
  task_configs = {
    'pneumonia': lambda: make_task_config('classification', 'kermany_pneumonia', ['pneumonia'], **whole),
    'abnormality': lambda: make_task_config('classification', 'mura', **whole),
    'lung': lambda: make_task_config('segmentation', 'lung_masks', head=deeplab, **where),
    'tuberculosis': lambda: make_task_config('detection', 'tbx11k', head=detector, objects=objects, **where),
    'bone_age': lambda: make_task_config('regression', 'rsna_bone_age', **whole),
    'jaw': lambda: make_task_config('segmentation', 'panoramic_dental', head=deeplab, **where),
    'knee': lambda: make_task_config('classification', 'knee_oa', **whole),
    'covid': lambda: make_task_config('classification', 'covid19_radiography', external=True, **whole),
    'findings': lambda: make_task_config('detection', 'vinbigdata_cxr', head=detector, objects=2 * objects, external=True,
                                  **where),
  }
  unknown = [name for name in names if name not in task_configs]
  if unknown:
    raise ValueError(f'unknown task {unknown[0]!r}; have {", ".join(task_configs)}')
  return {name: task_configs[name]() for name in names}


def embedded(names, steps):
  """The tasks on phantoms, small enough for two cores."""
  deeplab = common.deeplab_v3()
  deeplab.update(width=64, dilations=(1, 2, 4))
  detector = common.faster_rcnn(96)
  detector.update(width=64, roi_hidden=128, rpn_proposals_train=(200, 200), rpn_proposals_test=(100, 100), rpn_sample=(64, 32), roi_sample=(64, 16),
                  max_detections=20, anchor_sizes=((6,), (10,), (18,), (30,), (48,)))
  return make_task_configs(names, small=64, big=96, batch=16, group=16, steps=steps, deeplab=deeplab, detector=detector,
                    objects=8)


def papers_scale(names, steps):
  deeplab = common.deeplab_v3()
  deeplab.update(output_stride=16, dilations=(6, 12, 18))  # the paper's at this stride
  return make_task_configs(names, small=224, big=512, batch=32, group=32, steps=steps, deeplab=deeplab,
                    detector=common.faster_rcnn(512))
