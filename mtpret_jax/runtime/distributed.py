"""Several processes as one: they join, wait for the first, refuse together, and none is left waiting for a dead one.

What is small travels through jax's coordination service, a store of keys and values in the first process. Waiting there
has no limit but the heartbeat, while a collective has whatever limit the backend gives it.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
import traceback

import jax
from jax._src import distributed  # `global_state.client` has no public name; Orbax uses it as well

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import watchdog

FAILED = 1  # exit code of a process that cannot go on
MARGIN = 30  # s, by which the heartbeat waits longer than the watch on the steps, which says more
POLL = 10  # s
GRACE = 3  # s, in which the others notice before the first process ends and takes the coordination service with it
MEETING = 10  # s, in which the others come to an end that all of them have
COUNT = itertools.count()  # names a talk: all processes have them in the same order


def join(coordinator, processes, process, timeout):
  """Joins the processes of a run: 'host:port' of the first, how many there are and which this is, or None for each to
  find them in the environment of a TPU pod, Slurm, Open MPI or Kubernetes. A process that is silent for `timeout`
  seconds is given up. Raises ConfigError where that says too little."""
  given = {'--coordinator': coordinator, '--processes': processes, '--process': process}
  absent = [flag for flag, value in given.items() if value is None]
  if 0 < len(absent) < len(given):
    raise ConfigError(f'{" and ".join(absent)} missing: give --coordinator=HOST:PORT, --processes and --process '
                      f'together, or none of them where a TPU pod, Slurm, Open MPI or Kubernetes says so itself')
  try:
    jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=timeout + MARGIN,
                               cluster_detection_method=None if absent else 'deactivate')
  except ValueError as error:
    raise ConfigError(f'cannot join other processes ({error}): give --coordinator=HOST:PORT of the first, --processes, '
                      f'how many there are, and --process, which of them this is, from 0') from error
  signal.signal(signal.SIGABRT, signal.SIG_DFL)  # jax aborts when others are gone: its message says all, no stacks
  watchdog.start(timeout, FAILED)


def run_on_first(act, refusals=(ConfigError,)):
  """What `act()` returns (or JSON makes of it) in the first process, in all of them; the others wait for it, however
  long it takes. What it refuses is refused in all."""
  if not is_multiprocess():
    return act()
  key = f'mtpret_jax/{next(COUNT)}'
  if jax.process_index():
    said = json.loads(get(key))
    if 'refused' in said:
      raise ConfigError(said['refused'])
    return said['value']
  try:
    value = act()
  except refusals as error:
    put(key, json.dumps({'refused': str(error)}))
    raise
  put(key, json.dumps({'value': value}))
  return value


def run_on_all(act, refusals=(ConfigError,)):
  """`act()` in every process; where one refuses, all do."""
  if not is_multiprocess():
    return act()
  key, value, refused = f'mtpret_jax/{next(COUNT)}', None, None
  try:
    value = act()
  except refusals as error:
    refused = str(error)
  put(f'{key}/{jax.process_index()}', json.dumps(refused))

  def gather():
    for process in range(jax.process_count()):
      reason = json.loads(get(f'{key}/{process}'))
      if reason is not None:
        raise ConfigError(reason if process == 0 else f'process {process}: {reason}')
  run_on_first(gather)
  return value


def put(key, text):
  distributed.global_state.client.key_value_set(key, text)


def get(key):
  while True:
    try:
      return distributed.global_state.client.blocking_key_value_get(key, POLL * 1000)
    except jax.errors.JaxRuntimeError as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise


def check_same(facts):
  """Raises ConfigError where a process has other `facts` (a flat dict) than the first."""
  here = json.loads(json.dumps(facts))
  first = run_on_first(lambda: here)

  def compare():
    differing = [f'{name}: {first.get(name)!r} there, {here.get(name)!r} here'
                 for name in sorted(first | here) if first.get(name) != here.get(name)]
    if differing:
      raise ConfigError(f'differs from the first process ({"; ".join(differing)}): start the same command with the '
                        f'same versions everywhere')
  run_on_all(compare)


def check_shared_folder(folder, field):
  """Raises ConfigError where `folder` is not the same place for all processes."""
  if not is_multiprocess():
    return
  mark = run_on_first(lambda: tempfile.mkstemp(dir=folder, prefix='.shared-')[1])

  def look():
    until = time.monotonic() + GRACE  # network file systems may show a new file late
    while not os.path.exists(mark):
      if time.monotonic() > until:
        raise ConfigError(f'{field} {folder!r} is not the folder of that name that the first process has: put it on '
                          f'storage that all hosts share')
      time.sleep(0.1)
      os.listdir(folder)
  try:
    run_on_all(look)
  finally:
    if jax.process_index() == 0:
      os.remove(mark)


@contextlib.contextmanager
def exit_on_error(expected=()):
  """Where there are several processes, an error that is not `expected` (one that all of them have) ends this one at
  once: the others wait for it in a collective, and to leave in order would be to wait for them."""
  try:
    yield
  except expected:
    raise
  except Exception as error:
    if not is_multiprocess():
      raise
    traceback.print_exc()
    reason = next(iter(str(error).splitlines()), '')
    print_error(f'stops: {type(error).__name__}: {reason}. If another process died first, its own log says why; the same '
        f'command goes on from the last checkpoint')
    if jax.process_index() == 0:
      time.sleep(GRACE)
    exit_now(FAILED)


def print_error(text):
  print(f'mtpret_jax: {process_prefix()}{text}', file=sys.stderr, flush=True)


def process_prefix():
  """'process 1 of 4: ', or nothing where there is but one."""
  return f'process {jax.process_index()} of {jax.process_count()}: ' if is_multiprocess() else ''


def is_multiprocess():
  """Whether this is one of several processes; unlike jax.process_count() this does not start the backend."""
  return distributed.global_state.num_processes > 1


def exit_together(code):
  """Ends one of several processes. Where all of them are ending each has the time to say why; those that are not learn
  of this one."""
  if not is_multiprocess():
    return
  try:
    distributed.global_state.client.wait_at_barrier('mtpret_jax/leave', MEETING * 1000)
    if jax.process_index() == 0:
      time.sleep(GRACE)
  except jax.errors.JaxRuntimeError:
    pass
  exit_now(code)


def exit_now(code):
  """Ends this process without waiting for the others, as jax does at exit."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
