"""Worker processes that read ahead, when the run is interrupted or killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT

READ = """
import multiprocessing, time
import grain, numpy as np
from absl import flags
from ml_collections import ConfigDict
from mtpret_jax.data import pipeline

if __name__ == '__main__':
  flags.FLAGS(['test'])
  batches = grain.MapDataset.source([np.zeros(8)]).repeat()
  with pipeline.stream(batches, 0, ConfigDict(dict(threads=1, prefetch=1, workers=2))) as feed:
    for number, _ in enumerate(feed):
      if number == 4:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
      time.sleep(0.01)
"""


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='looks at /proc')
def test_workers_ignore_signals_and_end_with_a_run_that_was_killed(tmp_path):
  script = tmp_path / 'read.py'
  script.write_text(READ)
  run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                         env=os.environ | {'PYTHONPATH': str(ROOT)})
  try:
    children = [int(pid) for pid in run.stdout.readline().split()]
    assert len(children) == 2
    for child in children:
      os.kill(child, signal.SIGINT)
      os.kill(child, signal.SIGTERM)
    time.sleep(0.5)
    assert run.poll() is None and all(map(is_alive, children))
  finally:
    run.kill()
    run.wait()
  waited = time.monotonic() + 20
  while any(map(is_alive, children)) and time.monotonic() < waited:
    time.sleep(0.1)
  assert not any(map(is_alive, children))


def is_alive(pid):
  try:
    with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
      return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
  except FileNotFoundError:
    return False
