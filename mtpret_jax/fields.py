"""What each field of a config may hold. Which of them must fit each other is in `check.py`."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Collection

from mtpret_jax.data.order import ORDERS
from mtpret_jax.data.records import READERS
from mtpret_jax.data.sources import RULES, SPLITS
from mtpret_jax.models.resnet import LAYERS
from mtpret_jax.sharding import STATES

SHOWN = 80  # characters of a value in a message
SEED = 2**31 - 1
STEPS = 10**9  # they are counted in 32 bits
NAME = re.compile(r'[a-z][a-z0-9_]{0,63}')  # of a dataset: it becomes a folder
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes that Linux takes


@dataclasses.dataclass(frozen=True)
class Rule:
  """`words`: what the value must be; `fits(value)`: whether it is; `mend(value)`: one that is, or None; `choices`: all
  that there are, where they can be listed."""

  words: str
  fits: Callable
  mend: Callable = lambda value: None
  choices: Collection = ()


def whole(least, most):
  return Rule(f'a whole number from {least} to {most}', lambda value: is_whole(value) and least <= value <= most,
              lambda value: min(max(math.floor(value), least), most) if is_number(value) else least)


def number(least, most, such=None):
  """`such`: what is proposed in place of what is no number; the least, where not given."""
  return Rule(f'a number from {least} to {most}', lambda value: is_number(value) and least <= value <= most,
              lambda value: min(max(value, least), most) if is_number(value) else least if such is None else such)


def span(least, most):
  """Two numbers, the first not above the second."""
  return Rule(f'two numbers from {least} to {most}, the smaller one first',
              lambda value: is_row(value, 2, 2, number(least, most).fits) and value[0] <= value[1])


def sample():
  """(candidates, at most so many of them objects)"""
  return Rule('two whole numbers from 1 to 10000, the larger one first',
              lambda value: is_row(value, 2, 2, whole(1, 10_000).fits) and value[1] <= value[0])


def row(rule, least, most):
  return Rule(f'{least} to {most} in brackets, each {rule.words}', lambda value: is_row(value, least, most, rule.fits))


def levels():
  """As many sides of anchors on each of five levels."""
  one = number(0.1, 10_000).fits
  return Rule('five rows of equally many numbers from 0.1 to 10000', lambda value: is_row(
    value, 5, 5, lambda sides: is_row(sides, 1, 16, one)) and len({len(sides) for sides in value}) == 1)


def choice(choices):
  return Rule('one of these', lambda value: isinstance(value, str | int) and value in choices, choices=choices)


def spike():
  return Rule('0 for no such rule, or a multiple of the median loss above 1',
              lambda value: is_number(value) and (value == 0 or 1 < value <= 1e9), lambda value: 4)


def flag():
  return Rule('True or False', lambda value: isinstance(value, bool))


def text(least=0, most=1000):
  return Rule(f'{least} to {most} characters that can be printed',
              lambda value: isinstance(value, str) and least <= len(value) <= most and value.isprintable())


def path(least=0):
  """A folder or file of the file system: what reads and writes them knows no buckets, and only some of it knows ~."""
  return Rule('a path in the file system (a bucket has to be mounted, ~ to be written out) of characters that can be '
              'printed' + ', or nothing' * (least == 0), lambda value: isinstance(value, str) and is_path(value, least))


def name():
  return Rule('a name of small letters, digits and _', lambda value: isinstance(value, str) and NAME.fullmatch(value))


def is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)


def is_number(value):
  return is_whole(value) or isinstance(value, float) and math.isfinite(value)


def is_row(value, least, most, fits):
  return isinstance(value, tuple | list) and least <= len(value) <= most and all(map(fits, value))


def is_path(value, least):
  if len(value.strip()) < least or not value.isprintable() or '://' in value or value.startswith('~'):
    return False
  return len(value.encode()) < LONGEST_PATH and all(
    len(part.encode()) <= LONGEST_NAME for part in pathlib.PurePath(value).parts)


SHARE = number(0.0, 1.0)
VIEW = {
  'size': whole(8, 4096), 'crop_area': span(0.001, 1.0), 'crop_ratio': span(0.01, 100.0), 'flip': SHARE,
  'jitter': SHARE, 'brightness': SHARE, 'contrast': SHARE}
OPTIMISER = {
  'kind': choice(('adamw', 'sgd')), 'rate': number(0.0, 1000.0, 0.01), 'momentum': number(0.0, 0.99999, 0.9),
  'weight_decay': number(0.0, 1000.0), 'warmup_steps': whole(0, STEPS)}
DATA = {
  'datasets': row(name(), 0, 100), 'archives': path(), 'dir': path(1), 'stored': choice(('256', '512', 'original')),
  'rule': choice(RULES), 'threads': whole(1, 1024), 'workers': whole(0, 1024), 'ahead': whole(0, 10_000),
  'phantoms': {'images': whole(24, 1_000_000), 'size': whole(48, 4096), 'seed': whole(0, SEED)}}
STAGE = {
  'name': text(1, 100), 'workdir': path(1), 'seed': whole(0, SEED), 'trunk': choice(LAYERS),
  'dtype': choice(('bfloat16', 'float32')), 'sharding': choice(STATES), 'init': text(), 'init_from': path(),
  'save_every': whole(1, STEPS), 'log_every': whole(1, STEPS), 'keep': whole(1, 1_000_000),
  'save_retries': whole(0, 10), 'on_bad': choice(('skip', 'stop')), 'skips': whole(0, STEPS),
  'spike': spike(), 'spike_window': whole(1, 1_000_000), 'optimiser': OPTIMISER}
CONTRAST = STAGE | {
  'steps': whole(1, STEPS), 'batch': whole(1, 2**20),
  'contrast': {'dim': whole(1, 65_536), 'queue': whole(1, 2**24), 'temperature': number(0.001, 1000.0, 0.2),
               'momentum': SHARE, 'group': whole(2, 65_536), 'shuffle_groups': whole(1, 65_536),
               'negatives': choice(('all', 'same_source'))},
  'augment': VIEW | {'blur': SHARE, 'blur_sigma': span(0.0, 1000.0)},
  'data': DATA | {'size': whole(8, 4096), 'weights': text()},
  'probe': {'images': whole(2, 10**7), 'neighbours': whole(1, 10**6), 'penalty': number(1e-9, 1e9, 0.01),
            'resamples': whole(2, 10**6)}}
MULTITASK = STAGE | {
  'train': choice(('all', 'head')), 'order': choice(ORDERS), 'rounds': whole(1, 10_000),
  'memory': {'anchor': choice(('none', 'previous_visit', 'start')), 'strength': number(0.0, 1e6)},
  'statistics': choice(('per_task', 'shared')), 'evaluate_every': whole(0, STEPS), 'resamples': whole(2, 10**6),
  'data': DATA | {'fraction': number(1e-6, 1.0, 1.0)}}
CARD = {
  'kind': choice(READERS), 'dataset': name(), 'findings': row(text(1), 0, 1000), 'size': whole(8, 4096),
  'batch': whole(1, 65_536), 'group': whole(2, 65_536), 'steps': whole(0, 10**7), 'objects': whole(0, 10_000),
  'negatives': flag(), 'external': flag(), 'augment': VIEW | {'box_left': SHARE}}
HEADS = {
  'classification': {}, 'regression': {},
  'segmentation': {'output_stride': choice((8, 16, 32)), 'width': whole(1, 8192), 'rates': row(whole(1, 1000), 1, 16),
                   'dice': number(0.0, 1000.0)},
  'detection': {
    'width': whole(1, 8192), 'hidden': whole(1, 65_536), 'sides': levels(), 'ratios': row(number(0.01, 100.0), 1, 16),
    'train': row(whole(1, 10_000), 2, 2), 'test': row(whole(1, 10_000), 2, 2), 'region_overlap': SHARE,
    'region_match': span(0.0, 1.0), 'region_sample': sample(), 'box_match': span(0.0, 1.0), 'box_sample': sample(),
    'score': SHARE, 'box_overlap': SHARE, 'detections': whole(1, 10_000)}}
EVALUATE = {
  'run': path(1), 'state': choice(('', 'best', 'last')), 'split': choice(SPLITS), 'workdir': path(),
  'resamples': whole(2, 10**6), 'data': {'dir': path()}}
RECIPE = {'workdir': path(1)}
OBJECTIVES = {'contrast': CONTRAST, 'multitask': MULTITASK, 'evaluate': EVALUATE, 'recipe': RECIPE}
LIMITS = {'batch': 2**20, 'contrast.queue': 2**24, 'contrast.shuffle_groups': 65_536, 'tasks.batch': 65_536}


def find_mistake(config, rules, whole=True):
  """(field, its value or None, its `Rule` or None) of the first field of a config, a dict, that is not there (unless
  not the `whole` of it is needed), has no fields of its own, or cannot hold its value; None where there is none."""
  if 'train' in rules:
    tasks = config.get('tasks')
    if not isinstance(tasks, dict) or not tasks:
      return 'tasks', tasks, None
    rules = rules | {'tasks': {task: CARD | {'head': choose_head(card)} for task, card in tasks.items()}}
  return compare(config, rules, whole, '')


def choose_head(card):
  kind = card.get('kind') if isinstance(card, dict) else None
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


def show(value):
  """A value as Python writes it, cut where it is long."""
  words = ' '.join(repr(value).split())
  return words if len(words) <= SHOWN else f'{words[:SHOWN]}...'
