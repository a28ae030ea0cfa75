"""The command that goes on from a finished run, printed in its last line."""

import shlex
from typing import Any

from ml_collections import ConfigDict

from configs import finetune, tasks
from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.runtime.initial_weights import init_name_of
from mtpret_jax.tasks import KINDS
from tfds_builders import build

SHARED = ('trunk', 'data.archives', 'data.dir', 'data.split')  # fields in which both runs have to agree
BASE_VIEW = 128  # px; the views of stage 1 with the preset `base`


def suggest_next(config: ConfigDict) -> str:
  """The command after a run of stage 1, 2 or 3; '' where there is none to suggest."""
  if config.objective not in ('moco', 'multitask'):
    return ''
  if config.objective == 'multitask' and len(config.tasks) == 1:
    return f'python -m mtpret_jax.predict --run={shlex.quote(config.workdir)} IMAGES'
  task, dataset = choose_task(config)
  if not task:
    return ''
  variant, fields = choose_variant(config, task), dict[str, Any]()
  stage = finetune.get_config(variant)
  if 'preset' in stage and (preset := choose_preset(config)) != stage.preset:
    stage.preset = fields['preset'] = preset
  if task == 'own':
    fields['task.dataset'] = dataset
  before, after = flatten(config.to_dict()), flatten(stage.copy_and_resolve_references().to_dict())
  fields |= {field: before[field] for field in SHARED if before[field] != after[field]}
  fields |= {'init': init_name_of(config.to_dict()), 'init_from': config.workdir}
  return ' '.join([f'python -m mtpret_jax.main --config=configs/finetune.py:{variant}',
                   *(f'--config.{field}={shlex.quote(str(value))}' for field, value in fields.items())])


def choose_task(config: ConfigDict) -> tuple[str, str]:
  """A task whose images the run has seen, and its dataset: 'own' with a labelled dataset of the user's, else one of
  `configs/tasks.py`; ('', '') if it has seen neither."""
  own = [('own', dataset) for dataset in config.data.datasets
         if dataset not in build.NAMES and has_labels(dataset, config)]
  known = [(name, task['dataset']) for name, task in tasks.TASKS.items()
           if not task.get('external') and task['dataset'] in config.data.datasets]
  return next(iter([*own, *known]), ('', ''))


def has_labels(dataset: str, config: ConfigDict) -> bool:
  """Whether a prepared dataset has labels of any kind of task."""
  path = build.locate(dataset, config.data.dir, config.data.stored_size)
  about = build.read_metadata(path) if build.is_prepared(path) else {}
  return any(about.get(kind.annotation) for kind in KINDS.values())


def choose_variant(config: ConfigDict, task: str) -> str:
  """The variant of configs/finetune.py with the same images: a smoke run, real archives or phantoms."""
  if config.data.archives:
    return task if task == 'own' else f'real,{task}'
  smoke = f'smoke,{task}'
  return smoke if config.data.dir == finetune.get_config(smoke).data.dir else task


def choose_preset(config: ConfigDict) -> str:
  if config.trunk == 'resnet50':
    return 'paper'
  return 'base' if config.objective == 'moco' and config.augment.size >= BASE_VIEW else 'small'
