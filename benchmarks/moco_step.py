"""One MoCo step of ours beside the same step in PyTorch, compared as `support/side_by_side.py` describes.

    python -m benchmarks.moco_step --model=resnet18 --size=128 --batch=32

Timed after warming up:

  ours     the compiled step of stage 1: takes uint8 images, makes random views, runs two encoders, queue and SGD. On a
           CPU each core is a device if the views are large enough (`stages.MIN_VIEW_ON_CORES`) and the batch-norm
           groups can be shared out evenly
  PyTorch  `tests/reference/moco_torch.py`: two encoders, queue, SGD. It gets finished views, float32 and standardised

So PyTorch does less: no augmentation, and batch norm over the whole batch instead of groups. Without PyTorch and
torchvision (benchmarks/requirements.txt) only our side runs.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from benchmarks.support import side_by_side

DIM, TEMPERATURE, MOMENTUM, LEARNING_RATE, WEIGHT_DECAY = 128, 0.2, 0.999, 0.03, 1e-4


def make_parser(description: str, steps: int = 3) -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', choices=('resnet18', 'resnet50'), default='resnet18')
  parser.add_argument('--size', type=int, default=128, help='px, side of a view')
  parser.add_argument('--batch', type=int, default=32, help='images')
  parser.add_argument('--groups', type=int, default=2, help='batch-norm groups in our batch, at least 2')
  parser.add_argument('--queue', type=int, default=4096, help='keys; a multiple of the batch')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='of the activations')
  parser.add_argument('--torch_compile', action='store_true', help='PyTorch compiles its encoders')
  parser.add_argument('--layout', choices=('channels_last', 'contiguous'), default='channels_last', help="PyTorch's")
  side_by_side.add_options(parser, steps)
  side_by_side.add_profile(parser)
  return parser


def make_config(options: argparse.Namespace) -> ConfigDict:
  from configs.common import moco_v2_augment
  return ConfigDict(dict(
    seed=0, batch=options.batch, trunk=options.model, dtype=options.dtype, augment=moco_v2_augment(options.size),
    moco=dict(dim=DIM, queue=options.queue, temperature=TEMPERATURE, momentum=MOMENTUM,
                  group=options.batch // options.groups, shuffle_groups=options.groups, negatives='queue',
                  same_source=False, symmetric=False),
    optimiser=dict(kind='sgd', momentum=0.9, weight_decay=WEIGHT_DECAY),
    data=dict(weights='by_images', patient_positives=(), size=image_size(options))))


def image_size(options: argparse.Namespace) -> int:
  """Side in px of the images that the step gets; larger than the views, as in training."""
  return options.size * 5 // 4


def make_our_training(config: ConfigDict) -> tuple[Callable[[dict], dict], str]:
  """(train, description). train(batch) dispatches a step and returns its measures without waiting for them."""
  import jax
  import jax.numpy as jnp

  from mtpret_jax.objectives.moco import make_moco
  from mtpret_jax.runtime import backend
  from mtpret_jax.runtime.sharding import make_mesh, place_batch
  from mtpret_jax.stages.checks import MIN_VIEW_ON_CORES
  from mtpret_jax.step import compile_step, init_state, make_optimiser
  groups = config.batch // config.moco.group
  if backend.is_cpu():
    from mtpret_jax import cpu
    cpu.install(lambda count: config.augment.size >= MIN_VIEW_ON_CORES and groups % count == 0)
  mesh, objective, optimiser = make_mesh(), make_moco(config), make_optimiser(config.optimiser)
  state = init_state(objective, optimiser, mesh, config.seed)
  step = compile_step(objective, optimiser, lambda step: jnp.float32(LEARNING_RATE), 'moco', mesh, seed=config.seed)

  def train(batch):
    nonlocal state
    state, measures = step(state, place_batch(batch, mesh))
    return measures
  return train, f'jax {jax.__version__} on {jax.device_count()} {jax.devices()[0].platform} device(s)'


def make_our_steps(options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  import jax
  import numpy as np
  train, description = make_our_training(make_config(options))
  shape = (options.batch, image_size(options), image_size(options), 1)
  images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  batch = {'query': images, 'key': images, 'source': np.zeros(options.batch, np.int32)}

  def take_steps(count):
    for _ in range(count):
      jax.block_until_ready(train(batch))
  return take_steps, description


def make_torch_training(options: argparse.Namespace) -> tuple[Callable, Callable[[Any], Any], str]:
  """(train, place, description). train(queries, keys) takes a step and returns its loss without waiting for it;
  place(images) moves images to the device."""
  import torch
  import torch.nn.functional as F

  from tests.reference.moco_torch import MoCo

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  layout = torch.channels_last if options.layout == 'channels_last' else torch.contiguous_format
  torch.manual_seed(0)
  moco = MoCo(options.model, dim=DIM, queue_KD=F.normalize(torch.randn(options.queue, DIM), dim=1), momentum=MOMENTUM,
              temperature=TEMPERATURE, chunks=1, rate=LEARNING_RATE, sgd_momentum=0.9,
              decay=WEIGHT_DECAY, device=device)
  for encoder in (moco.query_encoder, moco.key_encoder):
    encoder.to(memory_format=layout)
    if options.torch_compile:
      encoder.compile()
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')  # TF32 on GPUs, as XLA has it
  order = torch.arange(options.batch, device=device)

  def place(images):
    return images.to(device, non_blocking=True).to(memory_format=layout)

  def train(queries, keys):
    with torch.autocast(device, torch.bfloat16, enabled=options.dtype == 'bfloat16'):
      return moco.step(queries, keys, order)
  return train, place, f'torch {torch.__version__} on {device}, {torch.get_num_threads()} threads, {options.layout}'


def make_torch_steps(options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  import torch
  train, place, description = make_torch_training(options)
  queries, keys = (place(torch.randn(options.batch, 1, options.size, options.size)) for _ in range(2))

  def take_steps(count):
    for _ in range(count):
      train(queries, keys).item()
  return take_steps, description


def describe(options: argparse.Namespace) -> str:
  return (f'{options.model}, {options.size} px, batch {options.batch} in {options.groups} batch-norm group(s), '
          f'queue {options.queue}, {options.dtype}')


def name_run(options: argparse.Namespace) -> str:
  """The setting in the last line."""
  return f'{options.model} {options.size}' + ('' if options.dtype == 'float32' else f' {options.dtype}')


if __name__ == '__main__':
  options = make_parser(__doc__).parse_args()
  makers = {'ours': make_our_steps}
  if all(map(importlib.util.find_spec, ('torch', 'torchvision'))):
    makers['torch'] = make_torch_steps
  side_by_side.run(makers, 'benchmarks.moco_step', options, describe(options), f'moco_step {name_run(options)}',
                   {'torch': f'torch {options.layout}'})
