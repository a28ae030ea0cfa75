"""How far a run is, how fast, and how long it will take: one line on a terminal, elsewhere a line now and then.

The time left is estimated for each task by itself, from its steps after compiling. While a step is compiled or a split
validated, the line counts the seconds: 'compiling the step of task lung ... 34 s'.
"""

import collections
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

RECENT = 50  # steps of a task whose mean time is its speed
EVERY, TICK = 30.0, 1.0  # s between lines, where there is no terminal and where there is one
BAR = '{desc} {percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt}{postfix}'


def is_shown() -> bool:
  """Whether a line can be overwritten: stderr is a terminal, and TQDM_DISABLE does not say otherwise."""
  return sys.stderr.isatty() and os.environ.get('TQDM_DISABLE', '0') in ('', '0', 'False', 'false')


def find_width() -> dict[str, Any]:
  """tqdm's options for the size of the terminal: its own, or 80 x 24 where it says 0, as some containers do."""
  try:
    columns = os.get_terminal_size(sys.stderr.fileno()).columns
  except (OSError, ValueError):
    columns = 0
  return {'dynamic_ncols': True} if columns else {'ncols': 80, 'nrows': 24}


class Progress:
  """Attributes:
    bar: the line; disabled where there is no terminal.
    left: {task: steps that are left}.
    validations: how many validations are left.
  """

  def __init__(self, name: str, start: int, left: Mapping[str, int], validations: int = 0) -> None:
    self.name, self.left, self.validations = name, dict(left), validations
    self.bar = tqdm(total=start + sum(left.values()), initial=start, desc=name, bar_format=BAR,
                    disable=not is_shown(), **find_width())
    self.seconds: dict[str, collections.deque[float]] = {}  # task -> of its last steps
    self.validation_seconds: list[float] = []
    self.paused = 0.0  # s, so far
    self.last_step = self.last_line = self.now()
    self.status = ''

  def now(self) -> float:
    """A clock, in seconds, that stands still in pauses."""
    return time.perf_counter() - self.paused

  def step(self, task: str, status: str) -> None:
    """Counts a step on `task`. `status`, such as the loss, is shown."""
    now = self.now()
    if task in self.seconds:
      self.seconds[task].append(now - self.last_step)
    else:  # the first step does not count: the device still allocates
      self.seconds[task] = collections.deque(maxlen=RECENT)
    self.last_step, self.status = now, status
    self.left[task] -= 1
    self.bar.n += 1
    self.show(status, sum(self.left.values()) == 0)

  def show(self, status: str, always: bool = False) -> None:
    """Shows `status` and the time left, at most twice a second on a terminal."""
    now = time.perf_counter()
    if not always and now - self.last_line < (EVERY if self.bar.disable else 0.5):
      return
    self.last_line = now
    text = ', '.join(filter(None, [status, self.describe_left()]))
    if self.bar.disable:
      done = sum(self.left.values())
      log.info('%s: step %d of %d, %s', self.name, self.bar.total - done, self.bar.total, text)
    else:
      self.bar.set_postfix_str(text)

  def estimate_left(self) -> float | None:
    """The seconds that are left; None before the second step. A task without a measured step counts as the mean of the
    others, and validations count once two have been measured: the first one compiles."""
    means = {task: sum(values) / len(values) for task, values in self.seconds.items() if values}
    if not means:
      return None
    other = sum(means.values()) / len(means)
    steps = sum(count * means.get(task, other) for task, count in self.left.items())
    return steps + self.validations * (min(self.validation_seconds[1:]) if self.validation_seconds[1:] else 0.0)

  def describe_left(self) -> str:
    seconds = self.estimate_left()
    return '' if seconds is None or not sum(self.left.values()) else f'{describe_seconds(seconds)} left'

  @contextlib.contextmanager
  def pause(self, reason: str) -> Iterator[None]:
    """Shows the reason and its seconds, and stops the clock, for the duration of the `with` block."""
    began = time.perf_counter()
    with tick(self.name, reason, None if self.bar.disable else self.bar.set_postfix_str):
      yield
    self.paused += time.perf_counter() - began
    if reason == 'validation':
      self.validation_seconds.append(time.perf_counter() - began)
      self.validations -= 1
    if not self.bar.disable:
      self.bar.set_postfix_str(self.status)

  def close(self) -> None:
    self.bar.close()


@contextlib.contextmanager
def open_progress(name: str, start: int, left: Mapping[str, int], validations: int = 0) -> Iterator[Progress]:
  """The progress of a run. On a terminal, lines of the log go above it."""
  progress = Progress(name, start, left, validations)
  handlers = [] if progress.bar.disable else logging.getLogger().handlers

  def clear(record: logging.LogRecord) -> bool:
    progress.bar.clear()  # it is drawn again with the next step or tick
    return True
  for handler in handlers:
    handler.addFilter(clear)
  try:
    yield progress
  finally:
    for handler in handlers:
      handler.removeFilter(clear)
    progress.close()


@contextlib.contextmanager
def announce(reason: str) -> Iterator[None]:
  """Shows the reason and its seconds for the duration of the `with` block, where no run has started yet."""
  if not is_shown():
    with tick('', reason, None):
      yield
    return
  with (tqdm(bar_format='{desc}', leave=False, disable=None, **find_width()) as bar,
        tick('', reason, bar.set_description_str)):
    yield


@contextlib.contextmanager
def tick(name: str, reason: str, show: Callable[[str], object] | None) -> Iterator[None]:
  """Shows 'REASON ... 34 s', every second by `show`, or in the log every EVERY seconds if that is None. The thread also
  runs while the main thread compiles."""
  began, ended = time.perf_counter(), threading.Event()

  def run() -> None:
    while not ended.wait(TICK if show else EVERY):
      line = f'{reason} ... {describe_seconds(time.perf_counter() - began)}'
      if show:
        show(line)
      else:
        log.info('%s%s', f'{name}: ' if name else '', line)
  if show:
    show(reason)
  thread = threading.Thread(target=run, name='progress', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


def describe_seconds(seconds: float) -> str:
  """'34 s', '2 min 30 s', '12 min', '3 h 20 min' or '2 days 4 h'."""
  if seconds < 100:
    return f'{seconds:.0f} s'
  minutes, rest = divmod(round(seconds), 60)
  if minutes < 10 and rest:
    return f'{minutes} min {rest} s'
  if minutes < 100:
    return f'{minutes} min'
  hours, minutes = divmod(minutes, 60)
  if hours < 48:
    return f'{hours} h {minutes} min'
  return f'{hours // 24} days {hours % 24} h'
