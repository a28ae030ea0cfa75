"""Several processes on one machine: do they compute what one process computes, and does none wait for a dead one?

    python -m benchmarks.hosts

Runs of `tests/support/smooth_runs.py` in 1, 2 and 4 processes, joined by `jax.distributed` over loopback. There are
always four devices, and the global batches are the same:

  equal      stages 1 and 2 in 2 and in 4 processes end in the state and validation scores of one process
  restart    SIGTERM stops stage 1 in two processes, one process resumes it and is stopped, two processes finish it
  refusal    processes with different configs refuse to start; every exit code is 2
  death      kill -9 or SIGSTOP of one process: the other ends in time and says why

Processes add floats in another order than the devices of one process, so states are compared with a tolerance. Takes
about 10 minutes on two idle cores.
"""

import argparse
import functools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from tests.support.compare_runs import compare_runs
from tests.support.paths import ROOT

DEVICES = 4
STALL_TIMEOUT = 10  # s
# More seconds until jax's heartbeat ends a process that waits for something other than a step.
HEARTBEAT_MARGIN = 35
MESSAGES = ('another process', 'another task died')  # ours, and jax's own if it aborts first

Processes = list[subprocess.Popen]


def start(stage: str, processes: int, devices: int, folder: pathlib.Path, log: pathlib.Path, flags: Sequence[str] = (),
          last_flags: Sequence[str] = ()) -> Processes:
  """Starts the processes of a run with `devices` devices each; `last_flags` are for the last process alone.

  Process i writes its output to `<log>.<i>`. `folder` holds the prepared data and the compiled programs."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
                 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
                 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'}
  children = []
  for process in range(processes):
    joined = ['--distributed', f'--coordinator=127.0.0.1:{port}', f'--processes={processes}', f'--process={process}']
    command = [sys.executable, '-m', 'tests.support.smooth_runs', f'--config=tests/support/small_runs.py:{stage}',
               f'--config.data.dir={folder / "data"}', *flags, *(last_flags if process == processes - 1 else ()),
               *(joined if processes > 1 else ())]
    with open(f'{log}.{process}', 'w') as file:
      children.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT))
  return children


def finish(children: Processes, seconds: float = 600) -> list[int]:
  """Waits for the processes and returns their exit codes. Kills those that still run after `seconds`."""
  until = time.monotonic() + seconds
  try:
    return [child.wait(max(0.1, until - time.monotonic())) for child in children]
  finally:
    for child in children:
      child.kill()


def wait_for_steps(workdir: pathlib.Path, count: int, children: Processes, seconds: float = 300) -> None:
  """Waits until a run has logged `count` steps. Raises RuntimeError if one of its processes ends before."""
  path, until = workdir / 'metrics.jsonl', time.monotonic() + seconds
  while not path.exists() or path.read_text().count('\n') < count:
    if time.monotonic() > until or any(child.poll() is not None for child in children):
      raise RuntimeError(f'{workdir} did not reach step {count}')
    time.sleep(0.05)


# Each check returns what is wrong, in words, or ''.


def check_equal(stage: str, processes: int, folder: pathlib.Path) -> str:
  """Several processes end as the run of one process in `folder` / '<stage>_1'."""
  workdir = folder / f'{stage}_{processes}'
  codes = finish(start(stage, processes, DEVICES // processes, folder, workdir, [f'--config.workdir={workdir}']))
  return f'exit codes {codes}' if any(codes) else compare_runs(workdir, folder / f'{stage}_1')


def check_restart(folder: pathlib.Path) -> str:
  """A run of 60 steps in two processes, then one, then two ends as one that was not stopped."""
  flags, whole = ['--config.steps=60'], folder / 'whole'
  if any(finish(start('pretrain', 1, DEVICES, folder, whole, [*flags, f'--config.workdir={whole}']))):
    return f'the uninterrupted run failed, see {whole}.0'
  workdir, reached = folder / 'restarted', []
  for turn, (processes, steps) in enumerate([(2, 5), (1, 30), (2, None)]):
    children = start('pretrain', processes, DEVICES // processes, folder, folder / f'restarted_{turn}',
                     [*flags, f'--config.workdir={workdir}'])
    if steps:
      wait_for_steps(workdir, steps, children)
      children[-1].send_signal(signal.SIGTERM)
    codes = finish(children)
    if set(codes) != ({75} if steps else {0}):
      return f'exit codes {codes} of turn {turn}'
    reached.append(max(int(path.stem) for path in workdir.glob('checkpoints/*.sha256')))
  print(f'  restarted at steps {reached[:-1]} of 60', flush=True)
  return compare_runs(workdir, whole)


def check_refusal(folder: pathlib.Path) -> str:
  """Two processes with different seeds both exit with code 2 and name the field."""
  workdir = folder / 'refused'
  codes = finish(start('pretrain', 2, 2, folder, workdir, [f'--config.workdir={workdir}'], ['--config.seed=1']))
  output = pathlib.Path(f'{workdir}.1').read_text()
  message = 'seed is 0 on the first process and 1 on this one'
  return '' if codes == [2, 2] and message in output else f'exit codes {codes}: {output[-300:]}'


def check_death(victim: int, number: int, folder: pathlib.Path) -> str:
  """After signal `number` to one of two processes the other ends in time, with an exit code of failure and a reason."""
  workdir = folder / f'{signal.Signals(number).name}_{victim}'
  children = start('pretrain', 2, 2, folder, workdir,
                   [f'--config.workdir={workdir}', f'--stall_timeout={STALL_TIMEOUT}', '--config.steps=100000',
                    '--config.save_every=1000', '--config.probe.every=0'])
  try:
    wait_for_steps(workdir, 5, children)
    children[victim].send_signal(number)
    began = time.monotonic()
    code = finish([children[1 - victim]], STALL_TIMEOUT + HEARTBEAT_MARGIN)[0]
    seconds = time.monotonic() - began
  except subprocess.TimeoutExpired:
    return f'still ran after {STALL_TIMEOUT + HEARTBEAT_MARGIN} s'
  finally:
    for child in children:
      child.kill()
      child.wait()
  output = pathlib.Path(f'{workdir}.{1 - victim}').read_text(errors='replace')
  print(f'  {workdir.name}: the other ended after {seconds:.1f} s with code {code}', flush=True)
  wrong = [f'exit code {code}'] * (code in (0, 2, 75))
  wrong += ['no reason given'] * (not any(message in output for message in MESSAGES))
  return '; '.join(wrong)


def list_checks(folder: pathlib.Path) -> Iterator[tuple[str, Callable[[], str]]]:
  for stage in ('pretrain', 'continual'):
    for processes in (2, 4):
      yield f'{stage} in {processes} processes', functools.partial(check_equal, stage, processes, folder)
  yield 'restart in 2, 1, 2 processes', functools.partial(check_restart, folder)
  yield 'different configs', functools.partial(check_refusal, folder)
  for number in (signal.SIGKILL, signal.SIGSTOP):
    for victim in (1, 0):
      yield (f'{signal.Signals(number).name} of process {victim}',
             functools.partial(check_death, victim, number, folder))


def run(folder: pathlib.Path) -> tuple[int, int]:
  """How many checks passed, and how many there are."""
  for stage in ('pretrain', 'continual'):
    workdir = folder / f'{stage}_1'
    if any(finish(start(stage, 1, DEVICES, folder, workdir, [f'--config.workdir={workdir}']))):
      raise RuntimeError(f'the run in one process failed, see {workdir}.0')
  checks = list(list_checks(folder))
  passed = 0
  for name, check in checks:
    began = time.monotonic()
    try:
      wrong = check()
    except (RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as error:
      wrong = f'{type(error).__name__}: {error}'
    passed += not wrong
    print(f'{name}: {wrong or "ok"}, {time.monotonic() - began:.0f} s', flush=True)
  return passed, len(checks)


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.hosts', description=__doc__.split('\n')[0])
  parser.add_argument('--folder', help='for the runs, which are kept; a temporary folder by default')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(options.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    passed, checks = run(folder)
  print(f'hosts: {passed} of {checks}')
  return int(passed < checks)


if __name__ == '__main__':
  sys.exit(main())
