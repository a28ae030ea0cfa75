"""Time of each part of our Faster R-CNN beside the same part of torchvision's, in one run.

    python -m benchmarks.detection_parts --model=resnet18 --size=128 --batch=4

Both sides have the same weights, images and boxes (`--boxes` an image, a few as in X-rays) and torchvision's numbers,
with anchors that fit the size (`configs/common.py:faster_rcnn`). Our batches have `--slots` slots for boxes. Parts that
learn are timed forward and backward in training. The sides take turns as `support/side_by_side.py` describes. The last
column is our time over theirs, so less is better: the median of pairs of measurements, of processor time on a CPU and
of wall time elsewhere. Without torch and torchvision only our side runs.

`RPN targets` includes the random sample of anchors on our side; torchvision draws it with its losses.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.support import side_by_side
from configs import common
from tests.reference import draw

CLASSES = 2
MODULE = 'benchmarks.detection_parts'


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', choices=('resnet18', 'resnet50'), default='resnet18')
  parser.add_argument('--size', type=int, default=128, help='px, side of an image')
  parser.add_argument('--batch', type=int, default=2, help='images')
  parser.add_argument('--boxes', type=int, default=2, help='annotated boxes in each image')
  parser.add_argument('--slots', type=int, default=16, help='slots for boxes in our batches')
  parser.add_argument('--only', choices=('training', 'inference', 'whole'), default='', help='"whole": without parts')
  parser.add_argument('--memory', action='store_true', help='print the memory of our parts as well')
  side_by_side.add_options(parser, steps=1)
  return parser.parse_args(arguments)


def draw_inputs(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(images_BHW1, boxes_BM4 in px, class_BM): standardised noise, with as many boxes as `--boxes`."""
  stream, shape = draw.stream('inputs'), (options.batch, options.boxes)
  images = stream.standard_normal((options.batch, options.size, options.size, 1)).astype(np.float32)
  corner = stream.uniform(0, 0.5, (*shape, 2))
  boxes = np.concatenate([corner, corner + stream.uniform(0.1, 0.5, (*shape, 2))], axis=-1) * options.size
  return images, boxes.astype(np.float32), stream.randint(0, CLASSES, shape).astype(np.int32)


def draw_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array called `name` in torchvision, such that proposals stay near their anchors and few detections pass, as
  with a trained detector and few boxes an image."""
  array = draw.weight(name, shape)
  if name == 'roi_heads.box_predictor.cls_score.bias':
    array[0] += 3  # the background
  return array * np.float32(0.1 if 'bbox_pred' in name or name.startswith('backbone.fpn') else 1)


# Our side


def make_our_parts(options: argparse.Namespace) -> tuple[dict[str, Callable], str]:
  """({part: function that runs it and waits}, description)."""
  import jax

  from mtpret_jax.runtime import backend
  if backend.is_cpu():
    from mtpret_jax import cpu
    cpu.install(lambda count: False)
  from benchmarks.support.detection_parts_jax import Detector, list_programs
  config = common.faster_rcnn(options.size)
  programs = list_programs(Detector(options.model, CLASSES, config, draw_weight), CLASSES, config,
                           *draw_inputs(options), options.slots, only=options.only)
  parts: dict[str, Callable] = {}
  found = 'no'
  for name, (program, inputs) in programs.items():
    compiled: Any = program.lower(*inputs).compile(compiler_options=backend.find('compiler_options', dict)())
    parts[name] = functools.partial(run_and_wait, compiled, inputs)
    if options.memory:
      print(f'    {name}: {compiled.memory_analysis().temp_size_in_bytes / 2 ** 20:.0f} MB of temporaries',
            file=sys.stderr)
    if name == 'inference: whole':
      found = str((compiled(*inputs)['class_id'] >= 0).sum())
  return parts, f'jax {jax.__version__} on one {jax.devices()[0].platform} device; {found} detections'


def run_and_wait(program: Callable, inputs: tuple) -> None:
  import jax
  jax.block_until_ready(program(*inputs))


# Their side


def make_torch_parts(options: argparse.Namespace) -> tuple[dict[str, Callable], str]:
  import torch

  from benchmarks.support import detection_parts_torch as theirs
  torch.manual_seed(0)
  model = theirs.build(options.model, CLASSES, options.size, common.faster_rcnn(options.size), draw_weight)
  parts, description = theirs.make_parts(model, *draw_inputs(options))

  def wait(part: Callable) -> None:
    part()
    if torch.cuda.is_available():
      torch.cuda.synchronize()
  return {name: functools.partial(wait, part) for name, part in parts.items()
          if options.only in name}, description


# Both


def serve(parts: dict[str, Callable], description: str, steps: int) -> None:
  """Answers each line on stdin, which names a part, with (wall seconds, processor seconds) of one run of it."""
  for part in parts.values():
    part()
    part()
  print(json.dumps(description), json.dumps(list(parts)), sep='\n', flush=True)
  for line in sys.stdin:
    part = parts[line.strip()]
    began, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
      part()
    print(json.dumps([(time.perf_counter() - began) / steps, (time.process_time() - processor) / steps]), flush=True)


def measure(process: Any, part: str) -> list[float]:
  process.stdin.write(f'{part}\n')
  process.stdin.flush()
  return side_by_side.read_answer(process)


def describe(parts: list[str], seconds: dict[str, dict[str, list]], column: int) -> str:
  """A table: milliseconds of each side, and the ratio if there are two. `column` 0 is wall, 1 processor time."""
  sides = list(seconds)
  lines = [' | '.join(['', 'part', *(f'{side}, ms' for side in sides), *(['ratio'] if sides[1:] else []), '']).strip(),
           '|---|' + '--:|' * len(sides) + ('---|' if sides[1:] else '')]
  for part in parts:
    times = {side: [pair[column] for pair in seconds[side][part]] for side in sides}
    cells = [part, *(f'{1000 * statistics.median(own):.1f}' for own in times.values())]
    if len(sides) > 1:
      ratios = [ours / theirs for ours, theirs in zip(*times.values(), strict=True)]
      cells.append(side_by_side.describe_ratios(ratios))
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def compare(sides: list[str], options: argparse.Namespace) -> None:
  print(f'{options.model}, {options.size} px, batch {options.batch}, {options.boxes} boxes an image', flush=True)
  processes = {side: side_by_side.start_side((MODULE, *sys.argv[1:]), side) for side in sides}
  parts, *_ = [side_by_side.read_answer(process) for process in processes.values()]
  seconds: dict[str, dict[str, list]] = {side: {part: [] for part in parts} for side in sides}
  for part in parts:
    for _ in range(options.repeats):
      for side in sides:
        seconds[side][part].append(measure(processes[side], part))
  for process in processes.values():
    process.stdin.close()
    process.wait()
  print(describe(parts, seconds, column=1))


def main() -> None:
  options = parse()
  makers = {'ours': make_our_parts}
  if all(map(importlib.util.find_spec, ('torch', 'torchvision'))):
    makers['torchvision'] = make_torch_parts
  if options.side:
    serve(*makers[options.side](options), options.steps)
  else:
    compare(list(makers), options)


if __name__ == '__main__':
  main()
