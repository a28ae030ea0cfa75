"""Real runs in child processes that do not repeat the imports: this process imports everything once and forks.

A JAX backend does not survive a fork, so this process must not start one. What needs a backend runs in `run_in_child`.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import sklearn.linear_model
import sklearn.neighbors  # noqa: F401

from mtpret_jax import cli, stages  # noqa: F401
from tests.support import plain_reports, small_runs

small_runs.add_trunk()
plain_reports.obey_environment()


def share_compiled_programs(folder: pathlib.Path) -> None:
  """What one child compiles is read back by every later one."""
  os.environ.update(JAX_COMPILATION_CACHE_DIR=str(folder), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
                    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='0')
  import jax
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


@dataclasses.dataclass
class Child:
  """A child process. `code` is its exit code, or minus the signal that ended it, or None while it runs."""

  pid: int
  code: int | None = None

  def has_ended(self) -> bool:
    if self.code is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      self.code = os.waitstatus_to_exitcode(status) if pid else None
    return self.code is not None

  def send(self, number: int) -> None:
    """Sends a signal, unless the child has ended."""
    if not self.has_ended():
      os.kill(self.pid, number)

  def wait(self, seconds: float = 600) -> int:
    """The exit code. Kills a child that still runs after `seconds`, and raises TimeoutError."""
    until = time.monotonic() + seconds
    while not self.has_ended():
      if time.monotonic() > until:
        self.send(signal.SIGKILL)
        raise TimeoutError(f'process {self.pid} still ran after {seconds} s')
      time.sleep(0.01)
    return self.code or 0


def start(config: str, log: pathlib.Path, **fields: Any) -> Child:
  """Starts `mtpret_jax.main --config=<config> --config.<field>=<value> ...`; its output is appended to `log`."""
  arguments = [f'--config={config}', *(f'--config.{name}={value}' for name, value in fields.items())]

  def run() -> None:
    with open(log, 'a', encoding='utf-8') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    sys.argv = ['main', *arguments]
    cli.run()
  return fork(run)


def run_in_child(function: Callable[[], str]) -> str:
  """Calls `function` in a child process and returns its text. Raises RuntimeError if the child fails."""
  reader, writer = os.pipe()
  child = fork(lambda: os.write(writer, function().encode()))
  os.close(writer)
  with open(reader, encoding='utf-8') as file:
    text = file.read()
  if child.wait():
    raise RuntimeError('a child process failed; its error is above')
  return text


def fork(function: Callable[[], Any]) -> Child:
  """Calls `function` in a child process, which then exits; SystemExit sets its exit code."""
  sys.stdout.flush()
  sys.stderr.flush()
  pid = os.fork()
  if pid:
    return Child(pid)
  code = 1
  try:
    function()
    code = 0
  except SystemExit as stop:
    code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def find_difference(workdir: pathlib.Path, reference: pathlib.Path) -> str:
  """What differs between two finished runs that must be equal, in words; '' if nothing does.

  Compares the last states bit for bit, the steps and losses of metrics.jsonl, validation.jsonl and probes.jsonl."""
  def compare() -> str:
    import jax
    import numpy as np

    from mtpret_jax.evaluation import training_probe, validation
    from mtpret_jax.runtime import checkpoint
    from mtpret_jax.runtime.atomic_io import read_json_lines
    from mtpret_jax.runtime.logging import METRICS
    (state, _), (wanted, _) = (checkpoint.read_state(folder) for folder in (workdir, reference))
    equal = jax.tree.map(lambda one, two: one.dtype == two.dtype and one.tobytes() == two.tobytes(),
                         jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, wanted))
    names = [jax.tree_util.keystr(path) for path, same in jax.tree_util.tree_leaves_with_path(equal) if not same][:3]
    losses, others = ([(line['step'], line['task'], line['loss'])
                       for line in read_json_lines(pathlib.Path(folder, METRICS))] for folder in (workdir, reference))
    names += ['metrics.jsonl'] * (losses != others)
    names += ['validation.jsonl'] * (validation.read(workdir) != validation.read(reference))
    names += ['probes.jsonl'] * (training_probe.read(workdir) != training_probe.read(reference))
    return ', '.join(names)
  return run_in_child(compare)
