"""All three stages in one run: stages 1 and 2, then stage 3 and the test scores for each task. Run the same command
again to resume it.

    python -m mtpret_jax.main --config=configs/mtpret.py
    python -m mtpret_jax.main --config=configs/mtpret.py:smoke
    python -m mtpret_jax.main --config=configs/mtpret.py:muscle --config.data.archives=DIR
    python -m mtpret_jax.main --config=configs/mtpret.py:mtpret --config.data.archives=DIR

The fields of `data` and `workdir` are those of all stages. Each stage has the other fields of its own config file,
below `stages`: `--config.stages.pretrain.steps=...`. `--dry_run` prints the images, steps and epochs of every stage and
stops.

`muscle` has MUSCLE's datasets, tasks and (inferred) split rule. Which image is in which split, and most
hyper-parameters, are ours. `mtpret` has those of MTPret as far as they are known: two of its eleven datasets, three of
its seven tasks and both external tasks are assumed. In stage 1 both use every image of a dataset without a task, as
MUSCLE does.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs import common, continual, finetune, presets, pretrain, tasks

DATASETS = ('kermany_pneumonia', 'mura', 'lung_masks', 'tbx11k')  # of the phantom variants: those of MUSCLE's tasks


def get_config(variant: str = 'embedded') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r} of configs/mtpret.py: choose one of {", ".join(VARIANTS)}')
  return VARIANTS[variant]()


def embedded() -> ConfigDict:
  """All stages on phantoms, with ResNet-18; small enough for two CPU cores."""
  stages = {'pretrain': pretrain.get_config(), 'continual': continual.get_config()}
  stages |= {task: finetune.get_config(task) for task in tasks.muscle4}
  # Half as many as stage 1 has on its own, so that all stages together take half an hour.
  stages['pretrain'].steps = 500
  stages['pretrain'].data.datasets = DATASETS
  return join(stages, workdir='runs/mtpret', folder='data/mtpret')


def smoke() -> ConfigDict:
  """A few steps of every stage, to check that everything runs. The scores mean nothing."""
  stages = {'pretrain': pretrain.get_config('smoke'), 'continual': continual.get_config('smoke')}
  stages |= {task: finetune.get_config(f'smoke,{task}') for task in tasks.muscle4}
  stages['pretrain'].data.datasets = DATASETS
  return join(stages, workdir='runs/smoke_mtpret', folder='data/smoke')


def muscle() -> ConfigDict:
  """MUSCLE at full scale: stage 1 on nine datasets, stages 2 and 3 on four tasks, with its (inferred) split rule."""
  return full_scale('muscle', pretrain.get_config('muscle9'), presets.apply_preset(continual.get_config('muscle4')),
                    tasks.muscle4)


def mtpret() -> ConfigDict:
  """MTPret at full scale: stage 1 on eleven datasets (two assumed), stages 2 and 3 on seven tasks (three assumed),
  stage 3 also on two external tasks (assumed), with MUSCLE's (inferred) split rule."""
  return full_scale('mtpret', pretrain.get_config('mtpret11'), presets.apply_preset(continual.get_config('mtpret7')),
                    (*tasks.mtpret7, *tasks.external2))


def full_scale(name: str, first: ConfigDict, second: ConfigDict, names: Sequence[str]) -> ConfigDict:
  """The recipe of stage 1, stage 2, and stage 3 on the tasks `names`."""
  with_task = {task.dataset for task in second.tasks.values()}
  first.data.whole = tuple(dataset for dataset in first.data.datasets if dataset not in with_task)
  stages = {'pretrain': first, 'continual': second} | {
    task: presets.apply_preset(finetune.get_config(f'real,{task}')) for task in names}
  return join(stages, workdir=f'runs/{name}', folder='data/real', archives='archives', split='paper')


def join(stages: dict[str, ConfigDict], **shared: str) -> ConfigDict:
  """Makes each stage start from the one before it, in a folder of its own below `workdir`, with the same data."""
  recipe = make_recipe(stages, **shared)
  recipe.data.phantoms.update(stages['pretrain'].data.phantoms)
  # References, so that a field that is set on the command line holds for every stage.
  for name, stage in recipe.stages.items():
    stage.workdir = recipe.get_oneway_ref('workdir') + f'/{name}'
    for field in ('archives', 'dir', 'split'):
      stage.data[field] = recipe.data.get_oneway_ref(field)
    for field in recipe.data.phantoms:
      stage.data.phantoms[field] = recipe.data.phantoms.get_oneway_ref(field)
    if name != 'pretrain':
      stage.init, earlier = ('md_moco', 'pretrain') if name == 'continual' else ('mtpret', 'continual')
      stage.init_from = recipe.stages[earlier].get_oneway_ref('workdir')
  return recipe


def make_recipe(stages: dict[str, ConfigDict], workdir: str, folder: str, archives: str = '',
                split: str = 'patient') -> ConfigDict:
  return ConfigDict(dict(
    objective='recipe',             # the kind of run; fixed for this file
    workdir=workdir,                # folder of the stages' workdirs
    data=dict(
      archives=archives,            # folder of the downloaded archives; with '' the run renders phantoms
      dir=folder,                   # folder of the prepared datasets
      # rule that assigns images to splits: 'patient', 'paper' (MUSCLE's, inferred) or 'official' (docs/datasets.md)
      split=split,
      phantoms=common.phantoms(),   # the phantom archives, if there are no others
    ),
    stages=ConfigDict(stages, sort_keys=False),   # the config of each stage; they run in this order
  ))


VARIANTS = {'embedded': embedded, 'smoke': smoke, 'muscle': muscle, 'mtpret': mtpret}
