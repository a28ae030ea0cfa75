"""Runs cases in a process of their own, within limits of time and memory."""
import multiprocessing
import os
import resource
import traceback

MEMORY = 3 * 2**30  # bytes of address space a case may need on top of what the process has, two images read at once
OUTCOMES = ('whole', 'rejects', 'refused', 'FAULT')


def serve(pipe, folder, seed):
  """The process that runs cases: takes numbers, gives back (dataset, kind), then (outcome, detail)."""
  from benchmarks.fuzz.cases import Fuzz
  os.environ['TQDM_DISABLE'] = '1'
  fuzz = Fuzz(folder, seed, pipe.send)
  with open('/proc/self/statm') as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
  pipe.send(None)
  while (number := pipe.recv()) is not None:
    try:
      pipe.send((fuzz.run(number), ''))
    except Exception as error:  # whatever it is, it is a fault, and the next case goes on
      pipe.send(('FAULT', f'{type(error).__name__}: {error}'[:1000] + '\n' + traceback.format_exc()))


class Runner:
  """A process that serves, and is replaced where it hangs or dies."""

  def __init__(self, folder, seed, seconds):
    self.folder, self.seed, self.seconds, self.process = folder, seed, seconds, None

  def start(self):
    context = multiprocessing.get_context('spawn')
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(target=serve, args=(theirs, self.folder, self.seed), daemon=True)
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
        if not self.pipe.poll(self.seconds):
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

  def stop(self, seconds=0):
    """Ends the process, after it was given so much time to end itself."""
    if self.process:
      if seconds:
        self.pipe.send(None)
        self.process.join(seconds)
      self.process.kill()
      self.process.join()
      self.process = None
