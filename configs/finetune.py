"""Stage 3: the trunk and a new head learn one task. The state with the best validation score is scored once, on the
test split.

    python -m mtpret_jax.main --config=configs/finetune.py:pneumonia
    python -m mtpret_jax.main --config=configs/finetune.py:lung --config.init=mtpret --config.init_from=runs/continual
    python -m mtpret_jax.main --config=configs/finetune.py:real,abnormality --config.data.archives=DIR --config.init=...
    python -m mtpret_jax.main --config=configs/finetune.py:real,knee --config.data.archives=DIR --config.preset=base
    python -m mtpret_jax.main --config=configs/finetune.py:own --config.data.archives=DIR --config.task.dataset=clinic

`real` means real archives, and `preset` how large the run is (configs/presets.py): `small` (ResNet-18 at 64 or 96 px),
`base` (ResNet-18 at 128 or 256 px) or `paper` (ResNet-50 at 224 or 512 px, the default). `own` is a task on a dataset
of your own, whose kind and classes are taken from the data (docs/own-data.md).

Tasks of MUSCLE: pneumonia, abnormality, lung, tuberculosis. Others: bone_age, jaw, knee. External tasks, on datasets
that pretraining must not have seen: findings, fracture, covid.

`--config.train=head` freezes the trunk. `--config.data.fraction=0.1` learns from a tenth of the training patients.
"""

import functools
from typing import Any

from ml_collections import ConfigDict, FieldReference

from configs import continual, presets, tasks

STEPS = {'abnormality': 600, 'bone_age': 600}  # training steps of the tasks that do not use the default, 300


def get_config(variant: str = 'pneumonia') -> ConfigDict:
  *size, task = variant.split(',')
  if size == ['own']:
    raise ValueError(f'configs/finetune.py:{variant} names a dataset: use configs/finetune.py:own with '
                     f'--config.task.dataset={task}')
  if task in SIZES:
    raise ValueError(f'configs/finetune.py:{variant} has no task: name one, such as {variant},pneumonia')
  if size and (size[0] not in SIZES or len(size) > 1):
    raise ValueError(f'unknown variant {size[0]!r} of configs/finetune.py: choose one of {", ".join(SIZES)}')
  if size == ['smoke']:
    return smoke(task)
  if size == ['real'] or task == 'own':
    return presets.choose(functools.partial(real, task), 'small' if task == 'own' else 'paper')
  config = base(task)
  config.tasks = tasks.embedded([task], steps=STEPS.get(task, 300))
  config.validations = config.tasks[task].steps // 50
  return config


def base(task: str) -> ConfigDict:
  """One visit to one task."""
  config = continual.base()
  config.update(name='finetune', workdir=f'runs/finetune/{task}', order='cyclic', rounds=1, resamples=1000)
  config.memory.anchor = 'none'
  config.optimiser.warmup = 0.02
  return config


def smoke(task: str) -> ConfigDict:
  """Four steps, to check that everything runs. The scores mean nothing."""
  config = continual.smoke(base(task))
  config.update(workdir=f'runs/smoke_finetune/{task}', validations=2)
  continual.add_tasks(config, [task], 'small', steps=4)
  return name_workdir(config)


def real(task: str, preset: str = 'paper') -> ConfigDict:
  """One task on real archives. At full scale, the default: ResNet-50 at 224 or 512 px, 50 epochs but at least 500
  steps; it is validated 50 times and ends early after 20 validations in a row without a better score. Smaller with
  `--config.preset`. `own` alone means `real,own` with the preset `small`."""
  config = base(task)
  visit: dict[str, Any] = {
    'small': dict(epochs=30.0, min_steps=100, max_steps=1000),
    'base': dict(epochs=30.0, min_steps=300, max_steps=5000),
    'paper': dict(epochs=50.0, min_steps=500),  # 30 to 50 epochs are assumed (docs/method.md)
  }[preset]
  continual.add_tasks(config, [task], preset, **visit)
  validations, patience = {'small': (10, 0), 'base': (20, 10), 'paper': (50, 20)}[preset]
  config.update(validations=validations, patience=patience)  # 50: once per epoch, unless `min_steps` makes a longer run
  return name_workdir(continual.set_scale(config, preset))


def own() -> ConfigDict:
  """One task on a dataset of your own, which `task.dataset` names, with kind and classes from its labels; the preset is
  `small` unless you set another."""
  return get_config('own')


def name_workdir(config: ConfigDict) -> ConfigDict:
  """The workdir of a task on a dataset of your own has the dataset's name."""
  if 'task' in config:
    names = presets.Choice(add_name, (config.task.get_ref('dataset'), config.task.get_ref('name')))
    config.workdir = FieldReference(config.workdir.removesuffix('own'), op=names)
  return config


def add_name(folder: str, dataset: str, name: str) -> str:
  return folder + (name or dataset or 'own')


SIZES = {'smoke': smoke, 'real': real}
