"""Ends this process when a step takes too long. It would otherwise wait forever for a dead process or for storage.

Only waits inside `time_limit` count, so that compiling, validating and saving may take as long as they need. There
is no limit until `start` is called; only runs with several processes call it.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

current_wait: tuple[str, float] | None = None  # (what for, start time) of the main thread


def start(seconds: int, exit_code: int) -> None:
  """From now on a wait of more than `seconds` ends the process with `exit_code`."""
  threading.Thread(target=monitor, args=(seconds, exit_code), name='watchdog', daemon=True).start()


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
  """Limits the time that the body may take. `what` is what the body waits for, for the message."""
  global current_wait
  current_wait = what, time.monotonic()
  try:
    yield
  finally:
    current_wait = None


def monitor(seconds: int, exit_code: int) -> None:
  while True:
    time.sleep(min(1.0, seconds / 10))
    wait = current_wait
    if wait and time.monotonic() - wait[1] > seconds:
      sys.stderr.write(f'\nmtpret_jax: waited {seconds} s for {wait[0]}: another process is dead or stuck, or storage '
                       f'does not answer (--stall_timeout={seconds}). This process stops; the same command resumes '
                       f'from the last checkpoint\n')
      sys.stderr.flush()
      os._exit(exit_code)
