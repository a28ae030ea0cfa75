"""A run that is interrupted."""

import contextlib
import signal
import threading
from unittest import mock

from mtpret_jax import train
from mtpret_jax.runtime import preemption


@contextlib.contextmanager
def listen():
  """The handlers are installed, without the thread that ends the program; afterwards everything is as it was."""
  before = {number: signal.getsignal(number) for number in preemption.SIGNALS}
  with mock.patch.object(threading.Thread, 'start'):
    preemption.install_handlers()
  try:
    yield
  finally:
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
      signal.signal(number, handler)
    preemption.SignalState.received, preemption.SignalState.deferred = None, False


def signal_at(monkeypatch, step):
  """SIGTERM comes when the run has drawn `step` batches and is about to take the next."""
  place, drawn = train.place_batch, iter(range(10 ** 6))

  def place_and_signal(batch, mesh):
    if next(drawn) == step:
      signal.raise_signal(signal.SIGTERM)
    return place(batch, mesh)
  monkeypatch.setattr(train, 'place_batch', place_and_signal)


def stop_at(monkeypatch, step):
  """The run is interrupted when it has drawn `step` batches and is about to take the next."""
  place, drawn = train.place_batch, iter(range(10 ** 6))

  def place_or_stop(batch, mesh):
    if next(drawn) == step:
      raise KeyboardInterrupt
    return place(batch, mesh)
  monkeypatch.setattr(train, 'place_batch', place_or_stop)
