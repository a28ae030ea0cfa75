"""Workdirs of earlier runs whose small files were edited, damaged or exchanged. They are used as `init_from`,
evaluated, and resumed. `benchmarks.damage` damages the arrays of checkpoints.

Accepted outcomes are a ConfigError of one line, or the result of an undamaged run. A config.json must not be accepted
if the checkpoint beside it was made with another one.
"""

import contextlib
import copy
import io
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from benchmarks.fuzz import judge, raw, tables, trees, values
from benchmarks.fuzz.values import Report, Run
from tfds_builders.common import dataset

FIRST, THIRD = 'first', 'third'  # a run of stage 1, and a run of stage 3 that started from it
JSONS = ('config.json', 'scores.json', 'results.json', 'run.lock')
LINES = ('metrics.jsonl', 'validation.jsonl')
STEP = 4


def make(folder: pathlib.Path) -> Run:
  """Cases of workdirs."""
  from benchmarks.fuzz import small
  small.shrink()
  for name in ('mtpret_jax', 'absl'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  if not folder.is_dir():
    folder.mkdir()
    write_runs(folder)
  clean = {name: json.loads((folder / name / 'config.json').read_text())['config'] for name in (FIRST, THIRD)}
  return lambda rng, case, report: run(rng, case, report, folder, clean)


def write_runs(folder: pathlib.Path) -> None:
  from configs import finetune, pretrain
  first, third = pretrain.get_config('smoke'), finetune.get_config('smoke,bone_age')
  first.data.datasets = ('rsna_bone_age', 'mura')
  third.update(init='md_moco', init_from=FIRST)
  third.data.datasets = ('rsna_bone_age',)
  for name, config in ((FIRST, first), (THIRD, third)):
    config.workdir = name
    write_run(folder / name, config)


def write_run(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Writes the files of a run, with random numbers in them."""
  import jax

  from mtpret_jax.data.fingerprint import flatten, is_incidental
  from mtpret_jax.report import abstract_run
  from mtpret_jax.runtime import checkpoint
  from mtpret_jax.step import make_optimiser, shape_state
  rng = np.random.default_rng(0)
  shapes = shape_state(abstract_run.make_abstract_run(config).objective, make_optimiser(config.optimiser))
  state = jax.tree.map(lambda leaf: np.asarray(rng.random(leaf.shape), leaf.dtype), shapes)
  mark = {field: value for field, value in flatten(config.to_dict()).items() if not is_incidental(field)}
  mark |= {f'data.{name}': f'{dataset.VERSION} train by patient 16 images' for name in config.data.datasets}
  places = ('checkpoints', 'best') if config.objective == 'multitask' else ('checkpoints',)
  for place in places:
    with checkpoint.open_checkpoints(workdir, 2, place) as checkpoints:
      checkpoint.save(checkpoints, state, STEP, mark if place == 'checkpoints' else {'score': -3.5}, wait=True)
  score = {'headline': 'MAE (months)', 'scores': {'MAE (months)': {'value': 12.5, 'interval': [11.0, 14.0]}}}
  texts = {
    'config.json': {'config': config.to_dict(), 'versions': {'jax': '0.10.2'}}, 'results.json': {'probe': []},
    'scores.json': {'step': STEP, 'tasks': {'bone_age': score}, 'pretraining': {'notes': []}},
    'run.lock': {'host': 'here', 'pid': 1, 'since': 'now'}}
  for name, contents in texts.items():
    (workdir / name).write_text(json.dumps(contents))
  (workdir / 'metrics.jsonl').write_text(''.join(
    json.dumps({'step': step, 'task': 'moco', 'loss': 1.0}) + '\n' for step in range(1, STEP + 1)))
  (workdir / 'validation.jsonl').write_text(''.join(
    json.dumps({'step': step, 'tasks': {'bone_age': {'headline': 'MAE (months)', 'value': 9.5, 'sign': -1}}}) + '\n'
    for step in range(1, STEP + 1)))


def edit_text(rng: np.random.Generator, case: pathlib.Path) -> None:
  """Edits a JSON file or a line of JSON lines."""
  path = pick_text(rng, case)
  if path.suffix == '.jsonl':
    lines = path.read_text().splitlines()
    place = rng.integers(len(lines))
    lines[place] = values.pick(rng, (tables.edit_json(rng, lines[place].encode()).decode(), *values.WORDS[:-1]))
    path.write_text('\n'.join(lines), errors='surrogatepass')
  elif path.suffix == '.json' or path.name == 'run.lock':
    path.write_bytes(tables.edit_json(rng, path.read_bytes()))
  else:  # a manifest is not JSON
    path.write_bytes(tables.edit_text(rng, path.read_bytes()))


def edit_field(rng: np.random.Generator, case: pathlib.Path) -> None:
  """Changes a value in config.json."""
  path = case / values.pick(rng, (FIRST, THIRD)) / 'config.json'
  contents = json.loads(path.read_text())
  spots = [spot for spot in tables.list_spots(contents['config']) if not isinstance(spot[0][spot[1]], dict)]
  where, key = values.pick(rng, spots)
  old = where[key]
  where[key] = values.pick(rng, (*values.LEAVES, 7, 'resnet50', 'joint', [], [old], str(old)))
  path.write_text(json.dumps(contents))


def damage_text(rng: np.random.Generator, case: pathlib.Path) -> None:
  path = pick_text(rng, case)
  path.write_bytes(values.pick(rng, (*raw.KINDS.values(), tables.recode))(rng, path.read_bytes()))


def exchange(rng: np.random.Generator, case: pathlib.Path) -> None:
  """Exchanges a file of the two runs."""
  name = values.pick(rng, ('config.json', 'config.json', 'metrics.jsonl', 'scores.json', 'checkpoints', 'checkpoints'))
  one, two = (case / run / name for run in (FIRST, THIRD))
  one.rename(case / 'held')
  two.rename(one)
  (case / 'held').rename(two)


def go_round(rng: np.random.Generator, case: pathlib.Path) -> None:
  """A run that claims to start from itself, or from the run that started from it."""
  path = case / FIRST / 'config.json'
  contents = json.loads(path.read_text())
  contents['config'].update(init='md_moco', init_from=values.pick(rng, (FIRST, THIRD, '.', f'{THIRD}/../{FIRST}')))
  path.write_text(json.dumps(contents))


def change_tree(rng: np.random.Generator, case: pathlib.Path) -> None:
  """Removes a file or folder, or puts a link, pipe or folder in its place."""
  root = case / values.pick(rng, (FIRST, THIRD))
  file = root / values.pick(rng, (*JSONS, *LINES, f'checkpoints/{STEP}.sha256', 'checkpoints'))
  if file.name == 'checkpoints':
    file.rename(root / 'moved')
    values.pick(rng, (lambda: None, lambda: file.write_bytes(b'?'), file.mkdir, lambda: file.symlink_to('moved'),
                      lambda: file.symlink_to('checkpoints'), lambda: os.mkfifo(file)))()
  else:
    kinds = (trees.remove, trees.make_folder, trees.pipe, trees.link)
    if file.exists():
      values.pick(rng, kinds)(rng, root, file)


def forge(rng: np.random.Generator, case: pathlib.Path) -> None:
  """A changed checkpoint with a matching manifest."""
  from mtpret_jax.runtime import checksums
  folder = case / values.pick(rng, (FIRST, THIRD)) / 'checkpoints' / str(STEP)
  texts = [path for path in sorted(folder.rglob('*')) if path.is_file() and b'{' in path.read_bytes()[:1]]
  path = values.pick(rng, texts)
  way = rng.random()
  if way < 0.5:
    path.write_bytes(tables.edit_json(rng, path.read_bytes()))
  elif way < 0.8:
    path.write_bytes(values.pick(rng, tuple(raw.KINDS.values()))(rng, path.read_bytes()))
  else:
    path.unlink()
  checksums.write_manifest(folder)


def litter(rng: np.random.Generator, case: pathlib.Path) -> None:
  """Files in a folder of checkpoints that no run writes."""
  folder = case / values.pick(rng, (FIRST, THIRD)) / 'checkpoints'
  name = values.pick(rng, ('x.incomplete', '.incomplete', '٣', '9' * 200, '5', '5.sha256', '-1', 'a b', '0', '²',
                           '7.incomplete', '4.orbax-checkpoint-tmp-1'))
  if rng.random() < 0.5:
    (folder / name).mkdir(exist_ok=True)
  elif not (folder / name).exists():
    (folder / name).write_bytes(values.pick(rng, (b'', b'?', b'a  b\n')))


KINDS = {'run: JSON edited': edit_text, 'run: field edited': edit_field, 'run: text damaged': damage_text,
         'run: files exchanged': exchange, 'run: goes round': go_round, 'run: tree changed': change_tree,
         'run: manifest forged': forge, 'run: litter': litter}


def pick_text(rng: np.random.Generator, case: pathlib.Path) -> pathlib.Path:
  root = case / values.pick(rng, (FIRST, THIRD))
  return root / values.pick(rng, ('config.json', 'config.json', *JSONS, *LINES, f'checkpoints/{STEP}.sha256')[
    :None if rng.random() < 0.2 else -1])


def run(rng: np.random.Generator, case: pathlib.Path, report: Report, folder: pathlib.Path,
        clean: Mapping[str, Any]) -> str:
  kind = values.pick(rng, tuple(KINDS))
  report(('run', kind))
  for name in (FIRST, THIRD):
    shutil.copytree(folder / name, case / name)
  KINDS[kind](rng, case)
  before = os.getcwd()
  os.chdir(case)
  try:
    ends = [judge_end(use, case, clean) for use in (start_from, evaluate, go_on)]
  finally:
    os.chdir(before)
  return 'refused' if 'refused' in ends else 'whole'


def judge_end(use: Callable, case: pathlib.Path, clean: Mapping[str, Any]) -> str:
  from mtpret_jax.config.errors import ConfigError
  try:
    use(case, clean)
  except ConfigError as error:
    judge.judge_line(str(error))
    judge.demand(FIRST in str(error) or THIRD in str(error), f'names no run: {error}')
    return 'refused'
  return 'whole'


def start_from(case: pathlib.Path, clean: Mapping[str, Any]) -> None:
  """Uses both runs as `init_from`."""
  from mtpret_jax.config import saved
  from mtpret_jax.runtime import initial_weights, lineage
  refused = []
  for source in (FIRST, THIRD):
    config = ConfigDict(dict(init='other', init_from=source, trunk='resnet18', tasks={}))
    try:
      initial_weights.check_init(config)
      datasets = lineage.trace_lineage(config).datasets
      params, _ = initial_weights.read_initial_weights(config)['trunk']
    except ValueError as error:
      refused.append(error)
      continue
    judge.demand({'rsna_bone_age'} <= set(datasets), f'datasets of the lineage: {datasets}')
    judge.demand(params['conv1']['kernel'].shape == (7, 7, 1, 64), 'another trunk')
    judge_config(saved.read_config(source), clean[source], source)
  if refused:
    raise refused[0]


def judge_config(config: Mapping[str, Any], clean: Mapping[str, Any], source: str) -> None:
  from mtpret_jax.data.fingerprint import flatten, is_incidental
  now, then = ({field: value for field, value in flatten(one).items() if not is_incidental(field)}
               for one in (config, clean))
  judge.demand(now == then, f'{source} was read with a changed config')
  judge.demand(sorted(config['data']['datasets']) == sorted(clean['data']['datasets']), f'{source}: other datasets')


def evaluate(case: pathlib.Path, clean: Mapping[str, Any]) -> None:
  from configs import evaluate as evaluation
  from mtpret_jax.config import saved
  from mtpret_jax.evaluation import test_scores
  config = evaluation.get_config()
  config.update(run=THIRD, workdir='scored')
  # The data of the run is not here.
  with (mock.patch.object(test_scores, 'score_split', trace_predictions),
        mock.patch.object(test_scores.scorable, 'check_data')):
    test_scores.evaluate_run(config)
  judge_config(saved.read_config(THIRD), clean[THIRD], THIRD)


def trace_predictions(
    state: Any, config: ConfigDict, workdir: str, split: str, earlier: Any, **options: Any) -> None:
  """Replaces `test_scores.score_split`: builds the tasks and traces their predictions."""
  import jax

  from mtpret_jax.objectives.multitask import make_predict
  from mtpret_jax.report import abstract_run
  for name, task_config in config.tasks.items():
    about = abstract_run.describe_dataset(config, task_config.dataset)
    answer = make_predict(config, name, abstract_run.make_model(task_config, about))
    params = {part: state.params[part] for part in ('trunk', name)}
    jax.eval_shape(answer, params, state.carry['stats'], abstract_run.shape_labelled_batch(task_config, about))


def go_on(case: pathlib.Path, clean: Mapping[str, Any]) -> None:
  """Reads what a resumed run reads of its own workdir."""
  from mtpret_jax.evaluation import test_scores, validation
  from mtpret_jax.evaluation.rounds import compute_forgetting
  from mtpret_jax.report import recipe
  from mtpret_jax.runtime import checkpoint, logging
  from tfds_builders.common import locks
  stages = {name: ConfigDict(copy.deepcopy(config)) for name, config in clean.items()}
  for name, config in stages.items():
    test_scores.is_finished(config)
    if not (case / name / 'run.lock').exists() or (case / name / 'run.lock').is_file():
      locks.describe_holder(case / name / 'run.lock')
    if not (case / name / 'metrics.jsonl').exists() or (case / name / 'metrics.jsonl').is_file():
      logging.drop_later_lines(case / name / 'metrics.jsonl', 2)
    tasks = list(config.get('tasks', {}))
    compute_forgetting([line for line in validation.read(case / name) if set(line['tasks']) == set(tasks)], tasks,
                       config.get('order', ''))
    with checkpoint.open_checkpoints(case / name, 2) as checkpoints:
      checkpoint.read_metadata(checkpoints)
  with contextlib.redirect_stdout(io.StringIO()):
    recipe.finish(ConfigDict({'workdir': str(case), 'stages': stages}))
