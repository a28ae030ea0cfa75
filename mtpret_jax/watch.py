"""What is looked at while a run of stage 2 or 3 pauses: every task's validation score; the best state is kept."""

import json
import logging
import math
import pathlib
import shutil

import jax
from tensorboardX import SummaryWriter

from mtpret_jax import checkpoint, evaluate, hosts

log = logging.getLogger(__name__)

FILE, BEST = 'validation.jsonl', 'best'


def make_watch(config, workdir, start):
  """watch(state, step): scores the validation split, writes a line to `validation.jsonl` and TensorBoard, and saves the
  state in `best/` where it is the best so far by the mean of the tasks' headline scores (one task: its own). A run that
  starts at step 0 forgets what another one, interrupted before its first checkpoint, left of these."""
  collectors = {}
  if start == 0 and jax.process_index() == 0:
    shutil.rmtree(pathlib.Path(workdir, BEST), ignore_errors=True)
    pathlib.Path(workdir, FILE).unlink(missing_ok=True)

  def watch(state, step):
    scored = evaluate.score_tasks(config, state, 'validation', collectors)
    heads = hosts.on_first(lambda: {name: evaluate.headline_of(result) for name, (_, result) in scored.items()})
    log.info('validation at step %d: %s', step, ', '.join(
      f'{name} {title} {value if value is None else round(value, 4)}' for name, (title, value, _) in heads.items()))
    if jax.process_index() == 0:
      write(workdir, step, {name: {'headline': title, 'value': value, 'sign': sign}
                            for name, (title, value, sign) in heads.items()})
    values = [sign * value for _, value, sign in heads.values() if value is not None]
    keep_best(workdir, state, step, sum(values) / len(values) if values else -math.inf)
  return watch


def write(workdir, step, scores):
  """Replaces what an interrupted run may have written of this step and later ones."""
  path = pathlib.Path(workdir, FILE)
  earlier = [line for line in read(workdir) if line['step'] < step]
  path.write_text(''.join(json.dumps(line) + '\n' for line in [*earlier, {'step': step, 'tasks': scores}]))
  with SummaryWriter(str(pathlib.Path(workdir, 'tensorboard'))) as events:
    for name, score in scores.items():
      if score['value'] is not None:
        events.add_scalar(f'validation/{name}', score['value'], step)


def read(workdir):
  """The lines of `validation.jsonl`: `step`, and of each task `headline`, `value` and `sign`."""
  path = pathlib.Path(workdir, FILE)
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep_best(workdir, state, step, score):
  with checkpoint.open_checkpoints(workdir, 1, BEST) as checkpoints:
    before = checkpoint.read_metadata(checkpoints)
    if hosts.on_first(lambda: before is None or (
        score > before['score'] and checkpoint.latest_step(checkpoints) < step)):
      checkpoint.save(checkpoints, state, step, {'score': score})
