"""SIGTERM and Ctrl-C: the run saves its state, says so, and ends with an exit code that means "resume me".

While steps are taken, inside `defer_signals()`, a signal only sets a flag that the loop reads with `should_stop`.
Elsewhere, and inside `interruptible()`, there is nothing to save and a signal raises `Stopped` at once. So does one
inside `abandonable()`, where the loop compiles: the loop then saves. A second signal ends the program immediately.

Python ignores exceptions in some places, such as callbacks of weak references and `__del__`, and prints them. A signal
may arrive there. `Stopped` is then not printed but raised again a moment later.

A single process has its own handlers. Several processes must stop at the same step: there `jax.distributed` handles
SIGTERM and agrees on a step with all processes (`jax.experimental.multihost_utils`).
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes
RETRY = 0.1  # s until Stopped is raised again, where Python ignored it
GRACE = 3  # s that the main thread has to exit; it may be compiling, which no exception interrupts
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
  """The run was told to stop; the message says where. Not an Exception, so that no handler of errors catches it."""


class SignalState:
  """What the signal handlers share with the loop.

  Attributes:
    received: the first signal, or None.
    deferred: whether the loop has something to save before it stops.
    abandons: whether what runs now is left halfway, although there is something to save.
    announced: whether the message that the run stopped was printed.
  """

  received: int | None = None
  deferred = False
  abandons = False
  announced = False


def install_handlers() -> None:
  """Installs the signal handlers; call this in the main thread."""
  SignalState.received = None
  SignalState.deferred = SignalState.abandons = SignalState.announced = False
  if jax.process_count() > 1:
    signal.signal(signal.SIGINT, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    return
  for number in (*SIGNALS, signal.SIGALRM):
    signal.signal(number, handle_signal)
  sys.unraisablehook = functools.partial(handle_ignored, sys.unraisablehook)
  receiver, sender = os.pipe()
  os.set_blocking(sender, False)
  signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
  threading.Thread(target=read_signals, args=(receiver,), daemon=True, name='signals').start()


def handle_signal(number: int, frame: FrameType | None) -> None:
  if SignalState.received is None:
    SignalState.received = number
    action = 'finishing and saving the current step' if SignalState.deferred else 'stopping'
    print_line(f'{signal_name(number)}: {action}; a second signal exits immediately, without saving')
  if SignalState.announced:  # SIGALRM may come after the run has stopped
    return
  if SignalState.abandons or not SignalState.deferred:
    raise Stopped(f'stopped by {signal_name(SignalState.received)}')


def handle_ignored(before: Callable[[Any], object], ignored: Any) -> None:
  """Python's hook for exceptions that it ignores; `before` is the hook for all but `Stopped`."""
  if isinstance(ignored.exc_value, Stopped):
    signal.setitimer(signal.ITIMER_REAL, RETRY)  # SIGALRM calls `handle_signal` again
  else:
    before(ignored)


def read_signals(receiver: int) -> None:
  """Runs in its own thread, because Python's handlers wait while the main thread compiles. The second signal ends the
  program; so does the first if there is nothing to save and the main thread does not exit in time."""
  count = 0
  while True:
    for number in os.read(receiver, 16):
      if number in SIGNALS:
        count += 1
        if count > 1:
          os._exit(128 + number)
        threading.Thread(target=exit_after_grace, args=(number,), daemon=True).start()


def exit_after_grace(number: int) -> None:
  while True:
    time.sleep(GRACE)
    if not SignalState.deferred:
      if not SignalState.announced:
        print_line(f'stopped by {signal_name(number)}; run the same command to resume')
      os._exit(EXIT_CODE)


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
  """There is something to save: a signal waits until the loop calls `should_stop`."""
  SignalState.deferred = True
  try:
    yield
  finally:
    SignalState.deferred = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Everything is saved: a signal raises `Stopped` at once, and so does one that came before."""
  before, SignalState.deferred = SignalState.deferred, False
  try:
    if SignalState.received is not None:
      raise Stopped(f'stopped by {signal_name(SignalState.received)}')
    yield
  finally:
    SignalState.deferred = before


@contextlib.contextmanager
def abandonable() -> Iterator[None]:
  """The body, such as compiling, may be left halfway. Raises `Stopped` on a signal, also on one received earlier. The
  caller then saves what there is to save."""
  SignalState.abandons = True
  try:
    if SignalState.received is not None:
      raise Stopped(f'stopped by {signal_name(SignalState.received)}')
    yield
  finally:
    SignalState.abandons = False


def should_stop(step: int) -> bool:
  """Whether to stop before `step`. With several processes, all call this for each step and get the same answer."""
  if jax.process_count() > 1:
    return multihost_utils.reached_preemption_sync_point(step)
  return SignalState.received is not None


def describe_stop(step: int, steps: int) -> str:
  """The last line of a run that stops in the middle, after its state is saved."""
  return f'stopped by {signal_name(SignalState.received or signal.SIGTERM)} at step {step} of {steps}, which is saved'


def signal_name(number: int) -> str:
  return signal.Signals(number).name


def print_line(message: str) -> None:
  # Not `print`: it raises RuntimeError if the signal interrupts another write to sys.stderr.
  os.write(2, f'mtpret_jax: {message}\n'.encode())
