"""The end of stages 2 and 3: scores as JSON, table and picture, and every prediction, so that anybody can recompute.

Stage 3 scores its best state by validation on the test split, once. Stage 2 leaves the test splits alone and shows how
every task's validation score went from round to round.
"""

import json
import logging
import pathlib

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.config.schema import MULTITASK, find_mistake
from mtpret_jax.config.validate import check_choice, check_workdir
from mtpret_jax.data.pipeline import choose_findings
from mtpret_jax.data.sources import SPLITS
from mtpret_jax.evaluation import metrics, predict, validation
from mtpret_jax.runtime import checkpoint, distributed
from mtpret_jax.runtime.logging import list_versions
from mtpret_jax.runtime.prepare_data import PHANTOMS
from mtpret_jax.step import TrainState

log = logging.getLogger(__name__)

STATES = {'best': validation.BEST, 'last': 'checkpoints'}  # and the folders they are in


def finish(state, config):
  """Scores on the test split where the run has one task; the matrix of rounds where it has several."""
  workdir = pathlib.Path(config.workdir)
  if len(config.tasks) > 1:
    distributed.run_on_first(lambda: show_rounds(config, workdir))
    return
  best, note = checkpoint.read_state(workdir, validation.BEST)
  log.info('scoring step %d, the best by validation (%.4f), on the test split', best['step'], note['score'])
  score_split(TrainState(**best), config, workdir, 'test')


def evaluate_run(config):
  """Scores a run on a split: `config.run` is its workdir, `config.state` its 'best' or last state."""
  trained = read_trained(config.run)
  chosen = config.state or ('best' if len(trained.tasks) == 1 else 'last')
  check_choice('state', chosen, sorted(STATES))
  check_choice('split', config.split, SPLITS)
  finished = is_finished(trained)
  trained.resamples = config.resamples
  trained.data.dir = config.data.dir or trained.data.dir
  try:
    state, _ = checkpoint.read_state(config.run, STATES[chosen])
  except FileNotFoundError as error:
    raise ConfigError(f'run={config.run!r} has no {chosen} state: {error}') from error
  workdir = pathlib.Path(config.workdir or pathlib.Path(config.run, config.split))
  check_workdir(workdir)
  if not finished:
    log.warning('%s is not finished: scoring its %s state, step %d', config.run, chosen, state['step'])
  try:
    score_split(TrainState(**state), trained, workdir, config.split)
  except FileNotFoundError as error:  # the run's data is not prepared, or no longer there
    raise ConfigError(f'{error}, or name the folder where it lies, --config.data.dir=<folder>') from error


def read_trained(run):
  """The config of a run of stage 2 or 3; raises ConfigError where it is none, or not the one of its checkpoint."""
  try:
    told = saved.read_config(run, saved.PLACES)
    if told['objective'] != 'multitask':
      raise ConfigError(f'it is of objective {told["objective"]!r}: only multitask runs have tasks to score')
    mistake = find_mistake(told, MULTITASK, whole=False)
    if mistake:
      raise ConfigError(f'{saved.FILE} is damaged, {mistake[0]} is {show(mistake[1])}: {saved.REMEDY}')
    try:
      saved.check_unchanged(told, checkpoint.read_fingerprint(run), run)
    except (FileNotFoundError, checkpoint.Damaged) as error:  # the best state may be whole all the same
      log.warning('%s in %s cannot be compared with the checkpoint of the run: %s', saved.FILE, run, error)
  except ConfigError as error:
    raise ConfigError(f'run={run!r}: {error}; set --config.run') from error
  return ConfigDict(told)


def score_split(state, config, workdir, split):
  """`scores.json`, `predictions_<task>.csv` and a table of one split."""
  collectors = {}
  scored = predict.score_tasks(config, state, split, collectors)
  about = {name: choose_findings(source.about, config.tasks[name]) for (name, _), (source, _) in collectors.items()}
  distributed.run_on_first(lambda: write_split(scored, about, state, config, workdir, split))


def write_split(scored, about, state, config, workdir, split):
  results = {'data': config.data.archives or PHANTOMS, 'split': split, 'split_rule': config.data.split,
             'step': int(state.step), 'tasks': {name: result for name, (_, result) in scored.items()},
             'versions': list_versions(), 'config': config.to_dict()}
  metrics.write_scores(workdir / 'scores.json', results)
  for name, (rows, result) in scored.items():
    path = workdir / f'predictions_{name}.csv'
    metrics.write_predictions(path, config.tasks[name].kind, about[name], rows)
    print(f'{name} after step {results["step"]}, {split} split by {config.data.split}, '
          f'{len(rows["image_id"])} images ({results["data"]}); 95 % interval over patients')
    print(metrics.describe(result))
    print(f'See {workdir / "scores.json"}, {path}')


def is_finished(config):
  """Whether the run has reported, with the very same config."""
  workdir = pathlib.Path(config.workdir)
  report = 'results.json' if config.objective == 'moco' else (
    'scores.json' if len(config.tasks) == 1 else 'rounds.json')
  if not (workdir / report).exists():
    return False
  try:
    before = saved.read_config(workdir)
  except ConfigError as error:  # it will be written anew
    log.warning('%s', error)
    return False
  now = json.loads(json.dumps(config.to_dict()))
  if config.objective == 'multitask' or not config.data.datasets:
    before['data']['datasets'] = now['data']['datasets'] = None  # filled in by the run
  return before == now


def finish_recipe(config):
  """Gathers the test scores of all stages in `scores.json` and a table."""
  rows, gathered = [('stage', 'task', 'score', 'value', '95 % interval')], {}
  for name, stage in config.stages.items():
    path = pathlib.Path(stage.workdir, 'scores.json')
    if not path.exists():
      continue
    try:
      if not path.is_file():  # a pipe or device could be read for ever
        raise ValueError('no file')
      gathered[name] = json.loads(path.read_text())['tasks']
      for task, result in gathered[name].items():
        score = result['scores'][result['headline']]
        low, high = score['interval'] or (None, None)
        rows.append((name, task, result['headline'], write_number(score['value']),
                     f'{write_number(low)} to {write_number(high)}'))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
      raise ConfigError(f'{path} is damaged: delete it, and the same command scores {name} again') from error
  workdir = pathlib.Path(config.workdir)
  metrics.write_scores(workdir / 'scores.json', gathered)
  print('\n'.join(['Test splits', *metrics.align(rows)]))
  print(f'See {workdir}')


def show_rounds(config, workdir):
  """The matrix score x round x task from `validation.jsonl` as `rounds.json`, table and `rounds.png`."""
  lines = [line for line in validation.read(workdir) if set(line['tasks']) == set(config.tasks)]
  if not lines:
    log.warning('%s has no scores of any round: there is nothing to show', workdir / validation.FILE)
    return
  table = measure_forgetting(lines)
  results = {'data': config.data.archives or PHANTOMS, 'split': 'validation', 'rounds': lines, 'tasks': table}
  metrics.write_scores(workdir / 'rounds.json', results)
  print(describe_rounds(lines, table, results['data']))
  print(f'See {draw_rounds(lines, workdir)}, {workdir / "rounds.json"}, {workdir / "checkpoints"}')


def measure_forgetting(lines):
  """{task: `forgetting`, the best earlier score less the last one, and `transfer`, the last less the first}, signed so
  that more forgetting is worse and more transfer better (after Lopez-Paz and Ranzato 2017; theirs compares with the
  score right after a task's only visit). None where there is but one round, or a score is missing."""
  measured = {}
  for name in lines[0]['tasks']:
    gains = [score['sign'] * score['value'] if (score := line['tasks'][name])['value'] is not None else None
             for line in lines]
    whole = len(gains) > 1 and None not in gains
    measured[name] = {'forgetting': max(gains[:-1]) - gains[-1] if whole else None,
                      'transfer': gains[-1] - gains[0] if whole else None}
  return measured


def describe_rounds(lines, table, data):
  rows = [('task', 'score', *(f'step {line["step"]}' for line in lines), 'forgetting', 'transfer')]
  for name, measured in table.items():
    values = [line['tasks'][name]['value'] for line in lines]
    rows.append((name, lines[-1]['tasks'][name]['headline'], *map(write_number, values),
                 write_number(measured['forgetting']), write_number(measured['transfer'])))
  return '\n'.join([f'Validation after each round ({data})', *metrics.align(rows)])


def write_number(value):
  return '-' if value is None else f'{value:.3f}'


def draw_rounds(lines, workdir):
  """`rounds.png`: a small curve for each task."""
  from matplotlib.figure import Figure  # not before something is drawn: half a second of each start
  names = list(lines[0]['tasks'])
  figure = Figure(figsize=(2.6 * len(names), 2.4))
  axes = figure.subplots(1, len(names), squeeze=False)
  for name, cell in zip(names, axes[0], strict=True):
    points = [(line['step'], line['tasks'][name]['value']) for line in lines]
    steps, values = np.array([point for point in points if point[1] is not None], float).reshape(-1, 2).T
    cell.plot(steps, values, marker='o')
    cell.set(title=name, xlabel='step', ylabel=lines[-1]['tasks'][name]['headline'])
  figure.tight_layout()
  path = pathlib.Path(workdir, 'rounds.png')
  figure.savefig(path, dpi=110)
  return path
