"""Ways to interrupt a run at a given step."""

import contextlib
import signal
import sys
import threading
from unittest import mock

from mtpret_jax import train
from mtpret_jax.runtime import preemption


@contextlib.contextmanager
def listen():
  """Installs the signal handlers of a run, but not the thread that ends the program. Restores all at the end."""
  before = {number: signal.getsignal(number) for number in (*preemption.SIGNALS, signal.SIGALRM)}
  hook = sys.unraisablehook
  with mock.patch.object(threading.Thread, 'start'):
    preemption.install_handlers()
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.set_wakeup_fd(-1)
    sys.unraisablehook = hook
    for number, handler in before.items():
      signal.signal(number, handler)
    preemption.SignalState.received = None
    preemption.SignalState.deferred = preemption.SignalState.announced = False


def signal_at(monkeypatch, step):
  """Sends SIGTERM when the run has read `step` batches and is about to place the next."""
  place, drawn = train.place_batch, iter(range(10 ** 6))

  def place_and_signal(batch, mesh):
    if next(drawn) == step:
      signal.raise_signal(signal.SIGTERM)
    return place(batch, mesh)
  monkeypatch.setattr(train, 'place_batch', place_and_signal)


def stop_at(monkeypatch, step):
  """Raises KeyboardInterrupt when the run has read `step` batches and is about to place the next."""
  place, drawn = train.place_batch, iter(range(10 ** 6))

  def place_or_stop(batch, mesh):
    if next(drawn) == step:
      raise KeyboardInterrupt
    return place(batch, mesh)
  monkeypatch.setattr(train, 'place_batch', place_or_stop)
