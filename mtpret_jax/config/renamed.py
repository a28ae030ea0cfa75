"""Config fields that had another name in earlier versions.

Imports nothing slow, so that the command line can report them at once.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mtpret_jax.config.errors import ConfigError

# Old field -> new field; None if it was removed. `*` stands for the name of a task.
RENAMED = {
  'optimiser.rate': 'optimiser.learning_rate',
  'optimiser.warmup_steps': 'optimiser.warmup',
  'evaluate_every': 'validations',
  'data.ahead': 'data.prefetch',
  'data.stored': 'data.stored_size',
  'data.rule': 'data.split',
  'memory.strength': 'memory.l2_sp',
  'contrast': 'moco',
  'on_bad': 'on_nonfinite',
  'skips': 'max_skips',
  'spike': None,
  'spike_window': None,
  'tasks.*.augment.box_left': 'tasks.*.augment.min_visibility',
  'tasks.*.head.rates': 'tasks.*.head.dilations',
  'tasks.*.head.sides': 'tasks.*.head.anchor_sizes',
  'tasks.*.head.ratios': 'tasks.*.head.aspect_ratios',
  'tasks.*.head.hidden': 'tasks.*.head.roi_hidden',
  'tasks.*.head.train': 'tasks.*.head.rpn_proposals_train',
  'tasks.*.head.test': 'tasks.*.head.rpn_proposals_test',
  'tasks.*.head.region_overlap': 'tasks.*.head.rpn_nms_iou',
  'tasks.*.head.region_match': 'tasks.*.head.rpn_match_iou',
  'tasks.*.head.region_sample': 'tasks.*.head.rpn_sample',
  'tasks.*.head.box_match': 'tasks.*.head.roi_match_iou',
  'tasks.*.head.box_sample': 'tasks.*.head.roi_sample',
  'tasks.*.head.score': 'tasks.*.head.min_score',
  'tasks.*.head.box_overlap': 'tasks.*.head.roi_nms_iou',
  'tasks.*.head.detections': 'tasks.*.head.max_detections',
}

# New field -> its unit, where that has changed as well.
UNITS = {
  'optimiser.warmup': 'a share (0 to 1) of the run in stage 1, and of each visit later, instead of steps',
  'validations': 'the number of validations in each round instead of the steps between them',
}

# Pattern of a field -> {its value in earlier versions, as text: its present value}
CHANGED_VALUES = {
  r'(.*\.)?objective': {'contrast': 'moco'},
  r'(stages\.[^.]+\.)?tasks\.[^.]+\.negatives': {'False': 'never', 'True': 'always'},
  r'(stages\.[^.]+\.)?moco\.negatives': {'all': 'queue', 'same_source': 'queue'},
}

# Value in earlier versions -> what to set beside the present value.
BESIDE = {'same_source': 'moco.same_source=True'}


def describe_new_name(field: str) -> str:
  """A new field, with its unit if that has changed."""
  unit = UNITS.get(re.sub(r'^stages\.[^.]+\.', '', field))
  return f'{field}, {unit}' if unit else field


def describe_new_value(field: str, value: object) -> str | None:
  """What to set in place of a value of earlier versions, as 'field=value'; None if the value is not one of these."""
  new = next((values.get(str(value)) for pattern, values in CHANGED_VALUES.items() if re.fullmatch(pattern, field)),
             None)
  if new is None:
    return None
  stage = ''.join(re.findall(r'^stages\.[^.]+\.', field))
  return f'{field}={new!r}' + (f' with {stage}{BESIDE[str(value)]}' if str(value) in BESIDE else '')


def new_name(field: str) -> str | None:
  """The present name of a dotted field of an earlier version: '' if it was removed, None if it is not an old name. The
  field may be in a stage of a recipe, 'stages.NAME.FIELD'."""
  stage = ''.join(re.findall(r'^stages\.[^.]+\.', field))
  for old, new in RENAMED.items():
    pattern = re.escape(old).replace(r'\*', r'(?P<task>[^.]+)')
    if match := re.match(rf'{pattern}(?=\.|$)', field[len(stage):]):
      if new is None:
        return ''
      return stage + new.replace('*', match.groupdict().get('task', '')) + field[len(stage) + match.end():]
  return None


def check_renamed(config: Mapping[str, Any]) -> None:
  """Raises ConfigError for a field or value that has another name now, or was removed. Configs may be nested."""
  for field, value in walk_fields(config):
    new = new_name(field)
    if new == '':
      raise ConfigError(f'{field} no longer exists: remove it')
    if new is not None:
      raise ConfigError(f'{field} is now {describe_new_name(new)}: rename it')
    if (now := describe_new_value(field, value)) is not None:
      raise ConfigError(f'{field}={value!r} is now {now}: rename it')


def walk_fields(fields: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """(dotted field, value) of a config and of all configs in it; a section comes before its fields."""
  for key, value in fields.items():
    yield f'{prefix}{key}', value
    if isinstance(value, Mapping):
      yield from walk_fields(value, f'{prefix}{key}.')
