"""Several processes on this machine: do they end as one does, and does none wait for a dead one?

    python -m benchmarks.hosts

Runs of `benchmarks/smooth.py` in 1, 2 and 4 processes joined by `jax.distributed` over loopback, always four devices
and the same global batches:

  equal      stages 1 and 2 in 2 and in 4 processes end in the state that one process ends in, with the same validation
  restart    stage 1 is stopped by SIGTERM to one of two processes, goes on in one, is stopped, goes on in two
  refusal    processes with different configs refuse to begin, all with exit code 2
  death      kill -9 or SIGSTOP of the first or the other process: the one that is left ends in time and says why

Sums over processes are taken in another order than sums over the devices of one, so that states are compared with a
tolerance. About 10 minutes on two idle cores.
"""

import argparse
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
DEVICES, LIMIT, TOLERANCE = 4, 10, 1e-5  # LIMIT: s, --stall_timeout
MARGIN = 35  # s after that, within which jax's heartbeat ends a process that waited for something other than a step
WORDS = ('another process', 'another task died')  # ours, and jax's own where its abort comes first


def start(config, processes, devices, folder, log, flags=(), own=()):
  """The processes of a run, each with `devices` devices; `own`: flags of the last one alone. What they say is in
  <log>.<process>."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
                 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
                 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'}
  children = []
  for process in range(processes):
    joined = ['--distributed', f'--coordinator=127.0.0.1:{port}', f'--processes={processes}', f'--process={process}']
    command = [sys.executable, '-m', 'benchmarks.smooth', f'--config=benchmarks/support/tiny.py:{config}',
               f'--config.data.dir={folder / "data"}', *flags, *(own if process == processes - 1 else ()),
               *(joined if processes > 1 else ())]
    with open(f'{log}.{process}', 'w') as file:
      children.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT))
  return children


def finish(children, seconds=600):
  """Their exit codes; what still runs then is killed."""
  until = time.monotonic() + seconds
  try:
    return [child.wait(max(0.1, until - time.monotonic())) for child in children]
  finally:
    for child in children:
      child.kill()


def wait_for_lines(workdir, count, children, seconds=300):
  """Until a run has logged so many steps. Raises RuntimeError where one of its processes ends before."""
  path, until = workdir / 'metrics.jsonl', time.monotonic() + seconds
  while not path.exists() or path.read_text().count('\n') < count:
    if time.monotonic() > until or any(child.poll() is not None for child in children):
      raise RuntimeError(f'{workdir} did not get to step {count}')
    time.sleep(0.05)


def compare(workdir, other):
  """(largest difference of any number of the last states, of any loss)."""
  from jax import tree

  from mtpret_jax.runtime import checkpoint
  (one, _), (two, _) = checkpoint.read_state(workdir), checkpoint.read_state(other)
  if one['step'] != two['step']:
    raise ValueError(f'step {one["step"]} against {two["step"]}')
  state = max(tree.leaves(tree.map(lambda a, b: float(np.abs(np.asarray(a, float) - b).max()), one, two)))
  losses, others = read_losses(workdir), read_losses(other)
  return state, max(abs(losses[step] - others[step]) for step in losses | others)


def read_losses(workdir):
  """{step: loss}; a step that was logged twice is an error."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = {(line['step'], line['task']): line['loss'] for line in lines}
  if len(losses) != len(lines):
    raise ValueError(f'{len(lines)} lines for {len(losses)} steps in {workdir}')
  return losses


def judge(workdir, one):
  """What differs between two finished runs, in words; '' where nothing does."""
  state, loss = compare(workdir, one)
  print(f'  {workdir.name}: states within {state:.1e}, losses within {loss:.1e}', flush=True)
  words = [f'states differ by {state}'] * (state > TOLERANCE) + [f'losses differ by {loss}'] * (loss > TOLERANCE)
  words += ['no results.json'] * ((one / 'results.json').exists() and not (workdir / 'results.json').exists())
  ours, alone = read_validation(workdir), read_validation(one)
  words += [f'validation {ours} against {alone}'] * (ours.keys() != alone.keys() or not all(
    math.isclose(ours[at], alone[at], rel_tol=TOLERANCE) for at in alone))
  return '; '.join(words)


def read_validation(workdir):
  """{(step, task): headline}; {} where nothing was validated."""
  path = workdir / 'validation.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
  return {(line['step'], task): score['value'] for line in lines for task, score in line['tasks'].items()}


def check_equal(stage, processes, folder):
  workdir = folder / f'{stage}_{processes}'
  codes = finish(start(stage, processes, DEVICES // processes, folder, workdir, [f'--config.workdir={workdir}']))
  return f'exit codes {codes}' if any(codes) else judge(workdir, folder / f'{stage}_1')


def check_restart(folder):
  """Two processes, one, two; the whole run has 60 steps."""
  flags, one = ['--config.steps=60', '--config.probe.images=8'], folder / 'whole'
  if any(finish(start('pretrain', 1, DEVICES, folder, one, [*flags, f'--config.workdir={one}']))):
    return f'the undisturbed run failed, see {one}.0'
  workdir, reached = folder / 'restarted', []
  for turn, (processes, lines) in enumerate([(2, 5), (1, 30), (2, None)]):
    children = start('pretrain', processes, DEVICES // processes, folder, folder / f'restarted_{turn}',
                     [*flags, f'--config.workdir={workdir}'])
    if lines:
      wait_for_lines(workdir, lines, children)
      children[-1].send_signal(signal.SIGTERM)
    codes = finish(children)
    if set(codes) != ({75} if lines else {0}):
      return f'exit codes {codes} of turn {turn}'
    reached.append(max(int(path.stem) for path in workdir.glob('checkpoints/*.sha256')))
  print(f'  restarted at steps {reached[:-1]} of 60', flush=True)
  return judge(workdir, one)


def check_refusal(folder):
  workdir = folder / 'refused'
  codes = finish(start('pretrain', 2, 2, folder, workdir, [f'--config.workdir={workdir}'], ['--config.seed=1']))
  said = pathlib.Path(f'{workdir}.1').read_text()
  return '' if codes == [2, 2] and 'seed: 0 there, 1 here' in said else f'exit codes {codes}: {said[-300:]}'


def check_death(victim, number, folder):
  """'' where the other process ends in time, with a code of failure and words that say why."""
  workdir = folder / f'{signal.Signals(number).name}_{victim}'
  children = start('pretrain', 2, 2, folder, workdir,
                   [f'--config.workdir={workdir}', f'--stall_timeout={LIMIT}', '--config.steps=100000',
                    '--config.save_every=1000'])
  try:
    wait_for_lines(workdir, 5, children)
    children[victim].send_signal(number)
    began = time.monotonic()
    code = finish([children[1 - victim]], LIMIT + MARGIN)[0]
    took = time.monotonic() - began
  except subprocess.TimeoutExpired:
    return f'still ran after {LIMIT + MARGIN} s'
  finally:
    for child in children:
      child.kill()
      child.wait()
  said = pathlib.Path(f'{workdir}.{1 - victim}').read_text(errors='replace')
  print(f'  {workdir.name}: the other ended after {took:.1f} s with code {code}', flush=True)
  words = [f'exit code {code}'] * (code in (0, 2, 75)) + ['no words'] * (not any(word in said for word in WORDS))
  return '; '.join(words)


def list_checks(folder):
  for stage in ('pretrain', 'continual'):
    for processes in (2, 4):
      yield f'{stage} in {processes} processes', lambda s=stage, p=processes: check_equal(s, p, folder)
  yield 'restart in 2, 1, 2 processes', lambda: check_restart(folder)
  yield 'another config is refused', lambda: check_refusal(folder)
  for number in (signal.SIGKILL, signal.SIGSTOP):
    for victim in (1, 0):
      yield f'{signal.Signals(number).name} of process {victim}', lambda n=number, v=victim: check_death(v, n, folder)


def run(folder):
  """(how many checks passed, of how many)."""
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
    print(f'{name}: {wrong or "as it must be"}, {time.monotonic() - began:.0f} s', flush=True)
  return passed, len(checks)


def main():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.hosts', description=__doc__.split('\n')[0])
  parser.add_argument('--folder', help='for the runs, which stay there; a temporary one without')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(options.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    passed, of = run(folder)
  print(f'hosts: {passed} of {of}')
  return int(passed < of)


if __name__ == '__main__':
  sys.exit(main())
