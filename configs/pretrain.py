"""Stage 1, MD-MoCo: one trunk learns from the images of several datasets, without labels.

    python -m mtpret_jax.main --config=configs/pretrain.py
    python -m mtpret_jax.main --config=configs/pretrain.py:smoke
    python -m mtpret_jax.main --config=configs/pretrain.py:real --config.data.archives=DIR
    python -m mtpret_jax.main --config=configs/pretrain.py:muscle9 --config.data.archives=DIR
    python -m mtpret_jax.main --config=configs/pretrain.py:mtpret11 --config.data.archives=DIR

Our sources do not give the hyper-parameters of MD-MoCo. `muscle9` and `mtpret11` use those of MoCo v2
(facebookresearch/moco, `--mlp --aug-plus --cos`), which is inferred (docs/method.md). The default
and `real` have what learned best from few images (`few_images`), which is ours.
"""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from configs import common, presets


def get_config(variant: str = 'embedded') -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r} of configs/pretrain.py: choose one of {", ".join(VARIANTS)}')
  if variant == 'real':
    return presets.choose(real, 'small')
  config = base()
  VARIANTS[variant](config)
  return config


def base() -> ConfigDict:
  return ConfigDict(dict(
    name='pretrain',           # label of the progress bar
    objective='moco',          # the kind of run; fixed for this file
    workdir='runs/pretrain',   # folder of checkpoints, metrics and results; the same command resumes the run in it
    seed=0,                    # seed of the weights, the order of images and the augmentation
    trunk='resnet18',          # 'resnet18', 'resnet34', 'resnet50' or 'densenet121'; MUSCLE: 18 and 50
    dtype='float32',           # type of activations: 'float32' or 'bfloat16'; weights and losses stay float32
    sharding='replicated',     # 'replicated': every device holds the whole state; 'fsdp': each device holds a part
    # pretraining of the initial trunk: 'scratch', 'imagenet', 'moco', 'md_moco', 'muscle--', 'mtpret',
    # 'joint', 'schedule_off', 'memory_off' or 'other'
    init='scratch',
    init_from='',              # a .safetensors or .pth file with torchvision's names, or an earlier run's workdir
    steps=1000,                # optimiser steps; they set the length of the learning-rate schedule
    extend=False,              # True: the run may resume with more `steps` than it was started with
    batch=64,                  # images per step, over all devices; MoCo v2: 256
    save_every=250,            # steps between checkpoints
    log_every=10,              # steps between lines of metrics
    keep=2,                    # number of newest checkpoints to keep while the run trains
    keep_finished=1,           # number of newest checkpoints that a finished run keeps, whatever `keep` is
    save_retries=3,            # number of retries when a checkpoint cannot be written, after 1, 5, 25 s, ...
    # what to do after a step with a NaN or infinite loss or gradient: 'stop' the run, or 'skip' the update
    on_nonfinite='stop',
    max_skips=10,              # largest number of skipped steps in a row; one more stops the run
    moco=dict(
      dim=128,                 # dimensions of the embedding; MoCo v2
      # keys in the queue, at least `batch`; not used with negatives='batch'; MoCo v2: 65,536; shorter here for
      # short runs (assumed)
      queue=512,
      temperature=0.2,         # temperature of the InfoNCE loss; MoCo v2: 0.2
      momentum=0.99,           # momentum of the key encoder; MoCo v2: 0.999; lower here for short runs (assumed)
      group=16,                # images in a batch-norm group
      shuffle_groups=4,        # number of batch-norm groups among which ShuffleBN permutes the keys; at least 2
      # where the negatives come from: 'queue' (MoCo v2), 'batch' (the keys of its other images, as in SimCLR and MoCo
      # v3; there is no queue then) or 'both'
      negatives='queue',
      same_source=False,       # True: a query is compared only with keys of its own dataset; MoCo v2: False
      # True: each view is a query once and a key once, and the loss is the mean of both, at twice the cost (MoCo v3);
      # MoCo v2: False
      symmetric=False,
    ),
    optimiser=dict(
      kind='sgd',              # 'sgd' or 'adamw'; MoCo v2: SGD
      # peak learning rate, from which it falls along half a cosine; MoCo v2: 0.03 at batch 256, not scaled here
      learning_rate=0.03,
      final_learning_rate=0.0,  # learning rate at the end of the cosine; MoCo v2: 0
      momentum=0.9,            # momentum of SGD (MoCo v2: 0.9), or beta1 of AdamW
      weight_decay=1e-4,       # on all weights, batch norm and biases included; MoCo v2
      warmup=0.02,             # share of the run that is linear warm-up; assumed; MoCo v2: none
      # gradients with a larger norm, over all parts together, are scaled down to it; 0: never, as MoCo v2
      clip=0.0,
    ),
    augment=dict(common.moco_v2_augment(32)),
    data=dict(
      # names of datasets, whose order matters when a run resumes; () is every dataset found in `archives`
      datasets=common.embedded,
      # names of datasets of which every image is a training image, whatever `split` says, as MUSCLE uses its unlabelled
      # datasets; nothing can be scored on them afterwards
      whole=(),
      archives='',             # folder of the downloaded archives; with '' the run renders phantoms
      phantoms=common.phantoms(),
      dir='data/phantoms',     # folder of the prepared datasets
      stored_size='256',       # px, longer side of prepared images: '256', '512' or 'original'
      # rule that assigns images to splits: 'patient', 'paper' (MUSCLE's, inferred) or 'official' (docs/datasets.md)
      split='patient',
      size=64,                 # px, side of the images that reach the device; `augment` crops from them
      # names of datasets in which a key shows any image of the query's patient (MICLe, MedAug); in the others it shows
      # the query's image (MoCo v2)
      patient_positives=(),
      # how often each dataset is drawn: 'by_images' (in proportion to its images), 'balanced' (equally), or a number
      # for each, as in '2,1,1,1,1'
      weights='by_images',
      threads=4,               # number of reading threads in each reader process
      # number of reader processes; 0 reads in the main process; several help on hosts with many cores
      workers=0,
      prefetch=8,              # number of batches that each reader process reads in advance
    ),
    probe=dict(
      # steps between probes while the run trains, best a multiple of `save_every`, because each first saves a
      # checkpoint; 0: only at the end
      every=250,
      during=500,              # these probes use at most this many images from each split of each dataset
      images=2000,             # the probe at the end: at most this many images from each split of each dataset
      neighbours=20,           # k of the k-nearest-neighbour probe
      # C of scikit-learn for the linear probe: the inverse of the L2 penalty (smaller regularises more)
      penalty=0.01,
      resamples=200,           # bootstrap resamples of patients, for the 95 % intervals
      fractions=(0.01, 0.1, 1.0),  # shares of the training labels on which the linear model is fitted at the end
      draws=5,                 # random draws of each share below 1; the scores are means over them
      per_class=5,             # a share has at least this many images of each class, where there are as many
    ),
  ))


def embedded(config: ConfigDict) -> None:
  """Five phantom datasets, with ResNet-18 at 32 px; small enough for two CPU cores."""
  few_images(config, 32)


def smoke(config: ConfigDict) -> None:
  """Six steps, to check that everything runs. The scores mean nothing."""
  config.steps, config.batch, config.save_every, config.log_every = 6, 32, 3, 2
  config.workdir = 'runs/smoke'
  config.data.dir = 'data/smoke'
  config.data.phantoms.update(images=64, size=64)  # fewer leave the test split of MURA without an abnormal image
  config.data.size = 40
  config.moco.update(queue=64, group=8)
  config.augment = common.moco_v2_augment(32)
  config.probe.update(every=3, during=48, images=48, neighbours=5, resamples=20, draws=2)


def real(preset: str = 'small') -> ConfigDict:
  """Every archive found in `data.archives`, also of your own datasets: ResNet-18 at 64 px, 4,500 steps, for a small
  machine. Larger with `--config.preset`."""
  config = base()
  if preset == 'paper':
    full_scale(config, 'real', ())
    return config
  few_images(config, {'small': 64, 'base': 128}[preset])
  config.steps, config.save_every, config.probe.every = 4500, 500, 500
  config.workdir = 'runs/real'
  config.data.update(datasets=(), archives='archives', dir='data/real', size={'small': 128, 'base': 256}[preset])
  return config


def few_images(config: ConfigDict, size: int) -> None:
  """What learned best from ten thousand radiographs (docs/experiments.md), on views of `size` px. Not the papers':
  negatives from the batch, both directions of the loss, AdamW, and views without blur."""
  config.moco.update(negatives='batch', symmetric=True, temperature=0.1)
  config.optimiser.update(kind='adamw', learning_rate=1e-3, warmup=0.05)
  config.augment.update(common.moco_v2_augment(size), crop_area=(0.4, 1.0), rotation=10.0, blur=0.0)


def muscle9(config: ConfigDict) -> None:
  """MUSCLE's nine datasets at full scale: ResNet-50 at 224 px, 132,000 steps, with MoCo v2's
  hyper-parameters."""
  full_scale(config, 'muscle9', common.muscle9)


def mtpret11(config: ConfigDict) -> None:
  """MTPret's eleven datasets, two of them assumed, at full scale: ResNet-50 at 224 px, 132,000 steps, with MoCo v2's
  hyper-parameters."""
  full_scale(config, 'mtpret11', common.mtpret11)


def full_scale(config: ConfigDict, name: str, datasets: Sequence[str]) -> None:
  config.workdir = f'runs/{name}'
  config.trunk, config.dtype = 'resnet50', 'bfloat16'
  # 200 epochs (MoCo v2's) of MUSCLE's 169,257 training images. Ours differ, so `--dry_run` prints the epochs.
  config.batch, config.steps = 256, 132_000
  config.save_every, config.log_every, config.keep = 1000, 50, 3
  config.moco.update(queue=65_536, momentum=0.999, group=32, shuffle_groups=8)
  config.optimiser.update(learning_rate=0.03, warmup=0.0075)
  config.augment = common.moco_v2_augment(224)
  config.data.update(datasets=datasets, archives='archives', dir='data/real', stored_size='256', size=256)
  config.data.update(threads=2, workers=8, prefetch=4)
  config.probe.update(every=5000, images=5000, resamples=1000)


VARIANTS: Mapping[str, Callable] = {
  'embedded': embedded, 'smoke': smoke, 'real': real, 'muscle9': muscle9, 'mtpret11': mtpret11}
