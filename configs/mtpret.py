"""All three stages in one run, on phantom data: stages 1 and 2, then stage 3 and the test scores for each of MUSCLE's
four tasks. Run the same command again to resume it.

    python -m mtpret_jax.main --config=configs/mtpret.py
    python -m mtpret_jax.main --config=configs/mtpret.py:smoke

Each stage has the fields of its own config file, below `stages`: `--config.stages.pretrain.steps=...`.
"""

from ml_collections import ConfigDict

from configs import continual, finetune, pretrain, tasks

DATASETS = ('kermany_pneumonia', 'mura', 'lung_masks', 'tbx11k')


def get_config(variant: str = 'embedded') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r} of configs/mtpret.py: choose one of {", ".join(VARIANTS)}')
  return VARIANTS[variant]()


def embedded() -> ConfigDict:
  """All stages on phantoms, with ResNet-18; small enough for two CPU cores."""
  stages = {'pretrain': pretrain.get_config(), 'continual': continual.get_config()}
  stages |= {task: finetune.get_config(task) for task in tasks.muscle4}
  # Half as many as stage 1 has on its own, so that all stages together take half an hour.
  stages['pretrain'].steps = 1200
  return join(stages, 'runs/mtpret', 'data/mtpret')


def smoke() -> ConfigDict:
  """A few steps of every stage, to check that everything runs. The scores mean nothing."""
  stages = {'pretrain': pretrain.get_config('smoke'), 'continual': continual.get_config('smoke')}
  stages |= {task: finetune.get_config(f'smoke,{task}') for task in tasks.muscle4}
  return join(stages, 'runs/smoke_mtpret', 'data/smoke')


def join(stages: dict[str, ConfigDict], workdir: str, data: str) -> ConfigDict:
  """Makes each stage start from the one before it and share the prepared data in the folder `data`."""
  stages['pretrain'].data.datasets = DATASETS
  stages['continual'].update(init='md_moco', init_from=f'{workdir}/pretrain')
  for name, stage in stages.items():
    stage.update(workdir=f'{workdir}/{name}')
    stage.data.update(dir=data, phantoms=stages['pretrain'].data.phantoms)
    if name in tasks.muscle4:
      stage.update(init='mtpret', init_from=f'{workdir}/continual')
  return ConfigDict(dict(
    objective='recipe',                           # the kind of run; fixed for this file
    workdir=workdir,                              # folder of the stages' workdirs
    stages=ConfigDict(stages, sort_keys=False),   # the config of each stage; they run in this order
  ))


VARIANTS = {'embedded': embedded, 'smoke': smoke}
