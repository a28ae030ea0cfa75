"""Runs cases in a process of their own, within limits of time and memory."""
import multiprocessing
import os
import resource
import time
import traceback

MEMORY = 3 * 2**30  # bytes of address space a case may need on top of what the process has, two images read at once
PATIENCE = 12
OUTCOMES = ('whole', 'rejects', 'refused', 'FAULT')


def serve(pipe, folder, seed, what):
  """The process that runs cases: takes numbers, gives back (what, kind), then (outcome, detail)."""
  from benchmarks.fuzz.cases import Fuzz
  os.environ['TQDM_DISABLE'] = '1'
  fuzz = Fuzz(folder, seed, what, pipe.send)
  pipe.send(None)
  while (number := pipe.recv()) is not None:
    limit_memory()
    try:
      pipe.send((fuzz.run(number), ''))
    except Exception as error:  # whatever it is, it is a fault, and the next case goes on
      pipe.send(('FAULT', f'{type(error).__name__}: {error}'[:1000] + '\n' + traceback.format_exc()))


def limit_memory():
  """Anew for each case: over thousands of them JAX and malloc keep address space that the next one does not get."""
  with open('/proc/self/statm') as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


class Runner:
  """A process that serves, and is replaced where it hangs or dies."""

  def __init__(self, folder, seed, what, seconds):
    self.given, self.seconds, self.process = (folder, seed, what), seconds, None

  def start(self):
    context = multiprocessing.get_context('spawn')
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(target=serve, args=(theirs, *self.given), daemon=True)
    self.process.start()
    theirs.close()
    self.pipe.recv()

  def run(self, number):
    if self.process is None:
      self.start()
    self.pipe.send(number)
    told = '', ''
    try:
      for _ in range(2):
        if not self.wait():
          self.stop()
          return *told, 'FAULT', f'took more than {self.seconds} s'
        said = self.pipe.recv()
        if said[0] in OUTCOMES:
          return *told, *said
        told = said
    except EOFError:
      self.process.join()
      code, self.process = self.process.exitcode, None
      return *told, 'FAULT', f'the process died with code {code}'

  def wait(self):
    """Whether it answers before it has used `seconds` of processor time, or PATIENCE times that by the clock: on a
    machine that does other work a case that waits its turn does not hang."""
    until, used = time.monotonic() + PATIENCE * self.seconds, read_seconds(self.process.pid)
    while time.monotonic() < until and read_seconds(self.process.pid) - used < self.seconds:
      if self.pipe.poll(0.2):
        return True
    return False

  def stop(self, seconds=0):
    """Ends the process, after it was given so much time to end itself."""
    if self.process:
      if seconds:
        self.pipe.send(None)
        self.process.join(seconds)
      self.process.kill()
      self.process.join()
      self.process = None


def read_seconds(pid):
  """Processor time of a process so far."""
  with open(f'/proc/{pid}/stat') as file:
    fields = file.read().rpartition(')')[2].split()
  return sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')
