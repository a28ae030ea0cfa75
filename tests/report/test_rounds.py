"""The report of stage 2."""

import json

import pytest
from ml_collections import ConfigDict

from mtpret_jax.evaluation import validation
from mtpret_jax.report import rounds

SCORE = {'headline': 'AUC', 'value': 0.5, 'sign': 1}


def make_config(workdir, order):
  tasks = ConfigDict({'chest': {}, 'hand': {}}, sort_keys=False)
  return ConfigDict(dict(workdir=str(workdir), order=order, rounds=2, tasks=tasks, data=dict(archives='archives')))


def write_rounds(workdir):
  for step, (chest, hand) in ((10, (0.75, 0.25)), (20, (0.5, 0.875))):
    validation.write(workdir, step, {'chest': SCORE | {'value': chest}, 'hand': SCORE | {'value': hand}})


def test_rounds_are_written_after_the_picture(tmp_path, monkeypatch):
  def fail(*args):
    raise OSError('no space left')
  write_rounds(tmp_path)
  monkeypatch.setattr(rounds, 'draw_rounds', fail)
  with pytest.raises(OSError, match='no space left'):
    rounds.report_rounds(make_config(tmp_path, 'cyclic'))
  assert not (tmp_path / 'rounds.json').exists(), 'a run with this file counts as finished'


@pytest.mark.parametrize('order, hand', [
  ('cyclic', 'improved by 0.625 improved by 0.625'), ('sequential', 'not known not known')])
def test_a_task_counts_from_its_own_visit_on_if_it_has_only_one(order, hand, tmp_path, capsys):
  write_rounds(tmp_path)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 20, "task": "hand", "drift": 2.0, "pull_ratio": 0.25}\n')
  rounds.report_rounds(make_config(tmp_path, order))
  printed, memory = capsys.readouterr().out.split('Memory: ')
  assert memory.splitlines()[2] == 'hand  - (-)    2.000 (0.250)'
  assert json.loads((tmp_path / 'rounds.json').read_text())['memory']['hand'][1] == {'drift': 2.0, 'pull_ratio': 0.25}
  row, = [' '.join(line.split()) for line in printed.splitlines() if line.startswith('hand')]
  assert row.endswith(f'0.875 {hand}')
  assert ('from its own visit on' in printed) == (order == 'sequential')


def test_of_several_validations_in_a_round_the_last_one_is_reported(tmp_path, capsys):
  for step, value in ((5, 0.125), (10, 0.75), (15, 0.25), (20, 0.5)):
    validation.write(tmp_path, step, {name: SCORE | {'value': value} for name in ('chest', 'hand')})
  rounds.report_rounds(make_config(tmp_path, 'cyclic'))
  assert [line['step'] for line in json.loads((tmp_path / 'rounds.json').read_text())['rounds']] == [10, 20]
  assert 'forgot 0.250' in capsys.readouterr().out  # from step 10 to step 20
