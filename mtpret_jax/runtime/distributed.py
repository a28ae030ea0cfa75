"""Several processes run as one: they join, fail together with one message, and never wait for a dead process.

Processes exchange small values through jax's coordination service, a key-value store in the first process. A wait for a
key ends only if jax's heartbeat finds a process dead; a collective has the time limit of its backend.
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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from jax._src import distributed  # `global_state.client` has no public name; Orbax also uses this one

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import watchdog

FAILED = 1  # exit code of a process that cannot continue
# s added to the heartbeat's timeout, so that the watchdog, whose message is more precise, fires first.
HEARTBEAT_MARGIN = 30
POLL = 10  # s
GRACE = 3  # s for the others to notice, before the first process exits and takes the coordination service with it
FILE_DELAY = 3  # s after which a network file system shows a new file on every host
EXIT_BARRIER = 10  # s that processes wait for each other before they exit together
COUNTER = itertools.count()  # makes the keys of the store unique: all processes exchange values in the same order


def join(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
  """Joins the processes of a run.

  Args:
    coordinator: 'host:port' of the first process.
    processes: how many there are.
    process: the index of this one. All three are None where a TPU pod, Slurm, Open MPI or Kubernetes sets them.
    timeout: seconds without a sign of life after which a process counts as dead.

  Raises:
    ConfigError: only some of the three are given, or jax cannot find the others.
  """
  given = {'--coordinator': coordinator, '--processes': processes, '--process': process}
  missing = [flag for flag, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    raise ConfigError(f'{" and ".join(missing)} missing: give --coordinator=HOST:PORT, --processes and --process '
                      f'together, or none of them on a TPU pod, Slurm, Open MPI or Kubernetes, which set them')
  try:
    jax.distributed.initialize(coordinator, processes, process,
                               heartbeat_timeout_seconds=timeout + HEARTBEAT_MARGIN,
                               cluster_detection_method=None if missing else 'deactivate')
  except ValueError as error:
    raise ConfigError(f'cannot join other processes ({error}): give --coordinator=HOST:PORT (of the first process), '
                      f'--processes (their number) and --process (the index of this one, from 0)') from error
  # jax aborts when another process dies; without a handler, no stack dump follows its message.
  signal.signal(signal.SIGABRT, signal.SIG_DFL)
  watchdog.start(timeout, FAILED)


def run_on_first(function: Callable[[], Any], errors: tuple = (ConfigError,)) -> Any:
  """Runs `function` on the first process and returns its value, sent as JSON, on all. The others wait without a limit.
  If it raises one of `errors`, the first process raises that error and the others raise ConfigError."""
  if not is_multiprocess():
    return function()
  key = f'mtpret_jax/{next(COUNTER)}'
  if jax.process_index():
    reply = json.loads(get(key))
    if 'error' in reply:
      raise ConfigError(reply['error'])
    return reply['value']
  try:
    value = function()
  except errors as error:
    put(key, json.dumps({'error': str(error)}))
    raise
  put(key, json.dumps({'value': value}))
  return value


def run_on_all(function: Callable[[], Any], errors: tuple = (ConfigError,)) -> Any:
  """Runs `function` on every process and returns each one's own value. If it raises one of `errors` anywhere, all
  processes raise ConfigError."""
  if not is_multiprocess():
    return function()
  key, value, message = f'mtpret_jax/{next(COUNTER)}', None, None
  try:
    value = function()
  except errors as error:
    message = str(error)
  put(f'{key}/{jax.process_index()}', json.dumps(message))

  def raise_first_error() -> None:
    for process in range(jax.process_count()):
      message = json.loads(get(f'{key}/{process}'))
      if message is not None:
        raise ConfigError(message if process == 0 else f'process {process}: {message}')
  run_on_first(raise_first_error)
  return value


def client() -> Any:
  """The key-value store."""
  return distributed.global_state.client


def put(key: str, text: str) -> None:
  client().key_value_set(key, text)


def get(key: str) -> str:
  """Waits for the key."""
  while True:
    try:
      return client().blocking_key_value_get(key, POLL * 1000)
    except jax.errors.JaxRuntimeError as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise


def check_same(facts: Mapping[str, Any]) -> None:
  """Raises ConfigError on all processes if the `facts` (a flat dict) of one differ from those of the first."""
  own = json.loads(json.dumps(facts))
  first = run_on_first(lambda: own)

  def compare() -> None:
    differing = [f'{name} is {first.get(name)!r} on the first process and {own.get(name)!r} on this one'
                 for name in sorted(first | own) if first.get(name) != own.get(name)]
    if differing:
      raise ConfigError(f'this process differs from the first ({"; ".join(differing)}): start the same command with '
                        f'the same versions everywhere')
  run_on_all(compare)


def check_shared_folder(folder: str, field: str) -> None:
  """Raises ConfigError if the processes see different folders under this path; `field` is its config field."""
  if not is_multiprocess():
    return

  def make_marker() -> str:
    os.makedirs(folder, exist_ok=True)
    descriptor, path = tempfile.mkstemp(dir=folder, prefix='.shared-')
    os.close(descriptor)
    return path

  marker = run_on_first(make_marker)

  def find_marker() -> None:
    deadline = time.monotonic() + FILE_DELAY
    while not os.path.exists(marker):
      if time.monotonic() > deadline:
        raise ConfigError(f'{field}={folder!r} is not the same folder as on the first process: put it on storage that '
                          f'all hosts share')
      time.sleep(0.1)
      os.makedirs(folder, exist_ok=True)
      os.listdir(folder)  # makes NFS refresh its cache
  try:
    run_on_all(find_marker)
  finally:
    if jax.process_index() == 0:
      os.remove(marker)


@contextlib.contextmanager
def exit_on_error(expected: tuple = ()) -> Iterator[None]:
  """With several processes, an error inside ends this process at once, unless it is in `expected`, the errors that all
  processes raise together.

  The other processes are waiting for this one in a collective. A normal exit would wait for them: a deadlock.
  """
  try:
    yield
  except expected:
    raise
  except Exception as error:
    if not is_multiprocess():
      raise
    traceback.print_exc()
    reason = next(iter(str(error).splitlines()), '')
    print_error(f'stopping after {type(error).__name__}: {reason}. If another process died first, its own log says '
                f'why; the same command resumes from the last checkpoint')
    if jax.process_index() == 0:
      time.sleep(GRACE)
    exit_now(FAILED)


def print_error(message: object) -> None:
  print(f'mtpret_jax: {process_prefix()}{message}', file=sys.stderr, flush=True)


def process_prefix() -> str:
  """'process 1 of 4: ', or '' if there is only one."""
  return f'process {jax.process_index()} of {jax.process_count()}: ' if is_multiprocess() else ''


def is_multiprocess() -> bool:
  """Whether this is one of several processes; unlike jax.process_count() this does not start the backend."""
  return distributed.global_state.num_processes > 1


def exit_together(code: int) -> None:
  """Ends this process if it is one of several. Waits a few seconds for the others: if all exit, each can print why; if
  only this one exits, the others notice."""
  if not is_multiprocess():
    return
  try:
    client().wait_at_barrier('mtpret_jax/exit', EXIT_BARRIER * 1000)
    if jax.process_index() == 0:
      time.sleep(GRACE)
  except jax.errors.JaxRuntimeError:
    pass
  exit_now(code)


def exit_now(code: int) -> NoReturn:
  """Ends this process without waiting for the others, as jax does at exit."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
