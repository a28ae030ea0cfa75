"""Stage 2, multitask continual learning: one trunk visits task after task, round by round, with a memory.

    python -m mtpret_jax.main --config=configs/continual.py --config.init=md_moco --config.init_from=runs/pretrain
    python -m mtpret_jax.main --config=configs/continual.py:smoke
    python -m mtpret_jax.main --config=configs/continual.py:muscle4 --config.data.archives=DIR --config.init=...
    python -m mtpret_jax.main --config=configs/continual.py:mtpret7 --config.data.archives=DIR --config.init=...

MUSCLE-- is --config.order=sequential --config.memory.anchor=none. Ten rounds of an epoch a visit, a cosine rate a visit
and the memory's form are known by recollection or inference; the strength is our choice.
"""

from ml_collections import ConfigDict

from configs import common, tasks


def get_config(variant='embedded'):
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r} of configs/continual.py; have {", ".join(VARIANTS)}')
  config = embedded()
  VARIANTS[variant](config)
  return config


def embedded():
  """The four tasks of MUSCLE on phantoms."""
  return ConfigDict(dict(
    name='continual',
    objective='multitask',
    workdir='runs/continual',
    seed=0,
    trunk='resnet18',
    dtype='float32',
    sharding='replicated',     # the state on every device, or cut over them: 'fsdp'
    init='scratch',            # or imagenet, moco, md_moco, muscle--, mtpret, other
    init_from='',              # a .safetensors file, or the workdir of a run
    train='all',               # or 'head': the trunk is frozen
    tasks=tasks.embedded(tasks.muscle4, steps=40),
    order='cyclic_reshuffled',  # or cyclic, sequential, joint
    rounds=3,
    memory=dict(
      anchor='previous_visit',  # or 'start', 'none'
      l2_sp=0.01,           # of the pull, alpha
    ),
    statistics='per_task',     # or 'shared': running statistics of the trunk
    optimiser=dict(kind='adamw', learning_rate=1e-3, momentum=0.9, weight_decay=1e-4, warmup_steps=5),
    evaluate_every=0,          # steps; 0 is after every round
    resamples=200,             # of patients, for the intervals
    save_every=100,            # steps
    log_every=10,              # steps
    keep=2,                    # checkpoints
    save_retries=3,            # of a checkpoint that could not be written, after 1, 5, 25 s
    on_nonfinite='stop',       # or 'skip': what to do with a step whose loss or gradient is not finite
    max_skips=10,              # in a row; one more stops the run
    data=dict(
      datasets=(),             # filled in: those of the tasks
      archives='',             # folder with the downloaded archives; '' is phantoms
      phantoms=common.phantoms(),
      dir='data/phantoms',
      stored_size='256',
      split='patient',          # who is in which split, or 'paper', 'official'
      fraction=1.0,            # of the training patients
      threads=4,
      workers=0,
      prefetch=8,
    ),
  ))


def smoke(config):
  config.workdir, config.rounds, config.log_every, config.resamples = 'runs/smoke_continual', 1, 2, 10
  config.tasks = tasks.embedded(tasks.muscle4, steps=2)
  config.data.dir = 'data/smoke'
  config.data.phantoms.update(images=48, size=64)


def papers_scale(config, name, names):
  config.workdir, config.trunk, config.dtype = f'runs/{name}', 'resnet50', 'bfloat16'
  config.tasks = tasks.papers_scale(names, steps=0)
  config.rounds, config.resamples, config.save_every = 10, 1000, 500
  config.optimiser.update(kind='sgd', learning_rate=0.01)
  config.data.update(archives='archives', dir='data/real', stored_size='512', threads=2, workers=8, prefetch=4)


VARIANTS = {
  'embedded': lambda config: None,
  'smoke': smoke,
  'muscle4': lambda config: papers_scale(config, 'muscle4', tasks.muscle4),
  'mtpret7': lambda config: papers_scale(config, 'mtpret7', tasks.mtpret7),
}
