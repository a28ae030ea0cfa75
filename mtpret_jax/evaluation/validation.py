"""What is looked at while a run of stage 2 or 3 pauses: every task's validation score; the best state is kept."""

import json
import logging
import math
import pathlib
import shutil

import jax
from tensorboardX import SummaryWriter

from mtpret_jax.evaluation import predict
from mtpret_jax.runtime import checkpoint, distributed
from mtpret_jax.runtime.atomic_io import read_json_lines, write_atomically

log = logging.getLogger(__name__)

FILE, BEST = 'validation.jsonl', 'best'


def make_watch(config, workdir, start):
  """watch(state, step): scores the validation split, of a run with one task saves the state in `best/` where it is the
  best so far by its headline score (several tasks' scores have no common unit), and writes a line to `validation.jsonl`
  and TensorBoard. A pause with a line is over: a run that resumes there does not go through it again. A run that starts
  at step 0 forgets what another one, interrupted before its first checkpoint, left of these."""
  collectors = {}
  if start == 0 and jax.process_index() == 0:
    shutil.rmtree(pathlib.Path(workdir, BEST), ignore_errors=True)
    pathlib.Path(workdir, FILE).unlink(missing_ok=True)
  check_best(workdir)

  def watch(state, step):
    if step == start and any(line['step'] == step for line in read(workdir)):
      return
    scored = predict.score_tasks(config, state, 'validation', collectors)
    heads = distributed.run_on_first(lambda: {name: predict.headline_of(result) for name, (_, result) in scored.items()})
    log.info('validation at step %d: %s', step, ', '.join(
      f'{name} {title} {value if value is None else round(value, 4)}' for name, (title, value, _) in heads.items()))
    if len(heads) == 1:
      (_, value, sign), = heads.values()
      keep_best(workdir, state, step, -math.inf if value is None else sign * value, config.save_retries)
    if jax.process_index() == 0:
      write(workdir, step, {name: {'headline': title, 'value': value, 'sign': sign}
                            for name, (title, value, sign) in heads.items()})
  return watch


def write(workdir, step, scores):
  """Replaces what an interrupted run may have written of this step and later ones."""
  path = pathlib.Path(workdir, FILE)
  earlier = [line for line in read(workdir) if line['step'] < step]
  write_atomically(path, ''.join(json.dumps(line) + '\n' for line in [*earlier, {'step': step, 'tasks': scores}]))
  with SummaryWriter(str(pathlib.Path(workdir, 'tensorboard'))) as events:
    for name, score in scores.items():
      if score['value'] is not None:
        events.add_scalar(f'validation/{name}', score['value'], step)


def read(workdir):
  """The lines of `validation.jsonl`: `step`, and of each task `headline`, `value` and `sign`; without damaged ones."""
  lines = read_json_lines(pathlib.Path(workdir, FILE))
  whole = [line for line in lines if isinstance(line.get('tasks'), dict) and all(map(is_score, line['tasks'].values()))]
  if len(whole) < len(lines):
    log.warning('%d damaged lines of %s are left out', len(lines) - len(whole), pathlib.Path(workdir, FILE))
  return whole


def is_score(score):
  """Whether it is what `make_watch` writes of a task."""
  return (isinstance(score, dict) and isinstance(score.get('headline'), str) and score.get('sign') in (-1, 1)
          and (score.get('value', '') is None or isinstance(score.get('value'), int | float)))


def check_best(workdir):
  """Raises Damaged at the start of a run rather than at its next pause."""
  folder = pathlib.Path(workdir, BEST)
  try:
    if folder.is_dir():
      checkpoint.find_latest(folder)
  except checkpoint.Damaged as error:
    raise checkpoint.Damaged(f'{error}; or delete {folder}: the best state is then the best from here on') from error


def keep_best(workdir, state, step, score, retries):
  with checkpoint.open_checkpoints(workdir, 1, BEST, retries) as checkpoints:
    before = checkpoint.read_metadata(checkpoints)
    if distributed.run_on_first(lambda: before is None or (
        score > before['score'] and checkpoints.latest < step)):
      checkpoint.save(checkpoints, state, step, {'score': score}, wait=True)
