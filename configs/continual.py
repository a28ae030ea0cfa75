"""Stage 2, multitask continual learning: one trunk visits one task after another. A visit is a number of steps on one
task; a round visits every task once. Cross-task memory pulls the trunk toward the weights that it had before the visit.

    python -m mtpret_jax.main --config=configs/continual.py --config.init=md_moco --config.init_from=runs/pretrain
    python -m mtpret_jax.main --config=configs/continual.py:smoke
    python -m mtpret_jax.main --config=configs/continual.py:muscle4 --config.data.archives=DIR --config.init=...
    python -m mtpret_jax.main --config=configs/continual.py:mtpret7 --config.data.archives=DIR --config.init=...
    python -m mtpret_jax.main --config=configs/continual.py:pneumonia,lung
    python -m mtpret_jax.main --config=configs/continual.py:real,pneumonia,own --config.data.archives=DIR \
      --config.task.dataset=clinic --config.preset=small

A list of tasks chooses which ones are visited: on phantoms, or with `real` on archives. `own` is a dataset of your own.

MUSCLE-- is the ablation of MUSCLE without its schedule and its memory. For it, add
`--config.order=sequential --config.memory.anchor=none`.

Ten rounds, an epoch per visit, an order that is reshuffled each round and a cosine learning-rate schedule per visit are
recalled, not verified. That the memory is L2-SP is inferred, its anchor is recalled, and its strength is ours.
docs/method.md explains these words.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import common, presets, tasks

SIZES = ('smoke', 'real')
LISTS = {'muscle4': tasks.muscle4, 'mtpret7': tasks.mtpret7}
OWN = re.compile(r'own\d?')  # a task on a dataset of your own


def get_config(variant: str = 'embedded') -> ConfigDict:
  if variant in VARIANTS and variant not in LISTS:
    config = base()
    VARIANTS[variant](config)
    return config
  words = variant.split(',')
  size = words.pop(0) if words[0] in SIZES else ''
  names = list(dict.fromkeys(name for word in words for name in LISTS.get(word, (word,))))
  unknown = [name for name in names if name not in tasks.TASKS and not OWN.fullmatch(name)]
  if unknown and len(words) > 1:
    raise ValueError(f'unknown task {unknown[0]!r}: choose one of {", ".join(tasks.TASKS)}, own')
  if unknown or not names:
    raise ValueError(f'unknown variant {variant!r} of configs/continual.py: choose one of {", ".join(VARIANTS)}, or a '
                     f'list of tasks, such as pneumonia,lung or real,pneumonia,own; the tasks are '
                     f'{", ".join(tasks.TASKS)} and own')
  if size == 'smoke':
    return smoke(base(), names)
  workdir = f'runs/{variant}' if variant in LISTS else f'runs/continual_{"_".join(words)}'
  if size == 'real' or any(word in LISTS or OWN.fullmatch(word) for word in words):
    default = 'small' if any(map(OWN.fullmatch, names)) else 'paper'
    return presets.choose(functools.partial(real, names, workdir), default)
  config = base()
  config.workdir = workdir
  config.tasks = tasks.embedded(names, steps=40)  # `update` would add them to those of MUSCLE
  return config


def base() -> ConfigDict:
  return ConfigDict(dict(
    name='continual',          # label of the progress bar
    objective='multitask',     # the kind of run; fixed for this file
    workdir='runs/continual',  # folder of checkpoints, metrics and results; the same command resumes the run in it
    seed=0,                    # seed of the weights, the order of images and tasks, and the augmentation
    trunk='resnet18',          # 'resnet18', 'resnet34', 'resnet50' or 'densenet121'; MUSCLE: 18 and 50
    dtype='float32',           # type of activations: 'float32' or 'bfloat16'; weights and losses stay float32
    sharding='replicated',     # 'replicated': every device holds the whole state; 'fsdp': each device holds a part
    # pretraining of the initial trunk: 'scratch', 'imagenet', 'moco', 'md_moco', 'muscle--', 'mtpret',
    # 'joint', 'schedule_off', 'memory_off' or 'other'
    init='scratch',
    init_from='',              # a .safetensors or .pth file with torchvision's names, or an earlier run's workdir
    train='all',               # 'all' or 'head'; 'head' freezes the trunk
    # learning rate of a pretrained trunk, as a share of the heads'; random weights learn at the full rate; assumed
    trunk_scale=1.0,
    tasks=tasks.embedded(tasks.muscle4, steps=40),
    # order of the visits: 'cyclic_reshuffled' (a new random order in each round; MUSCLE's schedule, details recalled),
    # 'cyclic' (the listed order in each round), 'sequential' (all visits to a task in a row) or 'joint' (all tasks in
    # every step)
    order='cyclic_reshuffled',
    rounds=3,                  # visits to each task; recalled: about 10
    # True: the run may resume with more rounds than it was started with (not in the order 'sequential'), or, with one
    # task and one round, with a longer visit
    extend=False,
    memory=dict(
      # the weights that the trunk is pulled toward: those after the 'previous_visit', those at the 'start' of the run,
      # or 'none'; L2-SP inferred, this anchor recalled
      anchor='previous_visit',
      # strength of the pull, alpha of L2-SP; ours, chosen on real pneumonia and knees (docs/method.md)
      l2_sp=0.3,
    ),
    statistics='per_task',     # running statistics of the trunk's batch norm: 'per_task' or 'shared'; assumed
    optimiser=dict(
      kind='adamw',            # 'sgd' or 'adamw'; assumed
      # peak learning rate in each visit, from which it falls along half a cosine; value assumed, cosine recalled
      learning_rate=1e-3,
      final_learning_rate=0.0,  # learning rate at the end of each visit's cosine; value assumed
      momentum=0.9,            # momentum of SGD, or beta1 of AdamW; assumed
      weight_decay=1e-4,       # on all weights, batch norm and biases included; assumed
      warmup=0.125,            # share of each visit that is linear warm-up, rounded to steps; assumed
      # gradients with a larger norm, over all parts together, are scaled down to it; 0: never; assumed
      clip=0.0,
      # averaged weights (EMA): the share of the average that each step keeps, such as 0.999; validation and scores use
      # the average; 0: the weights of the last step, no average
      ema=0.0,
    ),
    validations=1,             # number of validations in each round, at equal distances; the last is at its end
    # one task: the run ends after this many validations in a row without a better score; 0: it takes all its steps
    patience=0,
    # stage 3: how the threshold of each finding is chosen on validation: 'youden' (the largest sensitivity +
    # specificity), or a sensitivity to reach, such as '0.95'; boxes always get the threshold with the best F1
    operating_point='youden',
    # stage 3, classification: True divides the logits by a temperature that is fitted on validation (docs/scores.md)
    temperature=False,
    # True: a prediction is the mean of those of the image and its mirror image, at twice the cost; boxes are fused
    flips=False,
    resamples=200,             # bootstrap resamples of patients, for the 95 % intervals
    save_every=100,            # steps between checkpoints
    log_every=10,              # steps between lines of metrics
    keep=2,                    # number of newest checkpoints to keep while the run trains
    keep_finished=1,           # number of newest checkpoints that a finished run keeps, whatever `keep` is
    save_retries=3,            # number of retries when a checkpoint cannot be written, after 1, 5, 25 s, ...
    # what to do after a step with a NaN or infinite loss or gradient: 'stop' the run, or 'skip' the update
    on_nonfinite='stop',
    max_skips=10,              # largest number of skipped steps in a row; one more stops the run
    data=dict(
      datasets=(),             # leave empty: the run fills in the datasets of its tasks
      archives='',             # folder of the downloaded archives; with '' the run renders phantoms
      phantoms=common.phantoms(),
      dir='data/phantoms',     # folder of the prepared datasets
      stored_size='256',       # px, longer side of prepared images: '256', '512' or 'original'
      # rule that assigns images to splits: 'patient', 'paper' (MUSCLE's, inferred) or 'official' (docs/datasets.md)
      split='patient',
      # share of the training patients to use, the same of each stratum of labels; the patients of a smaller share are a
      # subset of those of a larger one
      fraction=1.0,
      fraction_seed=0,         # seed of the choice of these patients; runs with the same seed learn from the same ones
      threads=4,               # number of reading threads in each reader process
      # number of reader processes; 0 reads in the main process; several help on hosts with many cores
      workers=0,
      prefetch=8,              # number of batches that each reader process reads in advance
    ),
  ))


def embedded(config: ConfigDict) -> None:
  """MUSCLE's four tasks on phantoms, with ResNet-18 at 64 and 96 px; small enough for two CPU cores."""


def smoke(config: ConfigDict, names: Sequence[str] = tasks.muscle4) -> ConfigDict:
  """One round of two steps per task, to check that everything runs. The scores mean nothing."""
  config.workdir, config.rounds, config.log_every, config.resamples = 'runs/smoke_continual', 1, 2, 10
  config.data.dir = 'data/smoke'
  config.data.phantoms.update(images=64, size=64)  # fewer leave the test split of MURA without an abnormal image
  add_tasks(config, names, 'small', steps=2)
  return config


def muscle4() -> ConfigDict:
  """MUSCLE's four tasks on real archives: at full scale ResNet-50 at 224 and 512 px, ten rounds of an epoch per task,
  at least 20 steps; smaller with `--config.preset`."""
  return get_config('muscle4')


def mtpret7() -> ConfigDict:
  """Seven tasks, three of them assumed, on real archives; otherwise like `muscle4`."""
  return get_config('mtpret7')


def real(names: Sequence[str], workdir: str, preset: str) -> ConfigDict:
  """The tasks `names` on real archives."""
  config = base()
  config.workdir = workdir
  # One epoch is recalled. At least 20 steps is ours: an epoch of the jaws has two, which teach nothing. The most steps
  # and the rounds of smaller runs are ours too.
  add_tasks(config, names, preset, epochs=1.0, min_steps=20, max_steps={'small': 60, 'base': 300, 'paper': 0}[preset])
  config.rounds = {'small': 3, 'base': 5, 'paper': 10}[preset]
  return set_scale(config, preset)


def set_scale(config: ConfigDict, preset: str) -> ConfigDict:
  """Real archives, and the trunk, optimiser and readers of a preset."""
  config.resamples = 1000
  config.data.update(archives='archives', dir='data/real', stored_size='256' if preset == 'small' else '512')
  if preset == 'paper':
    config.update(trunk='resnet50', dtype='bfloat16', save_every=500)
    config.optimiser.update(kind='sgd', learning_rate=0.01)
    config.data.update(threads=2, workers=8, prefetch=4)
  return config


def add_tasks(config: ConfigDict, names: Sequence[str], preset: str, **visit: Any) -> None:
  """Sets the tasks; `visit`: the fields that set the length of a visit. `own` becomes the section `task`, `own2` the
  section `task2` and so on, which are for datasets of your own."""
  own = [name for name in names if OWN.fullmatch(name)]
  config.tasks = tasks.real([name for name in names if name not in own], preset, **visit)
  for name in own:
    config[name.replace('own', 'task')] = tasks.own(preset, **visit)
  if own:  # there are no phantoms of it
    config.data.update(archives='archives', dir='data/real')


VARIANTS: Mapping[str, Callable] = {'embedded': embedded, 'smoke': smoke, 'muscle4': muscle4, 'mtpret7': mtpret7}
