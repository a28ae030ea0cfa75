"""SIGTERM and Ctrl-C: a run that is asked to stop saves what it has, and says that it can go on.

Inside of `deferred()`, where steps are taken, a signal is noted and the loop asks for it; elsewhere, and inside of
`free()`, nothing has to be saved and it raises `Stopped` at once. A second signal ends the program on the spot.

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

CODE = 75  # exit code, EX_TEMPFAIL of sysexits.h: the same command goes on
GRACE = 3  # seconds that a free program may take to unwind; a compilation does not hear of an exception
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
  """The run was asked to stop. The message says where."""


class Notice:
  """What the handlers know: the first signal that came, and whether the loop has something to save first."""

  asked, deferred, ended, told = None, False, None, False  # `told`: the last line is said


def listen():
  """Installs the handlers, in the main thread."""
  Notice.asked, Notice.deferred, Notice.told = None, False, False
  Notice.ended = threading.Event()
  if jax.process_count() > 1:
    signal.signal(signal.SIGINT, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    return
  for number in SIGNALS:
    signal.signal(number, note)
  receiver, sender = os.pipe()
  os.set_blocking(sender, False)
  signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
  threading.Thread(target=stand_by, args=(receiver, Notice.ended), daemon=True, name='signals').start()


def note(number, frame):
  if Notice.asked is None:
    Notice.asked = number
    tell(f'{name(number)}: {"the step in flight is finished and saved" if Notice.deferred else "stopping"}; '
         f'another signal stops at once')
  if not Notice.deferred:
    raise Stopped(f'stopped by {name(Notice.asked)}')


def stand_by(receiver, ended):
  """Hears signals also while the main thread is in a compilation: the second ends the program, and so does the first
  where nothing has to be saved and the main thread does not get away from what it does."""
  heard = 0
  while True:
    for number in os.read(receiver, 16):
      if number in SIGNALS:
        heard += 1
        if heard > 1:
          os._exit(128 + number)
        threading.Thread(target=insist, args=(number, ended), daemon=True).start()


def insist(number, ended):
  while not ended.wait(GRACE):
    if not Notice.deferred:
      if not Notice.told:
        tell(f'stopped by {name(number)}; the same command goes on')
      os._exit(CODE)


@contextlib.contextmanager
def deferred():
  """There is something to save: a signal waits until `is_asked` is."""
  Notice.deferred = True
  try:
    yield
  finally:
    Notice.deferred = False


@contextlib.contextmanager
def free():
  """Everything is saved: a signal, or one that came before, raises `Stopped`."""
  before, Notice.deferred = Notice.deferred, False
  try:
    if Notice.asked is not None:
      raise Stopped(f'stopped by {name(Notice.asked)}')
    yield
  finally:
    Notice.deferred = before


def is_asked(step):
  """Whether the run is to stop before `step`. Several processes call this for each step, and agree."""
  if jax.process_count() > 1:
    return multihost_utils.reached_preemption_sync_point(step)
  return Notice.asked is not None


def describe(step, steps):
  """The last line of a run that stops in the middle, its state saved."""
  return f'stopped by {name(Notice.asked or signal.SIGTERM)} at step {step} of {steps}, which is saved'


def name(number):
  return signal.Signals(number).name


def tell(words):
  print(f'mtpret_jax: {words}', file=sys.stderr, flush=True)
