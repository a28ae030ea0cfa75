"""Processes that read ahead: what they do about signals, and how they end."""

import multiprocessing
import os
import signal
import threading


def set_up(*_):
  """In the worker; Grain says which of how many it is. The run itself answers Ctrl-C and SIGTERM, and tells its workers
  when to end; where it was killed and can tell them nothing, they end all the same."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)
