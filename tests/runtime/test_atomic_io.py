"""Small files: written whole or not at all."""

import json
import os
import threading

import pytest

from mtpret_jax.evaluation.metrics import score
from mtpret_jax.runtime.atomic_io import write_atomically, write_json
from tests.support.scored import ABOUT, METRICS, TASKS, make_rows


def test_scores_of_several_datasets_share_a_file(tmp_path):
  results = {name: score(METRICS[TASKS[name]], ABOUT[name], make_rows(name), resamples=5) for name in ('value', 'mask')}
  path = write_json(tmp_path / 'run' / 'scores.json', results)
  assert path == tmp_path / 'run' / 'scores.json'
  assert json.loads(path.read_text()) == json.loads(json.dumps(results))


def test_a_number_that_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path):
  path = write_json(tmp_path / 'scores.json', {'value': 0.5})
  with pytest.raises(ValueError, match='not JSON compliant'):
    write_json(path, {'value': float('nan')})
  assert json.loads(path.read_text()) == {'value': 0.5}


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path, monkeypatch):
  """Both have written their temporary file when the first one renames."""
  replace, both_wrote = os.replace, threading.Barrier(2, timeout=30)

  def replace_together(part, path):
    both_wrote.wait()
    replace(part, path)
  monkeypatch.setattr(os, 'replace', replace_together)
  errors, path = [], tmp_path / 'scores.json'

  def write(letter):
    try:
      write_atomically(path, letter * 1000)
    except OSError as error:
      errors.append(error)
  writers = [threading.Thread(target=write, args=[letter]) for letter in 'ab']
  for writer in writers:
    writer.start()
  for writer in writers:
    writer.join()
  assert not errors and path.read_text() in ('a' * 1000, 'b' * 1000)
  assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = tmp_path / 'scores.json'
  write_atomically(path, 'old')

  def fail(handle):
    raise OSError('No space left on device')
  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='No space'):
    write_atomically(path, 'new')
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
