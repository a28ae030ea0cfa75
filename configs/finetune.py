"""Stage 3: the trunk and a fresh head learn one task; the best state by validation is scored on the test split, once.

    python -m mtpret_jax.main --config=configs/finetune.py:pneumonia
    python -m mtpret_jax.main --config=configs/finetune.py:lung --config.init=mtpret --config.init_from=runs/continual
    python -m mtpret_jax.main --config=configs/finetune.py:real,abnormality --config.data.archives=DIR --config.init=...

Tasks: pneumonia, abnormality, lung, tuberculosis (MUSCLE's), bone_age, jaw, knee, and covid, findings (external), the
last five being our assumption. --config.train=head freezes the trunk, --config.data.fraction=0.1 is a tenth of the
training patients. `real,TASK` has the size of the papers' trunk; `smoke,TASK` shows that it runs.
"""

from configs import continual, tasks

STEPS = {'abnormality': 600, 'bone_age': 600}


def get_config(variant='pneumonia'):
  *size, task = variant.split(',')
  config = continual.embedded()
  config.update(name='finetune', workdir=f'runs/finetune/{task}', order='cyclic', rounds=1, resamples=1000)
  config.memory.anchor = 'none'
  config.evaluate_every = 50
  config.tasks = tasks.embedded([task], steps=STEPS.get(task, 300))
  if size:
    if size[0] not in SIZES:
      raise ValueError(f'unknown size {size[0]!r} of configs/finetune.py; have {", ".join(SIZES)}')
    SIZES[size[0]](config, task)
  return config


def smoke(config, task):
  continual.smoke(config)
  config.update(workdir=f'runs/smoke_finetune/{task}', evaluate_every=3)
  config.tasks = tasks.embedded([task], steps=4)


def real(config, task):
  continual.papers_scale(config, f'finetune/{task}', [task])
  config.rounds, config.evaluate_every = 1, 500
  config.tasks[task].steps = 10_000


SIZES = {'smoke': smoke, 'real': real}
