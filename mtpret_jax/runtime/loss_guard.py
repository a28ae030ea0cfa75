"""Stops the run at a step whose loss or gradient is not finite, or skips that step (`config.on_nonfinite`).

The guard is part of the compiled step and keeps the old state. The step check runs on the host, logs the bad batch and
decides whether the run goes on.
"""

import json
import logging
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

log = logging.getLogger(__name__)

FILE = 'bad_batches.jsonl'


class Diverged(RuntimeError):
  """The loss or the gradient is not finite, and the run must stop."""


def make_guard(config: ConfigDict) -> Callable | None:
  """guard(old state, new state, measures) -> state, for use inside the compiled step.

  With on_nonfinite='skip' a step that is not finite changes only the step count and the anchor of L2-SP. With 'stop'
  there is nothing to do inside the step, so this returns None.
  """
  if config.on_nonfinite == 'stop':
    return None

  def guard(old: Any, new: Any, measures: Mapping[str, jax.Array]) -> Any:
    finite = jnp.isfinite(measures['loss']) & jnp.isfinite(measures['gradient'])
    state = jax.tree.map(lambda before, after: jnp.where(finite, after, before), old, new)
    # The batch is a function of the step, so the next step must see the next batch. The anchor moves at the first step
    # of a visit, to weights from before that step, so it moves even if the step is skipped.
    moved = {name: value for name, value in new.carry.items() if name == 'anchor'}
    return state.replace(step=new.step, carry=state.carry | moved)
  return guard


def make_step_check(config: ConfigDict, workdir: str | pathlib.Path, name_images: Callable,
                    describe_latest: Callable[[], str]) -> Callable[[int, str, Mapping[str, float]], bool]:
  """check_step(step, task, measures) -> whether the step counts. It raises Diverged if the run must stop.

  Args:
    name_images: step -> [(dataset, image_id), ...] of its batch.
    describe_latest: () -> a sentence that says which checkpoint is the newest.
  """
  skips = 0  # in a row

  def check_step(step: int, task: str, measures: Mapping[str, float]) -> bool:
    nonlocal skips
    loss, gradient = measures['loss'], measures['gradient']
    if math.isfinite(loss) and math.isfinite(gradient):
      skips = 0
      return True
    path = log_bad_batch(workdir, step, task, measures, name_images)
    words = f'step {step} ({task}) gave loss {loss} and gradient norm {gradient}'
    if config.on_nonfinite == 'skip' and skips < config.max_skips:
      skips += 1
      log.warning('%s; skipping it (%d in a row). Its images are listed in %s', words, skips, path)
      return False
    after = f' after skipping {skips} steps in a row' if skips else ''
    raise Diverged(
      f'{words}: the run stops{after}. The images of the batch are listed in {path}. {describe_latest()} Try a lower '
      f'--config.optimiser.learning_rate, a larger --config.optimiser.warmup or --config.optimiser.clip=1; '
      f'--config.on_nonfinite=skip skips such steps')
  return check_step


def log_bad_batch(workdir: str | pathlib.Path, step: int, task: str, measures: Mapping[str, float],
                  name_images: Callable) -> pathlib.Path:
  """Appends a line with the step's loss, gradient norm and images to `bad_batches.jsonl`; returns the path. Only the
  first process writes."""
  path = pathlib.Path(workdir, FILE)
  if jax.process_index() == 0:
    numbers = {name: measures[name] if math.isfinite(measures[name]) else repr(measures[name])  # JSON has no NaN
               for name in ('loss', 'gradient')}
    images = [{'dataset': dataset, 'image_id': image_id} for dataset, image_id in name_images(step)]
    with open(path, 'a', encoding='utf-8') as file:
      file.write(json.dumps({'step': step, 'task': task} | numbers | {'images': images}) + '\n')
  return path
