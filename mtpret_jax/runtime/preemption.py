"""SIGTERM and Ctrl-C: a run that is asked to stop saves what it has, and says that it can go on.

Inside of `defer_signals()`, where steps are taken, a signal is noted and the loop asks for it; elsewhere, and inside of
`interruptible()`, nothing has to be saved and it raises `Stopped` at once. A second signal ends the program on the spot.

One process on its own has its own handlers. Several processes must stop at the same step: there `jax.distributed` has
the handler of SIGTERM, and all are told at the same step (`jax.experimental.multihost_utils`).
"""

import contextlib
import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # exit code, EX_TEMPFAIL of sysexits.h: the same command goes on
GRACE = 3  # seconds that a free program may take to unwind; a compilation does not hear of an exception
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
  """The run was asked to stop. The message says where."""


class SignalState:
  """What the handlers know: the first signal that came, and whether the loop has something to save first."""

  received, deferred, exited, announced = None, False, None, False  # `announced`: the last line is said


def install_handlers():
  """Installs the handlers, in the main thread."""
  SignalState.received, SignalState.deferred, SignalState.announced = None, False, False
  SignalState.exited = threading.Event()
  if jax.process_count() > 1:
    signal.signal(signal.SIGINT, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    return
  for number in SIGNALS:
    signal.signal(number, handle_signal)
  receiver, sender = os.pipe()
  os.set_blocking(sender, False)
  signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
  threading.Thread(target=read_signals, args=(receiver, SignalState.exited), daemon=True, name='signals').start()


def handle_signal(number, frame):
  if SignalState.received is None:
    SignalState.received = number
    print_line(f'{signal_name(number)}: {"the step in flight is finished and saved" if SignalState.deferred else "stopping"}; '
         f'another signal stops at once')
  if not SignalState.deferred:
    raise Stopped(f'stopped by {signal_name(SignalState.received)}')


def read_signals(receiver, ended):
  """Hears signals also while the main thread is in a compilation: the second ends the program, and so does the first
  where nothing has to be saved and the main thread does not get away from what it does."""
  heard = 0
  while True:
    for number in os.read(receiver, 16):
      if number in SIGNALS:
        heard += 1
        if heard > 1:
          os._exit(128 + number)
        threading.Thread(target=exit_after_grace, args=(number, ended), daemon=True).start()


def exit_after_grace(number, ended):
  while not ended.wait(GRACE):
    if not SignalState.deferred:
      if not SignalState.announced:
        print_line(f'stopped by {signal_name(number)}; the same command goes on')
      os._exit(EXIT_CODE)


@contextlib.contextmanager
def defer_signals():
  """There is something to save: a signal waits until `is_asked` is."""
  SignalState.deferred = True
  try:
    yield
  finally:
    SignalState.deferred = False


@contextlib.contextmanager
def interruptible():
  """Everything is saved: a signal, or one that came before, raises `Stopped`."""
  before, SignalState.deferred = SignalState.deferred, False
  try:
    if SignalState.received is not None:
      raise Stopped(f'stopped by {signal_name(SignalState.received)}')
    yield
  finally:
    SignalState.deferred = before


def should_stop(step):
  """Whether the run is to stop before `step`. Several processes call this for each step, and agree."""
  if jax.process_count() > 1:
    return multihost_utils.reached_preemption_sync_point(step)
  return SignalState.received is not None


def describe_stop(step, steps):
  """The last line of a run that stops in the middle, its state saved."""
  return f'stopped by {signal_name(SignalState.received or signal.SIGTERM)} at step {step} of {steps}, which is saved'


def signal_name(number):
  return signal.Signals(number).name


def print_line(words):
  print(f'mtpret_jax: {words}', file=sys.stderr, flush=True)
