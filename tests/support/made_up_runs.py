"""Folders as finished runs leave them, with made-up predictions and curves, for the tests of their pages."""

import json
import pathlib

from configs import continual, finetune, pretrain
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


def write_stage_2(folder):
  """A run of stage 2 with two rounds of two tasks: chest forgets, hand improves."""
  folder = pathlib.Path(folder)
  config = continual.get_config('smoke').to_dict()
  task_config = config['tasks']['pneumonia']
  write_config(folder, config | {'tasks': {'chest': task_config, 'hand': task_config}, 'rounds': 2})
  rounds = [{'step': step, 'tasks': {'chest': {'headline': 'AUC', 'value': chest, 'sign': 1},
                                     'hand': {'headline': 'MAE (months)', 'value': hand, 'sign': -1}}}
            for step, chest, hand in ((20, 0.75, 12.5), (40, 0.625, 9.5))]
  write_lines(folder / 'validation.jsonl', rounds)
  write_lines(folder / 'metrics.jsonl', [
    {'step': step, 'task': task, 'loss': 1 / step, 'learning_rate': 0.001, 'images_per_second': 100.0, 'gradient': 2.0,
     'drift': 0.5, 'pull_ratio': 0.25} for step, task in ((5, 'chest'), (10, 'chest'), (15, 'hand'), (20, 'hand'),
                                                          (30, 'hand'), (40, 'chest'))])
  (folder / 'rounds.json').write_text(json.dumps({
    'data': 'archives', 'split': 'validation', 'order': 'cyclic', 'rounds': rounds,
    'tasks': {'chest': {'forgetting': 0.125, 'transfer': -0.125}, 'hand': {'forgetting': -3.0, 'transfer': 3.0}},
    'memory': {task: [{'drift': 0.5, 'pull_ratio': 0.25}, {'drift': 0.375, 'pull_ratio': None}]
               for task in ('chest', 'hand')}}))
  return folder


def write_stage_1(folder):
  """A run of stage 1 with the probes of one dataset."""
  folder = pathlib.Path(folder)
  write_config(folder, pretrain.get_config('smoke').to_dict())
  score = [0.75, [0.625, 0.875]]
  change = [0.125, [0.0625, 0.1875]]
  probe = dict.fromkeys(('pixels', 'histogram', 'initial', 'calibrated', 'pretrained'), score) | {'change': change}
  share = {'initial': score, 'pretrained': [0.875, [0.75, 0.9375]], 'change': change}
  (folder / 'results.json').write_text(json.dumps({
    'data': 'phantoms', 'versions': VERSIONS,
    'probe': [{'dataset': 'mura', 'metric': 'AUROC', 'train': 90, 'validation': 40, 'linear': probe, 'knn': probe}],
    'label_shares': [{'dataset': 'mura', 'metric': 'AUROC', 'labelled': 90, 'shares': [
      {'fraction': 0.1, 'images': 9.0, **share}, {'fraction': 1.0, 'images': 90.0, **share}]}]}))
  write_lines(folder / 'probes.jsonl', [
    {'step': step, 'scores': {'mura': {'metric': 'AUROC', 'knn': 0.5, 'linear': 0.75}}} for step in (0, 3, 6)])
  write_lines(folder / 'metrics.jsonl', [
    {'step': step, 'task': 'moco', 'loss': 4 / step, 'accuracy_batch': 0.5, 'learning_rate': 0.001, 'spread': 0.5,
     'images_per_second': 100.0, 'agreement': 0.5, 'gradient': 2.0} for step in (2, 4, 6)])
  return folder


def write_recipe(folder):
  """A recipe with one stage of each kind."""
  folder = pathlib.Path(folder)
  stages = [write_stage_1(folder / 'pretrain'), write_stage_2(folder / 'continual'),
            write_stage_3(folder / 'two', 'two', images=40)]
  scores = json.loads((stages[-1] / 'scores.json').read_text())
  (folder / 'scores.json').write_text(json.dumps({'two': {'tasks': scores['tasks'], 'notes': ['seen before']}}))
  return folder
