"""Real runs that take seconds: the command line of mtpret_jax with a trunk of one block, on a few phantoms.

    python -m benchmarks.support.tiny --config=benchmarks/support/tiny.py:pretrain --config.workdir=DIR ...

Everything but the size is as in `mtpret_jax.main`: its flags, its loop, its files.
"""

from configs import common, continual, pretrain, tasks


def get_config(stage):
  return {'pretrain': make_pretrain, 'continual': make_continual, 'finetune': make_finetune}[stage]()


def make_pretrain():
  """Stage 1, eight steps on two datasets; groups of 4 for up to 8 devices, blocks of them for up to 4 processes."""
  config = pretrain.get_config('smoke')
  config.update(trunk='one_block', steps=8, batch=32, save_every=4, log_every=1)
  config.moco.update(group=4, shuffle_groups=2, dim=16, queue=64)
  config.data.datasets = ('rsna_bone_age', 'kermany_pneumonia')
  config.data.phantoms = phantoms()
  return config


def make_continual():
  """Stage 2, two rounds of two steps on each of two tasks."""
  config = continual.get_config('smoke')
  config.update(trunk='one_block', rounds=2, save_every=4, log_every=1, resamples=4)
  config.tasks = tasks.embedded(['bone_age', 'pneumonia'], steps=2)
  for task_config in config.tasks.values():
    task_config.update(size=36, batch=16, group=2)
    task_config.augment = common.labelled_augment(32)
  config.data.phantoms = phantoms()
  return config


def make_finetune():
  """Stage 3 on bone age, four steps, validated after two and four."""
  config = make_continual()
  config.update(name='finetune', order='cyclic', rounds=1, evaluate_every=2)
  config.memory.anchor = 'none'
  del config.tasks['pneumonia']
  config.tasks.bone_age.steps = 4
  return config


def phantoms():
  return dict(images=24, size=96, seed=0)


def add_trunk():
  from mtpret_jax.models.resnet import LAYERS, BasicBlock
  LAYERS['one_block'] = (BasicBlock, (1, 0, 0, 0))


if __name__ == '__main__':

  from mtpret_jax import cli
  add_trunk()
  cli.run()
