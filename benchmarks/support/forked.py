"""Real runs in processes of their own, without the seconds that imports take: everything is imported once, then forked.

This program must not start jax's backend itself, which does not survive a fork; what needs it goes through `ask`.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import time
import traceback

os.environ.setdefault('JAX_PLATFORMS', 'cpu')


from benchmarks.support import tiny
from mtpret_jax import cli

tiny.add_trunk()


def compile_into(folder):
  """What is compiled once is read back by every later process."""
  os.environ.update(JAX_COMPILATION_CACHE_DIR=str(folder), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
                    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='0')
  import jax
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)


@dataclasses.dataclass
class Child:
  """A process; `code` is its exit code, negative that of a signal, None while it runs."""

  pid: int
  code: int | None = None

  def ends(self):
    if self.code is None:
      done, status = os.waitpid(self.pid, os.WNOHANG)
      self.code = os.waitstatus_to_exitcode(status) if done else None
    return self.code is not None

  def send(self, number):
    if not self.ends():
      os.kill(self.pid, number)

  def wait(self, seconds=600):
    """The exit code; a child that still runs then is killed, with TimeoutError."""
    until = time.monotonic() + seconds
    while not self.ends():
      if time.monotonic() > until:
        self.send(signal.SIGKILL)
        raise TimeoutError(f'process {self.pid} still ran after {seconds} s')
      time.sleep(0.01)
    return self.code


def start(config, log, **fields):
  """A child with the command line `mtpret_jax.main --config=<config> --config.<field>=<value>`; what it says is
  added to the file `log`."""
  arguments = [f'--config={config}', *(f'--config.{name}={value}' for name, value in fields.items())]

  def run():
    with open(log, 'a', encoding='utf-8') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    sys.argv = ['main', *arguments]
    cli.run()
  return fork(run)


def ask(act):
  """What `act()` says, as text, in a process of its own."""
  reader, writer = os.pipe()
  child = fork(lambda: os.write(writer, act().encode()))
  os.close(writer)
  with open(reader, encoding='utf-8') as file:
    said = file.read()
  if child.wait():
    raise RuntimeError('the process that was asked died; what it said is above')
  return said


def fork(act):
  sys.stdout.flush()
  sys.stderr.flush()
  pid = os.fork()
  if pid:
    return Child(pid)
  code = 1
  try:
    act()
    code = 0
  except SystemExit as stop:
    code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def differ(workdir, other):
  """What differs between two finished runs, '' where nothing does: the last state bit for bit, the steps and losses in
  metrics.jsonl, validation.jsonl."""
  def compare():
    import jax
    import numpy as np

    from mtpret_jax.evaluation import validation
    from mtpret_jax.runtime import checkpoint
    from mtpret_jax.runtime.atomic_io import read_json_lines
    from mtpret_jax.runtime.logging import METRICS
    (state, _), (wanted, _) = (checkpoint.read_state(folder) for folder in (workdir, other))
    same = jax.tree.map(lambda one, two: one.dtype == two.dtype and one.tobytes() == two.tobytes(),
                        jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, wanted))
    words = [jax.tree_util.keystr(path) for path, equal in jax.tree_util.tree_leaves_with_path(same) if not equal][:3]
    lines, others = ([(line['step'], line['task'], line['loss']) for line in read_json_lines(pathlib.Path(folder, METRICS))]
                     for folder in (workdir, other))
    words += ['metrics.jsonl'] * (lines != others)
    words += ['validation.jsonl'] * (validation.read(workdir) != validation.read(other))
    return ', '.join(words)
  return ask(compare)
