"""One MoCo step of ours beside the same step in PyTorch, in one run.

    python -m benchmarks.moco_step --model=resnet18 --size=128 --batch=32

Each side is a process of its own, which stays alive and sleeps while the other works: two thread pools in one process
would fight for the cores. They take turns, ours, theirs, ours, theirs, so that a busy machine disturbs both alike, and
the ratio is taken pair by pair. What is timed, after warming up:

  ours     the compiled step of stage 1: uint8 images in, random views, two encoders, queue, SGD
  PyTorch  `tests/reference/moco_torch.py`: two encoders, queue, SGD; the views are given, f32 and standardised

So PyTorch is spared the augmentation. Where other programs run, PyTorch's threads wait for each other and its figures
collapse; `OMP_WAIT_POLICY=PASSIVE` before the command prevents that. Torch and torchvision are not in requirements.txt:
without them only our side runs.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

DIM, TEMPERATURE, MOMENTUM, RATE, DECAY = 128, 0.2, 0.999, 0.03, 1e-4


def parse_options():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', choices=('resnet18', 'resnet50'), default='resnet18')
  parser.add_argument('--size', type=int, default=128, help='px, side of a view')
  parser.add_argument('--batch', type=int, default=32, help='images')
  parser.add_argument('--groups', type=int, default=1, help='batch-norm groups in the batch')
  parser.add_argument('--queue', type=int, default=4096, help='keys; a multiple of the batch')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='of the activations')
  parser.add_argument('--layout', choices=('channels_last', 'contiguous'), default='channels_last', help="PyTorch's")
  parser.add_argument('--steps', type=int, default=3, help='steps in each measurement')
  parser.add_argument('--repeats', type=int, default=5, help='measurements of each side')
  parser.add_argument('--side', choices=('ours', 'torch'), help=argparse.SUPPRESS)
  return parser.parse_args()


def make_our_step(options):
  """() -> None takes one step and waits for it; and a description."""
  import jax
  import numpy as np
  from ml_collections import ConfigDict

  from configs.common import moco_v2_augment
  from mtpret_jax import heap
  from mtpret_jax.objectives.contrast import make_contrast
  from mtpret_jax.optim import make_optimiser
  from mtpret_jax.sharding import make_mesh, place_batch
  from mtpret_jax.step import compile_step, init_state

  heap.stay_in_main_thread()  # as `mtpret_jax.main` does
  heap.keep_memory()
  config = ConfigDict(dict(
    trunk=options.model, dtype=options.dtype, augment=moco_v2_augment(options.size),
    contrast=dict(dim=DIM, queue=options.queue, temperature=TEMPERATURE, momentum=MOMENTUM,
                  group=options.batch // options.groups, shuffle_groups=options.groups, negatives='all'),
    optimiser=dict(kind='sgd', momentum=0.9, weight_decay=DECAY)))
  mesh = make_mesh()
  objective, optimiser = make_contrast(config), make_optimiser(config.optimiser)
  state = init_state(objective, optimiser, mesh, 0)
  step = compile_step(objective, optimiser, lambda step: RATE, 'contrast', mesh, seed=0)
  shape = (options.batch, options.size * 5 // 4, options.size * 5 // 4, 1)  # stored larger than shown, as in training
  images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  batch = place_batch({'query': images, 'key': images, 'source': np.zeros(options.batch, np.int32)}, mesh)

  def take_step():
    nonlocal state
    state, measures = step(state, batch)
    jax.block_until_ready((state, measures))
  return take_step, f'jax {jax.__version__} on {jax.device_count()} {jax.devices()[0].platform} device(s)'


def make_torch_step(options):
  import torch
  import torch.nn.functional as F

  from tests.reference.moco_torch import MoCo

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  layout = torch.channels_last if options.layout == 'channels_last' else torch.contiguous_format
  torch.manual_seed(0)
  moco = MoCo(options.model, dim=DIM, queue_KD=F.normalize(torch.randn(options.queue, DIM), dim=1), momentum=MOMENTUM,
              temperature=TEMPERATURE, chunks=options.groups, rate=RATE, sgd_momentum=0.9, decay=DECAY, device=device)
  for encoder in (moco.query_encoder, moco.key_encoder):
    encoder.to(memory_format=layout)
  queries, keys = (torch.randn(options.batch, 1, options.size, options.size, device=device).to(memory_format=layout)
                   for _ in range(2))
  order = torch.arange(options.batch, device=device).reshape(options.groups, -1).T.flatten()

  def take_step():
    with torch.autocast(device, torch.bfloat16, enabled=options.dtype == 'bfloat16'):
      moco.step(queries, keys, order).item()
  return take_step, f'torch {torch.__version__} on {device}, {torch.get_num_threads()} threads, {options.layout}'


def serve(options):
  """The process of one side: answers each line on stdin with the seconds that `steps` steps took, by the clock and of
  processors."""
  take_step, description = {'ours': make_our_step, 'torch': make_torch_step}[options.side](options)
  for _ in range(2):
    take_step()
  print(json.dumps(description), flush=True)
  for _ in sys.stdin:
    began, spent = time.perf_counter(), time.process_time()
    for _ in range(options.steps):
      take_step()
    print(json.dumps([time.perf_counter() - began, time.process_time() - spent]), flush=True)


def start_side(side):
  """A process that serves `side`, warmed up, and its description. It is alone while it compiles."""
  process = subprocess.Popen([sys.executable, '-m', 'benchmarks.moco_step', *sys.argv[1:], f'--side={side}'],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  return process, read(process)


def read(process):
  line = process.stdout.readline()
  if not line:
    raise SystemExit(f'one side ended with code {process.wait()}; its error is above')
  return json.loads(line)


def measure(process):
  """Seconds of one measurement, by the clock and of processors."""
  process.stdin.write('go\n')
  process.stdin.flush()
  return read(process)


def compare(options):
  sides = ['ours', 'torch'] if all(map(importlib.util.find_spec, ('torch', 'torchvision'))) else ['ours']
  print(f'{options.model}, {options.size} px, batch {options.batch} in {options.groups} batch-norm group(s), '
        f'queue {options.queue}, {options.dtype}; {len(os.sched_getaffinity(0))} cores, '
        f'of which others kept {os.getloadavg()[0]:.1f} busy over the last minute')
  processes = {}
  for side in sides:
    processes[side], description = start_side(side)
    print(f'  {side}: {description}')
  seconds = {side: [] for side in sides}
  for _ in range(options.repeats):
    for side in sides:
      seconds[side].append(measure(processes[side]))
  for process in processes.values():
    process.stdin.close()
    process.wait()
  for side in sides:
    clock, processors = (statistics.median(column) for column in zip(*seconds[side], strict=True))
    print(f'{side:>6}: {options.batch * options.steps / clock:7.1f} images/s; {processors / options.steps:.2f} s of '
          f'processors a step, medians of {options.repeats}')
  if len(sides) == 1:
    print('PyTorch is not here to compare with: pip install torch torchvision')
    return
  ratios, spent = ([theirs[column] / ours[column] for ours, theirs in zip(*seconds.values(), strict=True)]
                   for column in (0, 1))
  print(f'processor time: ratio {statistics.median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f})')
  other = '' if options.dtype == 'float32' else f' {options.dtype}'
  print(f'moco_step {options.model} {options.size}{other}: ratio {statistics.median(ratios):.2f} '
        f'({min(ratios):.2f} to {max(ratios):.2f}) over torch {options.layout}')


if __name__ == '__main__':
  options = parse_options()
  serve(options) if options.side else compare(options)
