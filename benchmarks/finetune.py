"""Stage 3 from files to scores, beside a training script of the usual kind with torchvision.

    python -m benchmarks.finetune --task=lung --model=resnet18 --size=96 --batch=16

Both sides learn the same phantoms, at 256 px, for the same number of steps. Each side is a process of its own that
sleeps while the other works, and they take turns. Three parts are timed:

  training    files -> batches -> augmentation -> step of AdamW; images per second
  validation  files of the validation split -> predictions -> headline score
  test        files of the test split -> predictions -> scores with 95 % intervals from `--resamples` resamples

  ours         prepared records (ArrayRecord) -> Grain, prefetched by threads -> the compiled step, which augments.
               All scores of the task with intervals, and those of subgroups
  torchvision  PNG files -> Pillow -> transforms v2 -> DataLoader with `--workers` processes -> torchvision's model
               (`support/torchvision_tasks.py`). Headline score by scikit-learn (AUC), numpy (Dice) or pycocotools
               (AP50); its interval from a plain loop, timed on `--plain` resamples and extrapolated

Without PyTorch, torchvision and pycocotools (benchmarks/requirements.txt) only our side runs.
"""

import argparse
import atexit
import contextlib
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from benchmarks.support import side_by_side

PARTS = ('training', 'validation', 'test')
# part -> what it does; it returns (wall, processor) seconds of work that it has extrapolated
Parts = Mapping[str, Callable[[], tuple[float, float]]]
LEARNING_RATE, WEIGHT_DECAY, MOMENTUM = 1e-3, 1e-4, 0.9


def make_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--task', choices=('pneumonia', 'lung', 'tuberculosis'), default='pneumonia')
  parser.add_argument('--model', choices=('resnet18', 'resnet50'), default='resnet18', help='the trunk')
  parser.add_argument('--size', type=int, default=64, help='px, side of a view')
  parser.add_argument('--batch', type=int, default=16, help='images')
  parser.add_argument('--images', type=int, default=400, help='phantoms to render')
  parser.add_argument('--resamples', type=int, default=1000, help='of the bootstrap')
  parser.add_argument('--plain', type=int, default=10, help='resamples of the plain loop')
  parser.add_argument('--threads', type=int, default=2, help='threads that prefetch on our side')
  parser.add_argument('--workers', type=int, default=2, help="processes of PyTorch's DataLoader")
  parser.add_argument('--torch_threads', type=int, default=0, help="PyTorch's threads; 0: its own choice")
  parser.add_argument('--folder', help='of the phantoms, which are made if need be (default: a temporary one)')
  side_by_side.add_options(parser, steps=8)
  return parser


def make_config(options: argparse.Namespace) -> ConfigDict:
  """The config of a stage-3 run of the task with torchvision's heads."""
  from configs import common, finetune, tasks
  config = finetune.base(options.task)
  config.update(trunk=options.model, resamples=options.resamples, workdir=str(pathlib.Path(options.folder, 'run')))
  config.tasks = ConfigDict({options.task: tasks.make_task_config(
    options.task, small=options.size, large=options.size, batch=options.batch, steps=10_000,
    deeplab=common.deeplab_v3(), detector=common.faster_rcnn(options.size), objects=8)})
  config.data.update(dir=str(pathlib.Path(options.folder, 'prepared')), threads=options.threads, workers=0)
  config.optimiser.update(kind='adamw', momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, learning_rate=LEARNING_RATE,
                          final_learning_rate=LEARNING_RATE, warmup=0.0)
  return config


def make_our_parts(options: argparse.Namespace) -> tuple[Parts, str]:
  from mtpret_jax.runtime import backend
  backend.skip_libtpu()
  import jax

  from mtpret_jax import stages
  from mtpret_jax.data import pipeline
  from mtpret_jax.evaluation import predict
  from mtpret_jax.runtime.loss_guard import make_guard
  from mtpret_jax.runtime.sharding import make_mesh, place_batch
  from mtpret_jax.step import compile_step, init_state, make_optimiser
  if backend.is_cpu():
    from mtpret_jax import cpu
    cpu.install()  # one device: a task has one batch-norm group
  config, mesh = make_config(options), make_mesh()
  run, optimiser = stages.make_run(config), make_optimiser(config.optimiser)
  state = init_state(run.objective, optimiser, mesh, config.seed)
  step = compile_step(run.objective, optimiser, run.schedule, options.task, mesh, config.seed, make_guard(config),
                      clip=config.optimiser.clip)
  reading = contextlib.ExitStack()
  atexit.register(reading.close)
  batches = reading.enter_context(pipeline.stream(run.batches, 0, config.data))
  predictors: dict[tuple[str, str], predict.Predictor] = {}

  def train(count: int = options.steps) -> tuple[float, float]:
    nonlocal state
    previous = None
    for _ in range(count):
      state, measures = step(state, place_batch(next(batches)[1], mesh))
      jax.block_until_ready(previous)  # as the loop does: the next batch is read while the device works
      previous = measures
    jax.block_until_ready(state)
    return 0.0, 0.0

  def score(split: str, resamples: int) -> tuple[float, float]:
    config.resamples = resamples
    (_, result), = predict.score_tasks(config, state, split, predictors).values()
    print(f'  ours, {split}: {predict.find_headline(result)[:2]}', file=sys.stderr)
    return 0.0, 0.0

  return {'training': train, 'validation': lambda: score('validation', 0),
          'test': lambda: score('test', options.resamples)}, f'jax {jax.__version__} on {jax.devices()[0].platform}'


def make_torch_parts(options: argparse.Namespace) -> tuple[Parts, str]:
  from benchmarks.support import torchvision_finetune
  return torchvision_finetune.make_parts(options, make_config(options),
                                         dict(lr=LEARNING_RATE, betas=(MOMENTUM, 0.999), weight_decay=WEIGHT_DECAY))


MAKERS = {'ours': make_our_parts, 'torchvision': make_torch_parts}


def serve(parts: Parts, description: str) -> None:
  """Answers each line on stdin, the name of a part, with its (wall seconds, processor seconds, peak MB)."""
  for part in parts.values():
    part()  # compiles, and starts the processes that read
  print(json.dumps(description), flush=True)
  for line in sys.stdin:
    side_by_side.reset_peak_memory()
    began, processor = time.perf_counter(), side_by_side.read_processor_time()
    wall_more, processor_more = parts[line.strip()]()
    print(json.dumps([time.perf_counter() - began + wall_more,
                      side_by_side.read_processor_time() - processor + processor_more,
                      side_by_side.read_peak_memory()]), flush=True)


def measure(process: Any, part: str) -> list[float]:
  process.stdin.write(f'{part}\n')
  process.stdin.flush()
  return side_by_side.read_answer(process)


def compare(options: argparse.Namespace) -> None:
  """Measures all parts of all sides in turn, and prints medians and paired ratios."""
  sides = list(MAKERS) if all(map(importlib.util.find_spec, ('torch', 'torchvision', 'pycocotools'))) else ['ours']
  print(f'files to scores: {options.task}, {options.model}, {options.size} px, batch {options.batch}; '
        f'{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} over the last minute')
  command = ('benchmarks.finetune', *sys.argv[1:], f'--folder={options.folder}')
  processes = {side: side_by_side.start_side(command, side) for side in sides}
  seconds: dict[tuple[str, str], list] = {(side, part): [] for side in sides for part in PARTS}
  for _ in range(options.repeats):
    for part in PARTS:
      for side in sides:
        seconds[side, part].append(measure(processes[side], part))
  for process in processes.values():
    process.stdin.close()
    process.wait()
  for part in PARTS:
    for side in sides:
      wall, processor, memory = (statistics.median(column) for column in zip(*seconds[side, part], strict=True))
      speed = f'{options.batch * options.steps / wall:7.1f} images/s, ' if part == 'training' else ''
      print(f'{part:>11} {side:>11}: {speed}{wall:6.2f} s, {processor:6.2f} s of processor time, {memory:.0f} MB at '
            f'the peak; medians of {options.repeats}')
    for side in sides[1:]:
      pairs = list(zip(seconds[sides[0], part], seconds[side, part], strict=True))
      for column, label in ((1, 'processor time'), (0, 'wall time')):
        ratios = [theirs[column] / ours[column] for ours, theirs in pairs]
        print(f'{part}, {label}: ratio {side_by_side.describe_ratios(ratios)} over {side}')


def main() -> None:
  from benchmarks.support import task_files
  options = make_parser().parse_args()
  if options.side:
    serve(*MAKERS[options.side](options))
    return
  with tempfile.TemporaryDirectory() as folder:
    options.folder = options.folder or folder
    task_files.prepare(options.folder, make_config(options).tasks[options.task], options.images)
    compare(options)


if __name__ == '__main__':
  main()
