"""Validation while a run of stage 2 or 3 trains: scores of all tasks, and the checkpoint of the best state."""

import dataclasses
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.evaluation import predict
from mtpret_jax.runtime import checkpoint, distributed, events
from mtpret_jax.runtime.atomic_io import read_intact_lines, write_atomically
from mtpret_jax.runtime.averaged_weights import use_average
from mtpret_jax.runtime.pictures import optional_picture
from mtpret_jax.step import TrainState
from mtpret_jax.tasks import find_kind

log = logging.getLogger(__name__)

FILE, BEST = 'validation.jsonl', 'best'
UNDEFINED = -math.inf  # the rank of an undefined score
PICTURES = 8  # images with their predictions that each validation shows in TensorBoard

Draw = Callable[..., np.ndarray]  # (kind, examples, title) -> (H, W, 3) uint8


def make_validate(config: ConfigDict, workdir: str | pathlib.Path, start: int,
                  draw: Draw | None = None) -> Callable[[TrainState, int], str]:
  """validate(state, step): scores the validation split of each task and appends a line to `validation.jsonl` and to
  TensorBoard. It returns why the run ends early, or '' if it goes on. A run with one task also saves the state in
  `best/` if its headline score is the best so far, see `is_better`. Scores of several tasks have no common unit, so a
  run with several tasks keeps no best state.

  `draw` makes a picture of some predictions, for TensorBoard; with None there is none.

  A step that already has a line is not validated again when the run resumes there. A run that starts at step 0 first
  deletes the lines and the best state of any earlier run that was interrupted before its first checkpoint.

  Raises:
    checkpoint.Damaged: the best state of a resumed run is damaged. It is checked now, not hours later.
  """
  predictors: dict[tuple[str, str], predict.Predictor] = {}
  if start == 0 and jax.process_index() == 0:
    shutil.rmtree(pathlib.Path(workdir, BEST), ignore_errors=True)
    pathlib.Path(workdir, FILE).unlink(missing_ok=True)
  check_best(workdir)
  scoring = config.copy_and_resolve_references()
  scoring.resamples = 0  # only the headline is kept, without its interval

  def validate(state: TrainState, step: int) -> str:
    if step == start and any(line['step'] == step for line in read(workdir)):
      return agree_on_early_end(workdir, step, config.patience)
    if config.optimiser.ema:
      params, carry = use_average(state.params, state.carry)
      state = dataclasses.replace(state, params=params, carry=carry)
    scored = predict.score_tasks(scoring, state, 'validation', predictors)
    headlines = distributed.run_on_first(
      lambda: {name: predict.find_headline(result) for name, (_, result) in scored.items()})
    log.info('validation at step %d: %s', step, ', '.join(
      f'{name} {title} {"undefined" if value is None else round(value, 4)}'
      for name, (title, value, _) in headlines.items()))
    if len(headlines) == 1:
      (_, value, sign), = headlines.values()
      save_if_best(workdir, state, step, rank_score({'value': value, 'sign': sign}), config.save_retries)
    if jax.process_index() == 0:
      write(workdir, step, {name: {'headline': title, 'value': value, 'sign': sign}
                            for name, (title, value, sign) in headlines.items()})
    if draw:
      show_examples(config, workdir, state, step, predictors, draw)
    return agree_on_early_end(workdir, step, config.patience)
  return validate


def agree_on_early_end(workdir: str | pathlib.Path, step: int, patience: int) -> str:
  """`explain_early_end`, decided by the first process for all, because the others may not see its newest line of
  `validation.jsonl` yet."""
  return distributed.run_on_first(lambda: explain_early_end(workdir, step, patience)) if patience else ''


def write(workdir: str | pathlib.Path, step: int, scores: dict[str, dict]) -> None:
  """Appends the line of a step. Removes the lines of this and later steps, which an interrupted run may have left."""
  path = pathlib.Path(workdir, FILE)
  earlier = [line for line in read(workdir) if line['step'] < step]
  write_atomically(path, ''.join(json.dumps(line) + '\n' for line in [*earlier, {'step': step, 'tasks': scores}]))
  with events.open_events(workdir) as writer:
    for name, score in scores.items():
      if score['value'] is not None:
        writer.add_scalar(f'validation/{name}', score['value'], step, summary_description=score['headline'])


def show_examples(config: ConfigDict, workdir: str | pathlib.Path, state: TrainState, step: int,
                  predictors: Mapping[tuple[str, str], predict.Predictor], draw: Draw) -> None:
  """Adds a picture of some predictions of each task to TensorBoard. All processes call it."""
  for name, task_config in config.tasks.items():
    predictor = predictors[name, 'validation']
    places = predict.spread_places(len(predictor.source), PICTURES)
    examples = predict.collect_examples(config, name, 'validation', state, predictor, places)
    if jax.process_index() == 0:
      with optional_picture(f'predictions/{name}'), events.open_events(workdir) as writer:
        picture = draw(find_kind(task_config.kind), examples, f'{name}, validation split, step {step:,}')
        events.add_picture(writer, f'predictions/{name}', picture, step)


def read(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """The lines of `validation.jsonl`: {'step', 'tasks': {task: {'headline', 'value', 'sign'}}}, without damaged ones."""
  return read_intact_lines(pathlib.Path(workdir, FILE), lambda line: isinstance(line.get('tasks'), dict) and all(
    map(is_score, line['tasks'].values())))


def is_score(score: Any) -> bool:
  """Whether `score` is what `write` stores for a task. `sign` is -1 where lower is better."""
  return (isinstance(score, dict) and isinstance(score.get('headline'), str) and score.get('sign') in (-1, 1)
          and (score.get('value', '') is None or isinstance(score.get('value'), int | float)))


def explain_early_end(workdir: str | pathlib.Path, step: int, patience: int) -> str:
  """Why a run with one task ends at `step`: the last `patience` validations brought no better score. '' if it goes on.
  A run without any defined score goes on, because nothing shows that it has stopped to improve.

  The answer depends on `validation.jsonl` only, so that a run that resumes at `step` gets the same one.
  """
  lines = [line for line in read(workdir) if line['step'] <= step]  # an interrupted run may have written later ones
  scores = [rank_score(score) for line in lines for score in line['tasks'].values()]
  if not patience or max(scores, default=UNDEFINED) == UNDEFINED:
    return ''
  best = scores.index(max(scores))  # the first of equal ones
  if len(scores) - 1 - best < patience:
    return ''
  return (f'the validation score has not improved since step {lines[best]["step"]} (validations since then: '
          f'{len(scores) - 1 - best}, patience: {patience})')


def describe_ties(workdir: str | pathlib.Path, images: int) -> str:
  """A sentence if several validations of a run with one task have the best score, else ''. `images`: how many the
  validation split has."""
  scores = [score for line in read(workdir) for score in line['tasks'].values()]
  ranks = [rank_score(score) for score in scores]
  best = max(ranks, default=UNDEFINED)
  if best == UNDEFINED or ranks.count(best) < 2:
    return ''
  value = scores[ranks.index(best)]['value']
  return (f'{ranks.count(best)} of {len(ranks)} validations have the best score, {value:.4f}, so the last of them '
          f'counts (validation images: {images:,})')


def rank_score(score: Mapping[str, Any]) -> float:
  """A number that is higher for a better score; an undefined one is the worst."""
  value = score['value']
  return UNDEFINED if value is None or math.isnan(value) else score['sign'] * value


def is_better(score: float, before: float) -> bool:
  """Whether a state with the rank `score` replaces the earlier state with the rank `before`. Of equal scores the later
  state is kept: with few validation images, a hardly trained state may reach the same score."""
  return score >= before


def check_best(workdir: str | pathlib.Path) -> None:
  """Raises checkpoint.Damaged if the saved best state is damaged."""
  folder = pathlib.Path(workdir, BEST)
  try:
    if folder.is_dir():
      checkpoint.find_latest(folder)
  except checkpoint.Damaged as error:
    raise checkpoint.Damaged(f'{error}; or delete {folder}, and the run keeps the best state from this point on'
                             ) from error


def save_if_best(workdir: str | pathlib.Path, state: TrainState, step: int, score: float, retries: int) -> None:
  """Saves the state in `best/` if it replaces the saved one, see `is_better`. `score` is higher for a better state."""
  with checkpoint.open_checkpoints(workdir, 1, BEST, retries) as checkpoints:
    before = checkpoint.read_metadata(checkpoints)
    # The first process decides for all: saving needs every process.
    if distributed.run_on_first(lambda: before is None or (
        is_better(score, before['score']) and (checkpoints.latest or 0) < step)):
      # Without the optimiser's state, which is two thirds of the bytes: nothing trains on from the best state.
      checkpoint.save(checkpoints, dataclasses.replace(state, opt={}), step, {'score': score}, wait=True)
