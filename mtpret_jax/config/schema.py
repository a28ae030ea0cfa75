"""What each field of a config may hold. Rules between fields are in `validate.py`."""

from collections.abc import Mapping
from typing import Any

from mtpret_jax.config.rules import (
  Rule,
  choice,
  class_weights,
  descending,
  flag,
  name,
  number,
  path,
  row,
  span,
  text,
  whole,
  word_or_share,
)
from mtpret_jax.data.sources import SPLIT_RULES, SPLITS
from mtpret_jax.data.task_schedule import ORDERS
from mtpret_jax.models.trunk import TRUNKS
from mtpret_jax.runtime.sharding import STATES
from mtpret_jax.tasks import KINDS
from mtpret_jax.tasks.detection import NEGATIVES

Schema = Mapping[str, Any]  # field -> its `Rule`, or the schema of its own fields
Mistake = tuple[str, Any, Rule | None]  # field, value, rule

SEED = 2**31 - 1
STEPS = 10**9  # the step is an int32
# The largest values of some fields. `validate.py` uses them as well, so that no remedy exceeds them.
LIMITS = {'batch': 2**20, 'moco.queue': 2**24, 'moco.shuffle_groups': 65_536, 'tasks.batch': 65_536}
SHARE = number(0.0, 1.0)
VIEW = {
  'size': whole(8, 4096), 'crop_area': span(0.001, 1.0), 'crop_ratio': span(0.01, 100.0), 'flip': SHARE,
  'jitter': SHARE, 'brightness': SHARE, 'contrast': SHARE}
OPTIMISER = {
  'kind': choice(('adamw', 'sgd')), 'learning_rate': number(0.0, 1000.0, 0.01),
  'final_learning_rate': number(0.0, 1000.0), 'momentum': number(0.0, 0.99999, 0.9),
  'weight_decay': number(0.0, 1000.0), 'warmup': SHARE, 'clip': number(0.0, 1e6)}
DATA = {
  'datasets': row(name(), 0, 100), 'archives': path(), 'dir': path(1),
  'stored_size': choice(('256', '512', 'original')), 'split': choice(SPLIT_RULES), 'threads': whole(1, 1024),
  'workers': whole(0, 1024), 'prefetch': whole(0, 10_000),
  'phantoms': {'images': whole(24, 1_000_000), 'size': whole(48, 4096), 'seed': whole(0, SEED),
               'variation': SHARE}}
STAGE = {
  'name': text(1, 100), 'workdir': path(1), 'seed': whole(0, SEED), 'trunk': choice(TRUNKS),
  'dtype': choice(('bfloat16', 'float32')), 'sharding': choice(STATES), 'init': text(), 'init_from': path(),
  'save_every': whole(1, STEPS), 'log_every': whole(1, STEPS), 'keep': whole(1, 1_000_000),
  'keep_finished': whole(1, 1_000_000),
  'save_retries': whole(0, 10), 'on_nonfinite': choice(('skip', 'stop')), 'max_skips': whole(0, STEPS),
  'extend': flag(), 'optimiser': OPTIMISER}
MOCO = STAGE | {
  'steps': whole(1, STEPS), 'batch': whole(1, LIMITS['batch']),
  'moco': {'dim': whole(1, 65_536), 'queue': whole(1, LIMITS['moco.queue']),
           'temperature': number(0.001, 1000.0, 0.2), 'momentum': SHARE, 'group': whole(2, 65_536),
           'shuffle_groups': whole(1, LIMITS['moco.shuffle_groups']), 'negatives': choice(('queue', 'batch', 'both')),
           'same_source': flag(), 'symmetric': flag()},
  'augment': VIEW | {'rotation': number(0.0, 180.0), 'blur': SHARE, 'blur_sigma': span(0.0, 1000.0)},
  'data': DATA | {'size': whole(8, 4096), 'patient_positives': row(name(), 0, 100), 'weights': text(),
                  'whole': row(name(), 0, 100)},
  'probe': {'every': whole(0, STEPS), 'during': whole(2, 10**7), 'images': whole(2, 10**7),
            'neighbours': whole(1, 10**6), 'penalty': number(1e-9, 1e9, 0.01), 'resamples': whole(2, 10**6),
            'fractions': row(number(1e-6, 1.0), 1, 100), 'draws': whole(1, 1000), 'per_class': whole(1, 10**6)}}
MULTITASK = STAGE | {
  'train': choice(('all', 'head')), 'trunk_scale': number(0.0, 1.0, 0.1), 'order': choice(ORDERS),
  'rounds': whole(1, 10_000),
  'memory': {'anchor': choice(('none', 'previous_visit', 'start')), 'l2_sp': number(0.0, 1e6)},
  'statistics': choice(('per_task', 'shared')), 'validations': whole(1, 10_000),
  'patience': whole(0, STEPS), 'resamples': whole(2, 10**6), 'operating_point': word_or_share('youden'),
  'temperature': flag(), 'flips': flag(), 'optimiser': OPTIMISER | {'ema': number(0.0, 0.999999, 0.999)},
  'data': DATA | {'fraction': number(1e-6, 1.0, 1.0), 'fraction_seed': whole(0, SEED)}}
TASK = {  # plus `head`, whose fields depend on the kind of task
  'kind': choice(KINDS), 'dataset': name(), 'findings': row(text(1), 0, 1000), 'size': whole(8, 4096),
  'batch': whole(1, LIMITS['tasks.batch']), 'group': whole(2, 65_536), 'steps': whole(0, 10**7),
  'epochs': number(0.0, 1e6), 'min_steps': whole(1, 10**7), 'max_steps': whole(0, 10**7), 'among': text(),
  'learning_rates': descending(0.0, 1000.0),
  'objects': whole(0, 10_000), 'negatives': choice(NEGATIVES), 'external': flag(),
  'uncertain': choice(('ignore', 'zeros', 'ones', 'soft')), 'sampler': choice(('shuffled', 'balanced')),
  'loss': {'class_weights': class_weights(), 'focal': number(0.0, 10.0)},
  'augment': VIEW | {'min_visibility': SHARE}}
EVALUATE = {
  'run': path(1), 'state': choice(('', 'best', 'last')), 'split': choice(SPLITS), 'workdir': path(),
  'resamples': whole(2, 10**6), 'flips': choice(('', 'off', 'on')), 'data': {'dir': path()}}
RECIPE = {'workdir': path(1)}
SPEED = number(0.0, 1e9)
TABLE = {
  'workdir': path(1), 'seed': whole(0, SEED), 'inits': row(text(1), 1, 100), 'tasks': row(name(), 1, 100),
  'fractions': row(number(1e-6, 1.0), 1, 100), 'seeds': row(whole(0, SEED), 1, 1000), 'pretrain_once': flag(),
  'min_images': whole(1, 10**6), 'imagenet': path(), 'keep_checkpoints': flag(), 'resamples': whole(2, 10**6),
  'images_per_second': {'pretrain': SPEED, 'continual': SPEED, 'finetune': SPEED},
  'data': {'archives': path(), 'dir': path(1), 'split': choice(SPLIT_RULES), 'phantoms': DATA['phantoms']}}
OBJECTIVES: Mapping[str, Schema] = {
  'moco': MOCO, 'multitask': MULTITASK, 'evaluate': EVALUATE, 'recipe': RECIPE, 'table': TABLE}


def find_mistake(config: Mapping[str, Any], schema: Schema, complete: bool = True) -> Mistake | None:
  """(field, value, rule) of the first field that is wrong, or None.

  The value is None if the field is missing. A missing field is a mistake only if `complete` is set. The rule is None if
  the field is missing or should be a section with fields.
  """
  if 'train' in schema:
    tasks = config.get('tasks')
    if not isinstance(tasks, dict) or not tasks:
      return 'tasks', tasks, None
    schema = {**schema, 'tasks': {name: {**TASK, 'head': head_schema(task_config)}
                                  for name, task_config in tasks.items()}}
  return compare(config, schema, complete, '')


def head_schema(task_config: Any) -> Schema:
  """The fields of a task's head. Empty if its kind is unknown; the check of `kind` reports that."""
  kind = task_config.get('kind') if isinstance(task_config, dict) else None
  return KINDS[kind].head_schema if isinstance(kind, str) and kind in KINDS else {}


def compare(fields: Mapping[str, Any], schema: Schema, complete: bool, prefix: str) -> Mistake | None:
  """Like `find_mistake`, for the config fields under `prefix`."""
  for key, rule in schema.items():
    field, value = f'{prefix}{key}', fields.get(key)
    if value is None:
      if complete or key in fields:
        return field, None, None
    elif isinstance(rule, Mapping):
      mistake = compare(value, rule, complete, f'{field}.') if isinstance(value, dict) else (field, value, None)
      if mistake:
        return mistake
    elif not rule.fits(value):
      return field, value, rule
  return None
