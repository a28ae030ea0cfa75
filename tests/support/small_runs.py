"""Real runs that take seconds: a trunk of one block, two phantom datasets, a few steps.

This file is a config file and a command. Everything but the size is as in `mtpret_jax.main`: flags, loop and files.

    python -m tests.support.small_runs --config=tests/support/small_runs.py:pretrain --config.workdir=DIR ...

Tests that train share these configs on purpose. The same config compiles to the same step, and a step is then compiled
once for the whole suite (tests/conftest.py). A change of `steps` changes the compiled learning-rate schedule.
The reliability benchmarks use them too.
"""

from ml_collections import ConfigDict

from configs import common, continual, pretrain, table, tasks

TRUNK = 'one_block'
DATASETS = ('rsna_bone_age', 'kermany_pneumonia')
PHANTOMS = dict(images=24, size=96, seed=0, variation=0.0)
# All of a run or visit is warm-up, and the learning rate rises by this much in each step: a few steps with a full
# learning rate would enlarge the rounding errors that tests compare.
RISE = {'pretrain': 0.03 / 50, 'continual': 1e-3 / 5}


def get_config(stage: str) -> ConfigDict:
  return {'pretrain': make_pretrain, 'continual': make_continual, 'one_task': make_one_task, 'finetune': make_finetune,
          'table': make_table}[stage]()


def make_pretrain() -> ConfigDict:
  """Stage 1, eight steps on two datasets. Its batch norm groups can be shared by up to 8 devices and 4 processes."""
  config = pretrain.get_config('smoke')
  config.update(trunk=TRUNK, steps=8, batch=32, save_every=4, log_every=1)
  config.optimiser.update(learning_rate=8 * RISE['pretrain'], warmup=1.0)
  config.moco.update(group=4, shuffle_groups=2, dim=16, queue=64)
  config.probe.update(every=4, images=8, resamples=2)
  config.data.datasets = DATASETS
  config.data.phantoms = PHANTOMS
  return config


def make_continual(steps: int = 2) -> ConfigDict:
  """Stage 2, two rounds of `steps` steps on each of two tasks."""
  config = continual.get_config('smoke')
  config.update(trunk=TRUNK, rounds=2, save_every=4, log_every=1, resamples=4)
  config.optimiser.update(learning_rate=steps * RISE['continual'], warmup=1.0)
  config.tasks = tasks.embedded(['bone_age', 'pneumonia'], steps=steps)
  for task_config in config.tasks.values():
    task_config.update(size=36, batch=16, group=2)
    task_config.augment = common.labelled_augment(32)
  config.data.datasets = DATASETS
  config.data.phantoms = PHANTOMS
  return config


def make_one_task() -> ConfigDict:
  """Stage 2, two rounds of two steps on one task, which has half of the programs to compile."""
  config = make_continual()
  del config.tasks['pneumonia']
  return config


def make_finetune() -> ConfigDict:
  """Stage 3 on bone age, four steps, validated after two and four."""
  config = make_continual()
  config.update(name='finetune', order='cyclic', rounds=1, validations=2)
  config.memory.anchor = 'none'
  del config.tasks['pneumonia']
  config.tasks.bone_age.steps = 4
  config.optimiser.learning_rate = 4 * RISE['continual']
  return config


def make_table() -> ConfigDict:
  """`configs/table.py:smoke` with a smaller trunk and smaller images. It leaves out the two initialisations that lack
  one part of stage 2 each: 'muscle--' lacks both."""
  config = table.get_config('smoke')
  config.inits = tuple(init for init in table.INITS if init not in ('schedule_off', 'memory_off'))
  first, second, last = config.stages.pretrain, config.stages.continual, config.stages.finetune.pneumonia
  first.update(trunk=TRUNK, steps=2, batch=16)
  first.moco.update(group=4, shuffle_groups=2, dim=16, queue=16)
  first.probe.update(every=0, images=8, resamples=2)
  for stage in (second, last):
    stage.update(trunk=TRUNK, resamples=2)
    for task_config in stage.tasks.values():
      task_config.update(size=36, augment=common.labelled_augment(32))
  return config


def add_trunk() -> None:
  """Makes TRUNK a name that configs may have: ResNet's stem and one block."""
  from mtpret_jax.models.resnet import LAYERS, BasicBlock
  LAYERS[TRUNK] = (BasicBlock, (1, 0, 0, 0))


def main() -> None:
  from mtpret_jax import cli
  from tests.support import plain_reports
  add_trunk()
  plain_reports.obey_environment()
  cli.run()


if __name__ == '__main__':
  main()
