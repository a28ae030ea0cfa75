"""What each field of a config may hold. Which of them must fit each other is in `validate.py`."""

from mtpret_jax.config.rules import choice, flag, levels, name, number, path, row, sample, span, text, whole
from mtpret_jax.data.records import READERS
from mtpret_jax.data.sources import SPLIT_RULES, SPLITS
from mtpret_jax.data.task_schedule import ORDERS
from mtpret_jax.models.resnet import LAYERS
from mtpret_jax.runtime.sharding import STATES

SEED = 2**31 - 1
STEPS = 10**9  # they are counted in 32 bits

SHARE = number(0.0, 1.0)
VIEW = {
  'size': whole(8, 4096), 'crop_area': span(0.001, 1.0), 'crop_ratio': span(0.01, 100.0), 'flip': SHARE,
  'jitter': SHARE, 'brightness': SHARE, 'contrast': SHARE}
OPTIMISER = {
  'kind': choice(('adamw', 'sgd')), 'learning_rate': number(0.0, 1000.0, 0.01), 'momentum': number(0.0, 0.99999, 0.9),
  'weight_decay': number(0.0, 1000.0), 'warmup_steps': whole(0, STEPS)}
DATA = {
  'datasets': row(name(), 0, 100), 'archives': path(), 'dir': path(1), 'stored_size': choice(('256', '512', 'original')),
  'split': choice(SPLIT_RULES), 'threads': whole(1, 1024), 'workers': whole(0, 1024), 'prefetch': whole(0, 10_000),
  'phantoms': {'images': whole(24, 1_000_000), 'size': whole(48, 4096), 'seed': whole(0, SEED)}}
STAGE = {
  'name': text(1, 100), 'workdir': path(1), 'seed': whole(0, SEED), 'trunk': choice(LAYERS),
  'dtype': choice(('bfloat16', 'float32')), 'sharding': choice(STATES), 'init': text(), 'init_from': path(),
  'save_every': whole(1, STEPS), 'log_every': whole(1, STEPS), 'keep': whole(1, 1_000_000),
  'save_retries': whole(0, 10), 'on_nonfinite': choice(('skip', 'stop')), 'max_skips': whole(0, STEPS),
  'optimiser': OPTIMISER}
MOCO = STAGE | {
  'steps': whole(1, STEPS), 'batch': whole(1, 2**20),
  'moco': {'dim': whole(1, 65_536), 'queue': whole(1, 2**24), 'temperature': number(0.001, 1000.0, 0.2),
               'momentum': SHARE, 'group': whole(2, 65_536), 'shuffle_groups': whole(1, 65_536),
               'negatives': choice(('all', 'same_source'))},
  'augment': VIEW | {'blur': SHARE, 'blur_sigma': span(0.0, 1000.0)},
  'data': DATA | {'size': whole(8, 4096), 'weights': text()},
  'probe': {'images': whole(2, 10**7), 'neighbours': whole(1, 10**6), 'penalty': number(1e-9, 1e9, 0.01),
            'resamples': whole(2, 10**6)}}
MULTITASK = STAGE | {
  'train': choice(('all', 'head')), 'order': choice(ORDERS), 'rounds': whole(1, 10_000),
  'memory': {'anchor': choice(('none', 'previous_visit', 'start')), 'l2_sp': number(0.0, 1e6)},
  'statistics': choice(('per_task', 'shared')), 'evaluate_every': whole(0, STEPS), 'resamples': whole(2, 10**6),
  'data': DATA | {'fraction': number(1e-6, 1.0, 1.0)}}
TASK = {
  'kind': choice(READERS), 'dataset': name(), 'findings': row(text(1), 0, 1000), 'size': whole(8, 4096),
  'batch': whole(1, 65_536), 'group': whole(2, 65_536), 'steps': whole(0, 10**7), 'objects': whole(0, 10_000),
  'negatives': flag(), 'external': flag(), 'augment': VIEW | {'min_visibility': SHARE}}
HEADS = {
  'classification': {}, 'regression': {},
  'segmentation': {'output_stride': choice((8, 16, 32)), 'width': whole(1, 8192), 'dilations': row(whole(1, 1000), 1, 16),
                   'dice': number(0.0, 1000.0)},
  'detection': {
    'width': whole(1, 8192), 'roi_hidden': whole(1, 65_536), 'anchor_sizes': levels(), 'aspect_ratios': row(number(0.01, 100.0), 1, 16),
    'rpn_proposals_train': row(whole(1, 10_000), 2, 2), 'rpn_proposals_test': row(whole(1, 10_000), 2, 2), 'rpn_nms_iou': SHARE,
    'rpn_match_iou': span(0.0, 1.0), 'rpn_sample': sample(), 'roi_match_iou': span(0.0, 1.0), 'roi_sample': sample(),
    'min_score': SHARE, 'roi_nms_iou': SHARE, 'max_detections': whole(1, 10_000)}}
EVALUATE = {
  'run': path(1), 'state': choice(('', 'best', 'last')), 'split': choice(SPLITS), 'workdir': path(),
  'resamples': whole(2, 10**6), 'data': {'dir': path()}}
RECIPE = {'workdir': path(1)}
OBJECTIVES = {'moco': MOCO, 'multitask': MULTITASK, 'evaluate': EVALUATE, 'recipe': RECIPE}
LIMITS = {'batch': 2**20, 'moco.queue': 2**24, 'moco.shuffle_groups': 65_536, 'tasks.batch': 65_536}


def find_mistake(config, rules, whole=True):
  """(field, its value or None, its `Rule` or None) of the first field of a config, a dict, that is not there (unless
  not the `whole` of it is needed), has no fields of its own, or cannot hold its value; None where there is none."""
  if 'train' in rules:
    tasks = config.get('tasks')
    if not isinstance(tasks, dict) or not tasks:
      return 'tasks', tasks, None
    rules = rules | {'tasks': {task: TASK | {'head': choose_head(task_config)} for task, task_config in tasks.items()}}
  return compare(config, rules, whole, '')


def choose_head(task_config):
  kind = task_config.get('kind') if isinstance(task_config, dict) else None
  return HEADS.get(kind, {}) if isinstance(kind, str) else {}


def compare(fields, rules, whole, prefix):
  for key, rule in rules.items():
    field, value = f'{prefix}{key}', fields.get(key)
    if value is None:
      if whole or key in fields:
        return field, None, None
    elif isinstance(rule, dict):
      mistake = compare(value, rule, whole, f'{field}.') if isinstance(value, dict) else (field, value, None)
      if mistake:
        return mistake
    elif not rule.fits(value):
      return field, value, rule
  return None
