"""Worker processes that read ahead: how they treat signals, and how they end."""

import multiprocessing
import os
import signal
import threading
from typing import Any


def set_up(*_: Any) -> None:
  """Runs first in a worker. Grain passes the worker's number and the number of workers.

  A worker ignores Ctrl-C and SIGTERM, because the run handles them and then ends its workers. If the run is killed, the
  workers end by themselves.
  """
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
  """Waits for the parent process to end, then ends this one without cleaning up: nobody would read its batches."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
  os._exit(1)
