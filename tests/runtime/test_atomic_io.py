"""Small files: written whole or not at all."""

import json

import pytest

from mtpret_jax.evaluation.metrics import score
from mtpret_jax.runtime.atomic_io import write_json
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
