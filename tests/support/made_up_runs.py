"""Folders as finished runs leave them, with made-up predictions and curves, for the tests of their pages."""

import json
import pathlib

from configs import finetune
from mtpret_jax.evaluation import metrics
from tests.support.scored import ABOUT, METRICS, TASKS, make_rows

VERSIONS = {'devices': '1 x cpu', 'commit': '0123456789ab', 'jax': '0.10.2'}
HOSTILE = '<script>alert("$x$")</script>'


def write_config(folder, config):
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(json.dumps({'config': config, 'versions': VERSIONS}))


def write_lines(path, lines):
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def write_stage_3(folder, name='independent', images=90, about=None, rows=None, **scores):
  """A run of stage 3 with the task `name` of `tests.support.scored`. `scores` are further fields of scores.json."""
  folder, metric, about = pathlib.Path(folder), METRICS[TASKS[name]], about or ABOUT[name]
  config = finetune.get_config('smoke,pneumonia').to_dict()
  config |= {'tasks': {name: config['tasks']['pneumonia']}, 'workdir': str(folder)}
  config['data']['datasets'] = ['kermany_pneumonia']
  write_config(folder, config)
  rows = rows or make_rows(name, images)
  result = metrics.score(metric, about, rows, resamples=20)
  metrics.write_predictions(folder / f'predictions_{name}.csv', metric, about, rows)
  write_lines(folder / 'metrics.jsonl', [
    {'step': step, 'task': name, 'loss': 1 / step, 'learning_rate': 0.001, 'images_per_second': 100.0, 'gradient': 2.0}
    for step in range(10, 210, 10)])
  write_lines(folder / 'validation.jsonl', [
    {'step': step, 'tasks': {name: {'headline': result['headline'], 'value': value, 'sign': result['sign']}}}
    for step, value in ((50, None), (100, 0.6), (150, 0.8), (200, 0.7))])
  (folder / 'scores.json').write_text(json.dumps({
    'data': 'archives', 'split': 'test', 'split_rule': 'patient', 'notes': [],
    'pretraining': {'runs': [], 'weights_file': None, 'notes': []}, 'step': 150, 'steps': 200,
    'training_images': {name: 700}, 'tasks': {name: result}, 'about': {name: about}, 'versions': VERSIONS,
    'config': config} | scores))
  return folder
