"""Gives up when a step does not end: a process that waits for a dead or stuck one, or for storage, would wait for ever.

There is one watch for the process; until it is started nothing is ever given up. It watches single waits, so that
compiling, validating and saving may take as long as they like.
"""

import contextlib
import os
import sys
import threading
import time

waiting = None  # (what for, since when) of the main thread


def start(seconds, code):
  """From now on a wait of more than `seconds` ends the process with the exit code `code`."""
  threading.Thread(target=monitor, args=(seconds, code), name='stall', daemon=True).start()


@contextlib.contextmanager
def time_limit(what):
  """The wait inside ends, or the process does. `what` is waited for, in words."""
  global waiting
  waiting = what, time.monotonic()
  try:
    yield
  finally:
    waiting = None


def monitor(seconds, code):
  while True:
    time.sleep(min(1.0, seconds / 10))
    now = waiting
    if now and time.monotonic() - now[1] > seconds:
      sys.stderr.write(f'\nmtpret_jax: waited {seconds} s for {now[0]}: another process is dead or stuck, or storage '
                       f'does not answer (--stall_timeout={seconds}). This process stops; the same command goes on '
                       f'from the last checkpoint\n')
      sys.stderr.flush()
      os._exit(code)
