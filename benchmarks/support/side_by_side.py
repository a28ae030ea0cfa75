"""Compares programs that do the same work, in one run.

Each program ("side") is a process of its own that sleeps while another works: two thread pools in one process would
compete for the cores. The sides take turns (ours, theirs, ours, theirs), so that other load disturbs all of them alike,
and ratios are taken pair by pair, of wall time and of processor time. All sides get large pages and one malloc arena
per core, as `mtpret_jax.main` has; PyTorch gains by the pages too.

If other programs run on the machine, PyTorch's threads wait for each other and its figures collapse. Set
`OMP_WAIT_POLICY=PASSIVE` then.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtpret_jax.cpu import malloc

TakeSteps = Callable[[int], None]


def add_options(parser: argparse.ArgumentParser, steps: int = 3) -> None:
  parser.add_argument('--repeats', type=int, default=5, help='measurements of each side')
  parser.add_argument('--steps', type=int, default=steps, help='steps in each measurement')
  parser.add_argument('--side', help=argparse.SUPPRESS)


def add_profile(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--profile', action='store_true',
                      help='print what a step of each side spends its time on (CPU), instead of comparing them')


def run(sides: Mapping[str, Callable[[argparse.Namespace], tuple[TakeSteps, str]]], module: str,
        options: argparse.Namespace, title: str, name: str, baselines: Mapping[str, str],
        flags: Sequence[str] = ()) -> None:
  """Compares the sides, or works as one of them in a process that this function has started.

  Args:
    sides: {name: options -> (take_steps, description)}, ours first.
    module: the benchmark to start for each side, as after `python -m`.
    title: the setting, for the first line.
    name: what the ratios are called in the last lines.
    baselines: {side: what it is called there}, for all sides but the first.
    flags: for the sides, after the flags of this command line.
  """
  if options.side and vars(options).get('profile'):
    serve_profile(options.side, sides[options.side], options)
  elif options.side:
    serve(*sides[options.side](options), options.steps)
  elif vars(options).get('profile'):
    print_profiles(list(sides), (module, *sys.argv[1:], *flags), title)
  else:
    compare(list(sides), (module, *sys.argv[1:], *flags), options, title, name, baselines)


def serve(take_steps: TakeSteps, description: str, steps: int) -> None:
  """Answers each line on stdin with (wall seconds, processor seconds, peak MB) of `steps` steps."""
  take_steps(2)
  print(json.dumps(description), flush=True)
  for _ in sys.stdin:
    reset_peak_memory()
    take_steps(1)  # takes the memory from the kernel again, as a step in the middle of a run need not
    began, processor = time.perf_counter(), read_processor_time()
    take_steps(steps)
    print(json.dumps([time.perf_counter() - began, read_processor_time() - processor, read_peak_memory()]), flush=True)


def serve_profile(side: str, make: Callable[[argparse.Namespace], tuple[TakeSteps, str]],
                  options: argparse.Namespace) -> None:
  from benchmarks.support import operation_times
  with operation_times.name_operations() if side == 'ours' else contextlib.nullcontext():
    take_steps, description = make(options)
    take_steps(2)
  print(json.dumps(description), flush=True)
  sys.stdin.readline()
  print(json.dumps(operation_times.measure(side, take_steps)), flush=True)


def print_profiles(sides: Sequence[str], command: Sequence[str], title: str) -> None:
  print(f'{title}; one step, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} over the last minute')
  for side in sides:
    process = start_side(command, side)
    times = measure(process)
    process.communicate()
    total = sum(times.values())
    print(f'{side:>11}: {total:.0f} ms')
    for kind, milliseconds in times.items():
      print(f'{milliseconds:11.0f} ms {milliseconds / total:4.0%}  {kind}')


def reset_peak_memory() -> None:
  """Forgets the peak of the compilation and returns the memory that it left free. Where the kernel does not allow that,
  the peak is that of the whole process."""
  malloc.release_free_memory()
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/self/clear_refs').write_text('5')


def read_peak_memory() -> float:
  """The largest resident memory of this process since `reset_peak_memory`, MB."""
  status = dict(line.split(':', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())
  return int(status['VmHWM'].split()[0]) / 1024


def read_processor_time() -> float:
  """Processor seconds of this process and its living children, such as PyTorch's loader processes."""
  ticks = 0
  for child in pathlib.Path('/proc/self/task').glob('*/children'):
    for process in child.read_text().split():
      ticks += sum(map(int, pathlib.Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()[11:13]))
  return time.process_time() + ticks / os.sysconf('SC_CLK_TCK')


def compare(sides: Sequence[str], command: Sequence[str], options: argparse.Namespace, title: str, name: str,
            baselines: Mapping[str, str]) -> None:
  print(f'{title}; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} over the last minute')
  processes = {side: start_side(command, side) for side in sides}
  seconds: dict[str, list] = {side: [] for side in sides}
  for _ in range(options.repeats):
    for side in sides:
      seconds[side].append(measure(processes[side]))
  for process in processes.values():
    process.stdin.close()
    process.wait()
  for side in sides:
    wall, processor, memory = (statistics.median(column) for column in zip(*seconds[side], strict=True))
    print(f'{side:>11}: {options.batch * options.steps / wall:7.1f} images/s; {processor / options.steps:.3f} s of '
          f'processor time per step; {memory:.0f} MB of memory at the peak; medians of {options.repeats}')
  if len(sides) == 1:
    print('nothing to compare with is installed: see benchmarks/requirements.txt')
    return
  for side in sides[1:]:
    pairs = list(zip(seconds[sides[0]], seconds[side], strict=True))
    wall, processor = ([theirs[column] / ours[column] for ours, theirs in pairs] for column in (0, 1))
    for label, ratios in (('processor time', processor), (name, wall)):
      print(f'{label}: ratio {describe_ratios(ratios)} over {baselines[side]}')


def describe_ratios(ratios: Sequence[float]) -> str:
  """The median and the range, such as '1.20 (1.15 to 1.31)'."""
  return f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'


def start_side(command: Sequence[str], side: str) -> Any:
  """A process that serves `side` and is warmed up. It compiles while nothing else runs."""
  environment = os.environ | malloc.add_tunables(os.environ)
  process = subprocess.Popen([sys.executable, '-m', *command, f'--side={side}'], env=environment,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  print(f'  {side}: {read_answer(process)}')
  return process


def read_answer(process: Any) -> Any:
  line = process.stdout.readline()
  if not line:
    raise SystemExit(f'one side ended with code {process.wait()}; its error is above')
  return json.loads(line)


def measure(process: Any) -> Any:
  """[wall seconds, processor seconds, peak MB] of one measurement, or {kind: milliseconds} of a profile."""
  process.stdin.write('go\n')
  process.stdin.flush()
  return read_answer(process)
