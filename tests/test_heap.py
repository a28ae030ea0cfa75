"""Memory that was freed is there again without the kernel."""

import subprocess
import sys

SCRIPT = '''
import resource, sys
from mtpret_jax import heap

def use():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  bytearray(200_000_000)
  print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == 'keep':
  heap.keep_memory()
for _ in range(2):
  use()
'''


def count_faults(*words):
  """Page faults of the first and the second use of 200 MB."""
  done = subprocess.run([sys.executable, '-c', SCRIPT, *words], capture_output=True, text=True, check=True)
  return [int(line) for line in done.stdout.split()]


def test_a_second_use_of_much_memory_costs_no_page_faults():
  first, second = count_faults('keep')
  assert second < first / 10


def test_without_it_the_second_use_costs_as_many():
  first, second = count_faults('leave')
  assert second > first / 2
