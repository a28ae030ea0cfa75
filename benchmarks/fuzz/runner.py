"""Runs cases in a child process, with limits on time and memory."""

import multiprocessing
import os
import resource
import time
import traceback
from typing import Any

MEMORY = 3 * 2**30  # bytes of address space that a case may add; enough to read two images at once
PATIENCE = 12  # wall time over processor time that a case may take; a busy machine makes it wait
OUTCOMES = ('whole', 'rejects', 'refused', 'FAULT')


def serve(pipe: Any, folder: str, seed: int, what: str | None) -> None:
  """The child process: receives case numbers, sends (what, kind of damage) and then (outcome, detail)."""
  from benchmarks.fuzz.cases import Fuzzer
  os.environ['TQDM_DISABLE'] = '1'
  fuzzer = Fuzzer(folder, seed, what, pipe.send)
  pipe.send(None)
  while (number := pipe.recv()) is not None:
    limit_memory()
    try:
      pipe.send((fuzzer.run(number), ''))
    except Exception as error:  # every other exception is a fault; the next case still runs
      pipe.send(('FAULT', f'{type(error).__name__}: {error}'[:1000] + '\n' + traceback.format_exc()))


def limit_memory() -> None:
  """Sets the limit of address space for the next case. Over thousands of cases JAX and malloc keep more and more."""
  with open('/proc/self/statm') as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


class Runner:
  """A child process that runs cases, and is replaced if it hangs or dies."""

  def __init__(self, folder: str, seed: int, what: str | None, seconds: float) -> None:
    self.arguments, self.seconds, self.process = (folder, seed, what), seconds, None

  def start(self) -> None:
    context = multiprocessing.get_context('spawn')
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(target=serve, args=(theirs, *self.arguments), daemon=True)
    self.process.start()
    theirs.close()
    self.pipe.recv()

  def run(self, number: int) -> tuple[str, str, str, str]:
    """(what, kind of damage, outcome, detail) of a case."""
    if self.process is None:
      self.start()
    self.pipe.send(number)
    reported = '', ''
    try:
      for _ in range(2):
        if not self.wait():
          self.stop()
          return *reported, 'FAULT', f'took more than {self.seconds} s'
        message = self.pipe.recv()
        if message[0] in OUTCOMES:
          return *reported, *message
        reported = message
    except EOFError:
      self.process.join()
      code, self.process = self.process.exitcode, None
      return *reported, 'FAULT', f'the process died with code {code}'

  def wait(self) -> bool:
    """Whether the child answers within `seconds` of processor time, and PATIENCE times that of wall time."""
    until, used = time.monotonic() + PATIENCE * self.seconds, read_seconds(self.process.pid)
    while time.monotonic() < until and read_seconds(self.process.pid) - used < self.seconds:
      if self.pipe.poll(0.2):
        return True
    return False

  def stop(self, seconds: float = 0) -> None:
    """Ends the child, after `seconds` in which it may end by itself."""
    if self.process:
      if seconds:
        self.pipe.send(None)
        self.process.join(seconds)
      self.process.kill()
      self.process.join()
      self.process = None


def read_seconds(pid: int) -> float:
  """Processor time of a process in seconds."""
  with open(f'/proc/{pid}/stat') as file:
    fields = file.read().rpartition(')')[2].split()
  return sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')
