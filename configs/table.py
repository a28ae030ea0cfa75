"""The papers' table: every initialisation is fine-tuned on every task, with every share of the labels and every seed.

    python -m mtpret_jax.main --config=configs/table.py
    python -m mtpret_jax.main --config=configs/table.py:smoke
    python -m mtpret_jax.main --config=configs/table.py:real_small --config.data.archives=DIR
    python -m mtpret_jax.main --config=configs/table.py:muscle --config.data.archives=DIR
    python -m mtpret_jax.main --config=configs/table.py:mtpret --config.data.archives=DIR

Each cell is one fine-tuning run in a folder of its own. The same command skips the cells that are finished and resumes
the others. Several processes or machines may run the same command at the same time, with the same flags and paths; each
cell runs once. Add `--dry_run` to see the number of runs, their steps, time and disk space.

The initialisations:

* `scratch`, `imagenet` (needs `--config.imagenet=FILE.pth`), `moco` (stage 1 on the images of the task's own
  dataset) and `md_moco` (stage 1 on those of all datasets).
* After stage 2, from `md_moco`: `muscle--` (sequential order, no cross-task memory), `mtpret` (reshuffled order and
  memory) and `joint` (all tasks in every step, no memory).
* `schedule_off` is `mtpret` with the sequential order, `memory_off` is `mtpret` without memory.

Stage 2 learns from the same labelled patients as the cell that starts from it. The fields of stages 1, 2 and 3 are
below `stages`: `--config.stages.pretrain.steps=...`, `--config.stages.finetune.knee.optimiser.learning_rate=...`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import common, continual, finetune, presets, pretrain, tasks

INITS = ('scratch', 'imagenet', 'moco', 'md_moco', 'muscle--', 'mtpret', 'joint', 'schedule_off', 'memory_off')


def get_config(variant: str = 'embedded') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r} of configs/table.py: choose one of {", ".join(VARIANTS)}')
  return VARIANTS[variant]()


def smoke() -> ConfigDict:
  """A few steps of every run, one task and half of its labels, to check that everything runs. Most of the time goes
  into compiling each kind of step once. The scores mean nothing."""
  second = continual.get_config('smoke')
  second.tasks = tasks.embedded(('pneumonia', 'bone_age'), steps=2)
  third = finetune.get_config('smoke,pneumonia')
  for task_config in (*second.tasks.values(), third.tasks.pneumonia):
    task_config.update(size=40, augment=common.labelled_augment(32))  # steps of small views compile sooner
  table = make_table(pretrain.get_config('smoke'), second, {'pneumonia': third},
                     workdir='runs/smoke_table', folder='data/smoke')
  table.stages.pretrain.data.datasets = ('kermany_pneumonia', 'rsna_bone_age')
  table.update(fractions=(0.5,), seeds=(1,), min_images=2, resamples=20)
  return table


def embedded() -> ConfigDict:
  """Four tasks on phantoms whose exposures vary, with ResNet-18 at 32 px (masks: 64); small enough for two CPU cores.
  The rates of the trunk were chosen with the seed 100 (docs/experiments.md): use other seeds."""
  whole = dict(size=40, batch=32, group=32)  # one label for the whole image
  own = {'pneumonia': small_task('pneumonia', 32, **whole), 'bone_age': small_task('bone_age', 32, **whole),
         'knee': small_task('knee', 32, **whole), 'lung': small_task('lung', 64, size=74)}
  second = continual.get_config()
  second.tasks = ConfigDict({name: task_config.copy_and_resolve_references() for name, task_config in own.items()},
                            sort_keys=False)
  for task_config in second.tasks.values():
    task_config.steps = 40
  stages = {name: make_finetune(name, task_config) for name, task_config in own.items()}
  stages['lung'].tasks.lung.max_steps = 100
  for stage in (second, *stages.values()):
    stage.trunk_scale = 0.1
  for name in ('bone_age', 'knee', 'lung'):
    stages[name].trunk_scale = 1.0
  first = pretrain.get_config()
  first.data.update(datasets=(*common.embedded, 'lung_masks', 'knee_oa'), size=40)
  table = make_table(first, second, stages, workdir='runs/table', folder='data/phantoms_varied')
  table.data.phantoms.variation = 0.25
  return table


def real_small() -> ConfigDict:
  """Small real radiographs, ResNet-18 at 32 px (masks: 64, boxes: 96): three public archives, and two datasets of your
  own. The settings were chosen by validation scores of the seeds 0 and 100 (docs/experiments.md): use other seeds.

  Expects the archives `kermany_pneumonia`, `knee_oa` and `lung_masks`, and two datasets of your own: `teeth` with
  boxes, and `covid_chest` with the finding `covid` and boxes of lungs, which is external. Images of 128 px are
  enough. Without `teeth`, also set `--config.stages.pretrain.data.datasets`, `--config.tasks` and `--config.inits`
  without those of stage 2, as `benchmarks/claim_on_gpu.sh` does.
  """
  whole = dict(size=40, batch=32, group=32)  # one label for the whole image
  own = {'pneumonia': small_task('pneumonia', 32, **whole),
         # bacteria against viruses, among the cases of pneumonia
         'germ': small_task('pneumonia', 32, findings=('bacteria',), among='pneumonia', **whole),
         'knee': small_task('knee', 32, **whole), 'lung': small_task('lung', 64, size=74),
         'teeth': small_task('tuberculosis', dataset='teeth', objects=40)}
  external = {'covid_other': small_task('covid', 32, dataset='covid_chest', findings=('covid',), **whole),
              'lung_boxes': small_task('tuberculosis', dataset='covid_chest', objects=2, external=True)}
  second = continual.get_config()
  second.tasks = ConfigDict({name: task_config.copy_and_resolve_references() for name, task_config in own.items()},
                            sort_keys=False)
  for task_config in second.tasks.values():
    task_config.update(epochs=1.0, min_steps=20, max_steps=60)
  stages = {name: make_finetune(name, task_config) for name, task_config in (own | external).items()}
  for stage in (second, *stages.values()):
    stage.trunk_scale = 0.1
  for name in ('knee', 'lung'):
    stages[name].trunk_scale = 1.0
  stages['lung'].tasks.lung.max_steps = stages['teeth'].tasks.teeth.max_steps = 100
  first = presets.apply_preset(pretrain.get_config('real'))
  first.augment.size = 32
  first.update(steps=12_000, keep=100, keep_finished=100)  # all checkpoints, for the curve over the epochs of stage 1
  first.probe.update(every=2000, during=1500)
  first.data.update(datasets=('kermany_pneumonia', 'knee_oa', 'lung_masks', 'teeth'), size=40,
                    patient_positives=('kermany_pneumonia',))
  return make_table(first, second, stages, workdir='runs/real_small', folder='data/real_small', archives='archives')


def muscle() -> ConfigDict:
  """MUSCLE at full scale: nine datasets, four tasks, all labels, its (inferred) split rule."""
  return full_scale('muscle', 'muscle9', 'muscle4', tasks.muscle4)


def mtpret() -> ConfigDict:
  """MTPret at full scale: eleven datasets (two assumed), seven tasks (three assumed) and two external ones (assumed),
  all labels, MUSCLE's (inferred) split rule."""
  return full_scale('mtpret', 'mtpret11', 'mtpret7', (*tasks.mtpret7, *tasks.external2))


def full_scale(name: str, first_variant: str, second_variant: str, names: Iterable[str]) -> ConfigDict:
  first, second = pretrain.get_config(first_variant), presets.apply_preset(continual.get_config(second_variant))
  with_task = {task_config.dataset for task_config in second.tasks.values()}
  first.data.whole = tuple(dataset for dataset in first.data.datasets if dataset not in with_task)
  table = make_table(first, second, {
    task: presets.apply_preset(finetune.get_config(f'real,{task}')) for task in names},
                     workdir=f'runs/table_{name}', folder='data/real', archives='archives', split='paper')
  table.fractions = (1.0,)
  return table


def small_task(name: str, view: int = 0, **fields: Any) -> ConfigDict:
  """A task of `configs/tasks.py` in the size for small machines, on another dataset or with other fields. `view`: the
  side of its views, px; 0 leaves it."""
  task_config = tasks.embedded([name], steps=0)[name]
  if view:
    task_config.augment = common.labelled_augment(view)
  task_config.update(fields)
  return task_config


def make_finetune(name: str, task_config: ConfigDict) -> ConfigDict:
  """Stage 3 on a task, in the size for small machines."""
  config = finetune.get_config('pneumonia')
  config.tasks = ConfigDict({name: task_config})
  return limit_steps(config, name)


def limit_steps(config: ConfigDict, name: str) -> ConfigDict:
  """Stage 3 with the number of steps from the number of labels: 30 epochs, but at least 100 and at most 300 steps."""
  config.tasks[name].update(steps=0, epochs=30.0, min_steps=100, max_steps=300)
  config.validations = 6
  return config


def make_table(first: ConfigDict, second: ConfigDict, stages: Mapping[str, ConfigDict], **shared: str) -> ConfigDict:
  """The table of stage 1, stage 2, and stage 3 for each task."""
  table = make_fields(ConfigDict({'pretrain': first, 'continual': second, 'finetune': ConfigDict(
    dict(stages), sort_keys=False)}, sort_keys=False), names=tuple(stages), **shared)
  table.data.phantoms.update(first.data.phantoms)
  # References, so that a field that is set on the command line holds for every stage.
  for stage in (table.stages.pretrain, table.stages.continual, *table.stages.finetune.values()):
    for field in ('archives', 'dir', 'split'):
      stage.data[field] = table.data.get_oneway_ref(field)
    for field in table.data.phantoms:
      stage.data.phantoms[field] = table.data.phantoms.get_oneway_ref(field)
  return table


def make_fields(stages: ConfigDict, names: Sequence[str], workdir: str, folder: str, archives: str = '',
                split: str = 'patient') -> ConfigDict:
  return ConfigDict(dict(
    objective='table',           # the kind of run; fixed for this file
    workdir=workdir,             # folder of all runs and of the report; several processes may share it
    seed=0,                      # seed of stage 1
    # the initialisations (getting-started.md, names of pretrained networks); 'imagenet' is left out unless `imagenet`
    # names a file
    inits=INITS,
    tasks=tuple(names),          # the tasks, some of those in `stages.finetune`
    # shares of the labelled training patients, in stages 2 and 3; validation always has all of its labels
    fractions=(0.01, 0.05, 0.1, 1.0),
    seeds=(1, 2, 3),             # seeds of stages 2 and 3; each also chooses the patients of the shares
    pretrain_once=True,          # True: all seeds share one run of stage 1; False: each seed has its own
    # a share of the labels is left out for a task if it keeps fewer images of a class
    min_images=5,
    imagenet='',                 # a .safetensors or .pth file of the trunk with torchvision's names, for 'imagenet'
    keep_checkpoints=False,      # True: finished cells keep their checkpoints; pretraining runs always do
    resamples=1000,              # bootstrap resamples of patients and seeds, for differences in score
    images_per_second=dict(      # for the hours of `--dry_run`; 0: measured on the runs that are finished
      pretrain=0.0,              # images/s in stage 1
      continual=0.0,             # images/s in stage 2
      finetune=0.0,              # images/s in stage 3
    ),
    data=dict(
      archives=archives,         # folder of the downloaded archives; with '' the table renders phantoms
      dir=folder,                # folder of the prepared datasets
      # rule that assigns images to splits: 'patient', 'paper' (MUSCLE's, inferred) or 'official' (docs/datasets.md)
      split=split,
      phantoms=common.phantoms(),   # the phantom archives, if there are no others
    ),
    stages=stages,               # the configs of stage 1, stage 2, and of stage 3 for each task
  ))


VARIANTS = {'smoke': smoke, 'embedded': embedded, 'real_small': real_small, 'muscle': muscle, 'mtpret': mtpret}
