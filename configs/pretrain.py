"""Stage 1, MD-MoCo: one trunk learns from the images of all datasets, without labels.

    python -m mtpret_jax.main --config=configs/pretrain.py            embedded phantom radiographs, 2 cores
    python -m mtpret_jax.main --config=configs/pretrain.py:smoke      the same, six steps: shows that it runs
    python -m mtpret_jax.main --config=configs/pretrain.py:real --config.data.archives=DIR
                                                                      every archive found in DIR, still small
    python -m mtpret_jax.main --config=configs/pretrain.py:muscle9 --config.data.archives=DIR
    python -m mtpret_jax.main --config=configs/pretrain.py:mtpret11 --config.data.archives=DIR
                                                                      ResNet-50 at full scale

The full-scale variants have the augmentation, queue, temperature, momentum and optimiser of MoCo v2
(facebookresearch/moco, `--mlp --aug-plus --cos`); that MUSCLE and MTPret use the same is our assumption, their papers
name none. The small ones have a shorter queue, a faster slow encoder and wider crops, see docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant='embedded'):
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r} of configs/pretrain.py; have {", ".join(VARIANTS)}')
  config = embedded()
  VARIANTS[variant](config)
  return config


def embedded():
  """Five phantom archives, ResNet-18 at 32 px."""
  return ConfigDict(dict(
    name='pretrain',
    objective='moco',
    workdir='runs/pretrain',   # checkpoints, metrics, results; the same command resumes what is there
    seed=0,
    trunk='resnet18',
    dtype='float32',           # of the activations; parameters, statistics and losses are always f32
    sharding='replicated',     # the state on every device, or cut over them: 'fsdp'
    init='scratch',            # or imagenet, moco, md_moco, muscle--, mtpret, other
    init_from='',              # a .safetensors file of a torchvision ResNet, or the workdir of a run
    steps=2400,
    batch=64,                  # images, over all devices
    save_every=400,            # steps
    log_every=10,              # steps
    keep=2,                    # checkpoints
    save_retries=3,            # of a checkpoint that could not be written, after 1, 5, 25 s
    on_nonfinite='stop',       # or 'skip': what to do with a step whose loss or gradient is not finite
    max_skips=10,              # in a row; one more stops the run
    moco=dict(
      dim=128,
      queue=512,               # keys, 8 batches; with longer queues short runs went astray, docs/results.md
      temperature=0.2,
      momentum=0.99,           # of the slow encoder; MoCo v2 has 0.999, too slow for 2,400 steps
      group=16,                # images in a batch-norm group
      shuffle_groups=4,        # groups among which keys change place; a block of them lies in one process
      negatives='all',         # or 'same_source': only keys of the query's own dataset
    ),
    optimiser=dict(kind='sgd', learning_rate=0.03, momentum=0.9, weight_decay=1e-4, warmup_steps=50),
    augment=dict(common.moco_v2_augment(32), crop_area=(0.3, 1.0)),  # MoCo v2 has 0.2
    data=dict(
      datasets=common.embedded,
      archives='',             # folder with the downloaded archives; '' is phantoms
      phantoms=common.phantoms(),
      dir='data/phantoms',     # prepared datasets, and the phantom archives themselves
      stored_size='256',            # longer side that is stored, px: 'original', '512' or '256'
      split='patient',          # who is trained on: 'patient', 'paper' or 'official', docs/datasets.md
      size=64,                 # px, side that the host hands to the device
      weights='by_images',     # 'balanced', or a number for each, as in '2,1,1,1,1'
      threads=4,               # that read ahead; sixteen read less than four (docs/benchmarks.md)
      workers=0,               # processes that read ahead, 0 is none; for hosts with many cores
      prefetch=8,                 # batches; with workers, of each of them
    ),
    probe=dict(
      images=2000,             # at most, of each split of each dataset
      neighbours=20,           # k of the k nearest neighbours
      penalty=0.01,            # C of the linear model, 1 / strength of its L2 penalty
      resamples=200,           # of patients, for the intervals
    ),
  ))


def smoke(config):
  config.steps, config.batch, config.save_every, config.log_every = 6, 32, 3, 2
  config.workdir = 'runs/smoke'
  config.data.dir = 'data/smoke'
  config.data.phantoms.update(images=48, size=64)
  config.data.size = 40
  config.moco.update(queue=64, group=8)
  config.augment = common.moco_v2_augment(32)
  config.probe.update(images=48, neighbours=5, resamples=20)


def real(config):
  """Archives of any size on a small machine, at 64 px; () is every archive that is found."""
  config.steps, config.batch = 500, 32
  config.moco.update(queue=256, group=8)
  config.augment.update(common.moco_v2_augment(64), crop_area=(0.3, 1.0))
  config.workdir = 'runs/real'
  config.data.update(datasets=(), archives='archives', dir='data/real', size=128)


def papers_scale(config, name, datasets):
  """ResNet-50 at 224 px, 200 epochs of about 169,000 images in batches of 256."""
  config.workdir = f'runs/{name}'
  config.trunk, config.dtype = 'resnet50', 'bfloat16'
  config.batch, config.steps = 256, 132_000
  config.save_every, config.log_every, config.keep = 1000, 50, 3
  config.moco.update(queue=65_536, momentum=0.999, group=32, shuffle_groups=8)
  config.optimiser.update(learning_rate=0.03, warmup_steps=1000)
  config.augment = common.moco_v2_augment(224)
  config.data.update(datasets=datasets, archives='archives', dir='data/real', stored_size='256', size=256)
  config.data.update(threads=2, workers=8, prefetch=4)
  config.probe.update(images=5000, resamples=1000)


VARIANTS = {
  'embedded': lambda config: None,
  'smoke': smoke,
  'real': real,
  'muscle9': lambda config: papers_scale(config, 'muscle9', common.muscle9),
  'mtpret11': lambda config: papers_scale(config, 'mtpret11', common.mtpret11),
}
