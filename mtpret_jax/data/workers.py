"""Processes that read ahead: what they are told of signals, how they end, and where their batches lie."""

import multiprocessing
import os
import pathlib
import shutil
import signal
import threading

SHARED = pathlib.Path('/dev/shm')  # where batches are handed over, on Linux
HANDED = 4  # batches of each worker that may lie there at once


def set_up(worker, workers):
  """In the worker. The run itself answers Ctrl-C and SIGTERM, and tells its workers when to end; where it was killed
  and can tell them nothing, they end all the same."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)


def lacks_room(batch, workers):
  """What to do where batches like this one do not fit where they are handed over, and a worker would be killed by
  SIGBUS; None where they fit. Containers often have 64 MB there."""
  needed = HANDED * workers * sum(rows.nbytes for rows in batch.values())
  if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < needed:
    return (f'data.workers={workers} may need {needed / 1e6:.0f} MB in {SHARED}, where {free / 1e6:.0f} MB are free: '
            f'give it more (docker run --shm-size=..., Kubernetes: an emptyDir with medium: Memory), or try '
            f'--config.data.workers=0')
  return None
