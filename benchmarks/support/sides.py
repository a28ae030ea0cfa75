"""Programs that do the same beside each other, in one run.

Each side is a process of its own, which stays alive and sleeps while the other works: two thread pools in one process
would fight for the cores. They take turns, ours, theirs, ours, theirs, so that a busy machine disturbs all alike, and
ratios are taken pair by pair, of the clock's time and of the processors'. All have large pages and an arena for each
core, as `mtpret_jax.main` has: PyTorch gains by the pages, too. Where other programs run, PyTorch's threads wait for
each other and its figures collapse; `OMP_WAIT_POLICY=PASSIVE` before the command prevents that.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from mtpret_jax.cpu import malloc


def add_options(parser, steps=3):
  parser.add_argument('--repeats', type=int, default=5, help='measurements of each side')
  parser.add_argument('--steps', type=int, default=steps, help='steps in each measurement')
  parser.add_argument('--side', help=argparse.SUPPRESS)


def run(sides, module, options, title, compared, flags=()):
  """In the first process compares, in a side's own process works. `sides`: {name: options -> (take_steps,
  description)}, ours first; `module`: the benchmark's name; `compared`: what, and {side: over what} of the last lines;
  `flags`: what the sides are told besides the command line."""
  if options.side:
    serve(*sides[options.side](options), options.steps)
  else:
    compare(list(sides), (module, *sys.argv[1:], *flags), options, title, compared)


def serve(take_steps, description, steps):
  """Answers each line on stdin with the seconds that `steps` steps took, by the clock and of processors."""
  take_steps(2)
  print(json.dumps(description), flush=True)
  for _ in sys.stdin:
    began, spent = time.perf_counter(), spend()
    take_steps(steps)
    print(json.dumps([time.perf_counter() - began, spend() - spent]), flush=True)


def spend():
  """Seconds of processors' time of this process and its living children, such as PyTorch's that load images."""
  ticks = 0
  for child in pathlib.Path('/proc/self/task').glob('*/children'):
    for process in child.read_text().split():
      ticks += sum(map(int, pathlib.Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()[11:13]))
  return time.process_time() + ticks / os.sysconf('SC_CLK_TCK')


def compare(sides, command, options, title, compared):
  print(f'{title}; {len(os.sched_getaffinity(0))} cores, of which others kept {os.getloadavg()[0]:.1f} busy over the '
        f'last minute')
  processes = {side: start_side(command, side) for side in sides}
  seconds = {side: [] for side in sides}
  for _ in range(options.repeats):
    for side in sides:
      seconds[side].append(measure(processes[side]))
  for process in processes.values():
    process.stdin.close()
    process.wait()
  for side in sides:
    clock, processors = (statistics.median(column) for column in zip(*seconds[side], strict=True))
    print(f'{side:>11}: {options.batch * options.steps / clock:7.1f} images/s; {processors / options.steps:.2f} s of '
          f'processors a step, medians of {options.repeats}')
  if len(sides) == 1:
    print('what to compare with is not here: see benchmarks/requirements.txt')
    return
  what, over = compared
  for side in sides[1:]:
    pairs = list(zip(seconds[sides[0]], seconds[side], strict=True))
    ratios, spent = ([theirs[column] / ours[column] for ours, theirs in pairs] for column in (0, 1))
    for title, found in (('processor time', spent), (what, ratios)):
      print(f'{title}: ratio {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}) over {over[side]}')


def start_side(command, side):
  """A process that serves `side`, warmed up. It is alone while it compiles."""
  environment = os.environ | malloc.add_tunables(os.environ)
  process = subprocess.Popen([sys.executable, '-m', *command, f'--side={side}'], env=environment,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  print(f'  {side}: {read(process)}')
  return process


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
