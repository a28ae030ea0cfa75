"""Stage 3: the trunk and a new head learn one task. The state with the best validation score is scored once, on the
test split.

    python -m mtpret_jax.main --config=configs/finetune.py:pneumonia
    python -m mtpret_jax.main --config=configs/finetune.py:lung --config.init=mtpret --config.init_from=runs/continual
    python -m mtpret_jax.main --config=configs/finetune.py:real,abnormality --config.data.archives=DIR --config.init=...

Tasks of MUSCLE: pneumonia, abnormality, lung, tuberculosis. Others: bone_age, jaw, knee. External tasks, on datasets
that pretraining must not have seen: findings, fracture, covid.

`--config.train=head` freezes the trunk. `--config.data.fraction=0.1` learns from a tenth of the training patients.
"""

from ml_collections import ConfigDict

from configs import continual, tasks

STEPS = {'abnormality': 600, 'bone_age': 600}  # training steps of the tasks that do not use the default, 300


def get_config(variant: str = 'pneumonia') -> ConfigDict:
  *size, task = variant.split(',')
  if size and size[0] not in SIZES:
    raise ValueError(f'unknown variant {size[0]!r} of configs/finetune.py: choose one of {", ".join(SIZES)}')
  config = continual.base()
  config.update(name='finetune', workdir=f'runs/finetune/{task}', order='cyclic', rounds=1, resamples=1000)
  config.memory.anchor = 'none'
  config.optimiser.warmup = 0.02
  config.tasks = tasks.embedded([task], steps=STEPS.get(task, 300))
  config.validations = config.tasks[task].steps // 50
  if size:
    SIZES[size[0]](config, task)
  return config


def smoke(config: ConfigDict, task: str) -> None:
  """Four steps, to check that everything runs. The scores mean nothing."""
  continual.smoke(config)
  config.update(workdir=f'runs/smoke_finetune/{task}', validations=2)
  config.tasks = tasks.embedded([task], steps=4)


def real(config: ConfigDict, task: str) -> None:
  """One task on real archives at full scale: ResNet-50 at 224 or 512 px, 50 epochs but at least 500 steps. It is
  validated 50 times and ends early after 20 validations in a row without a better score."""
  continual.full_scale(config, f'finetune/{task}', [task])
  config.update(rounds=1, validations=50, patience=20)  # once per epoch, unless `min_steps` makes the run longer
  config.tasks[task].update(epochs=50.0, min_steps=500)  # 30 to 50 epochs are assumed (docs/method.md)


SIZES = {'smoke': smoke, 'real': real}
