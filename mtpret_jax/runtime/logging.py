"""What a run shows and writes while it trains: its config, its progress, TensorBoard events and `metrics.jsonl`."""

import contextlib
import functools
import importlib.metadata
import json
import logging
import pathlib
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

import jax
import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

import mtpret_jax
from mtpret_jax.config import saved
from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.runtime import events
from mtpret_jax.runtime.atomic_io import read_json_lines, write_atomically
from mtpret_jax.runtime.pictures import optional_picture
from mtpret_jax.runtime.progress import Progress, describe_seconds, open_progress

log = logging.getLogger(__name__)

METRICS = 'metrics.jsonl'
LIBRARIES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy',
             'opencv-python-headless')

TABLES = 'results.txt'  # of stage 1
# What a run writes after training; `test_scores.is_finished` takes the first three as proof that it is finished.
RESULTS = ('results.json', 'rounds.json', 'scores.json', 'operating_points.json', TABLES)


def save_config(workdir: str | pathlib.Path, config: ConfigDict) -> None:
  """Writes `config.json`: the config, with its fields in order, and the versions of the libraries."""
  text = json.dumps({'config': config.to_dict(), 'versions': list_versions()}, indent=2)
  write_atomically(pathlib.Path(workdir, saved.FILE), f'{text}\n')


def list_versions() -> dict[str, str]:
  devices = jax.devices()
  return {'devices': f'{len(devices)} x {devices[0].device_kind}', 'commit': find_commit(), **list_libraries()}


def list_libraries() -> dict[str, str]:
  return {'python': platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


@functools.cache  # a commit during a run changes nothing that this process has imported
def find_commit() -> str:
  """The git commit of this package, with '-dirty' if its files have changed since; without git, its version."""
  root = pathlib.Path(__file__).parents[2]
  if (root / '.git').exists():  # an installed package may lie in the repository of another project
    command = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # no git, or a repository of another user
      return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
  return mtpret_jax.__version__


class RunLog:
  """The log of the first process. Pauses, such as compiling, count neither in images/s nor in the time left."""

  def __init__(self, config: ConfigDict, steps: int, progress: Progress, events: SummaryWriter, lines: TextIO) -> None:
    self.config, self.steps = config, steps
    self.progress, self.events, self.lines = progress, events, lines
    self.rows: dict[str, list] = {}  # task -> the measures of its steps since the last write
    self.images = 0  # in all steps since the last write
    self.since = progress.now()
    self.speed = ''

  @contextlib.contextmanager
  def compiling(self, task: str) -> Iterator[None]:
    """Shows that the step of `task` is being compiled, for the duration of the `with` block."""
    log.info('compiling the step of task %s; this takes 10 s to several minutes, less if it is cached', task)
    began = time.perf_counter()
    with self.pause(f'compiling the step of task {task}'):
      yield
    log.info('compiled the step of task %s in %s', task, describe_seconds(time.perf_counter() - began))

  def pause(self, reason: str) -> contextlib.AbstractContextManager[None]:
    """Shows the reason, and stops the clocks, for the duration of the `with` block."""
    return self.progress.pause(reason)

  def add_picture(self, name: str, draw: Callable[[], np.ndarray], step: int) -> None:
    """Adds a picture (H, W, 3) uint8 to TensorBoard. `draw` is called in the first process only."""
    with self.pause('drawing'), optional_picture(name):
      events.add_picture(self.events, name, draw(), step)

  def add(self, step: int, task: str, measures: Mapping[str, float] | None) -> None:
    """Adds a step; `measures` is None for a skipped one. Every `log_every` steps, the means of each task's measures
    since the last time are written."""
    status = f'{task} loss {measures["loss"]:.3f}' if measures is not None else f'{task} step skipped'
    self.progress.step(task, f'{status}{self.speed}')
    if measures is not None:
      self.rows.setdefault(task, []).append(measures)
    self.images += batch_size(self.config, task)
    done = step + 1
    if done % self.config.log_every == 0 or done == self.steps:
      self.write(done)

  def finish(self, done: int) -> None:
    """Writes what is left of a run that ends early, after `done` steps."""
    if self.rows:
      self.write(done)

  def write(self, done: int) -> None:
    now = self.progress.now()
    seconds = now - self.since
    waited = sum(measures['waited'] for rows in self.rows.values() for measures in rows)
    shared = {'images_per_second': self.images / seconds, 'waited': waited / seconds}
    for task, rows in self.rows.items():
      means = {name: sum(measures[name] for measures in rows) / len(rows) for name in rows[0]} | shared
      for name, value in means.items():
        events.add_measure(self.events, 'pretraining' if task == 'moco' else task, name, value, done)
      self.lines.write(json.dumps({'step': done, 'task': task} | means) + '\n')
    self.lines.flush()
    speed = shared['images_per_second']
    self.speed = f', {speed:.{0 if speed >= 10 else 1}f} images/s'
    self.rows, self.images, self.since = {}, 0, now


class SilentLog:
  """Stands in for `RunLog` in all processes but the first, and does nothing."""

  def compiling(self, task: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()

  def pause(self, reason: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()

  def add_picture(self, name: str, draw: Callable[[], np.ndarray], step: int) -> None:
    pass

  def add(self, step: int, task: str, measures: Mapping[str, float] | None) -> None:
    pass

  def finish(self, done: int) -> None:
    pass


@contextlib.contextmanager
def open_log(workdir: str | pathlib.Path, start: int, left: Mapping[str, int], config: ConfigDict,
             validations: int = 0) -> Iterator[RunLog | SilentLog]:
  """The log of a run that starts or resumes at step `start`. Lines that an interrupted run wrote for later steps are
  dropped, since those steps are taken again.

  Args:
    left: {task: how many steps it takes from `start` on}.
    validations: how often the run is validated from `start` on.
  """
  if jax.process_index():
    yield SilentLog()
    return
  steps = start + sum(left.values())
  if start < steps:
    # Before the config changes: with the new config, the results of an earlier run would look like those of this one.
    for name in RESULTS:
      pathlib.Path(workdir, name).unlink(missing_ok=True)
  save_config(workdir, config)
  drop_later_lines(pathlib.Path(workdir, METRICS), start)
  with contextlib.ExitStack() as stack:
    writer = stack.enter_context(events.open_events(workdir))
    events.mark_start(writer, start)
    progress = stack.enter_context(open_progress(config.name, start, left, validations))
    lines = stack.enter_context(open(pathlib.Path(workdir, METRICS), 'a'))
    yield RunLog(config, steps, progress, writer, lines)


def drop_later_lines(path: pathlib.Path, start: int) -> None:
  """Keeps the lines of the first `start` steps."""
  if path.exists():
    lines = [line for line in read_json_lines(path) if line['step'] <= start]
    write_atomically(path, ''.join(json.dumps(line) + '\n' for line in lines))


def batch_size(config: ConfigDict, task: str) -> int:
  """Images in a step of `task`."""
  if config.objective == 'moco':
    return config.batch
  return sum(task_config.batch for name, task_config in config.tasks.items() if task in (name, JOINT))
