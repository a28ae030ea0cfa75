"""The whole recipe on embedded data: stages 1, 2 and 3, then the test splits; each stage resumes.

    python -m mtpret_jax.main --config=configs/mtpret.py
    python -m mtpret_jax.main --config=configs/mtpret.py:smoke

One stage by itself is its own config file with the same fields, `--config.stages.pretrain.steps=...`.
"""

from ml_collections import ConfigDict

from configs import continual, finetune, pretrain, tasks

DATASETS = ('kermany_pneumonia', 'mura', 'lung_masks', 'tbx11k')


def get_config(variant=''):
  if variant not in ('', 'smoke'):
    raise ValueError(f'unknown variant {variant!r} of configs/mtpret.py; have smoke')
  make = (lambda module, *names: module.get_config(','.join(('smoke', *names)))) if variant else (
    lambda module, *names: module.get_config(*names))
  root, data = ('runs/smoke_mtpret', 'data/smoke') if variant else ('runs/mtpret', 'data/mtpret')
  stages = {'pretrain': make(pretrain), 'continual': make(continual)}
  stages |= {task: make(finetune, task) for task in tasks.muscle4}
  stages['pretrain'].data.datasets = DATASETS
  stages['pretrain'].steps = min(1200, stages['pretrain'].steps)  # half of its own run's, for the half hour
  stages['continual'].update(init='md_moco', init_from=f'{root}/pretrain')
  for name, stage in stages.items():
    stage.update(workdir=f'{root}/{name}')
    stage.data.update(dir=data, phantoms=stages['pretrain'].data.phantoms)
    if name in tasks.muscle4:
      stage.update(init='mtpret', init_from=f'{root}/continual')
  stages = ConfigDict(stages, sort_keys=False)  # they run in this order
  return ConfigDict(dict(objective='recipe', workdir=root, stages=stages))
