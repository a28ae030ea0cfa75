"""Bad steps."""

import dataclasses
import json
import logging
import math
import pathlib

import jax
import jax.numpy as jnp

RECENT = 'recent'


def remember(objective, config):
  """The objective, whose carry also has `recent`: {task: (W,) losses of its last good steps, NaN where there were not
  yet so many}. Without the rule on spikes it stays as it is."""
  if not config.spike:
    return objective

  def init(rng, trunk=None):
    params, carry = objective.init(rng, trunk)
    return params, carry | {RECENT: {task: jnp.full((config.spike_window,), jnp.nan) for task in objective.parts}}

  def loss(task, params, carry, *rest):
    cost, (moved, measures) = objective.loss(task, params, carry, *rest)
    return cost, (moved | {RECENT: carry[RECENT]}, measures)
  return dataclasses.replace(objective, init=init, loss=loss)


def make_guard(config):
  """guard(task, old, new, measures) -> state, measures; None where there is nothing to do inside of a step.

  `measures` gain `limit`, the highest loss that is not a spike, infinite as long as there are fewer losses than
  `spike_window`. With on_nonfinite='skip' a bad step leaves everything as it was but the number of the step.
  """
  if config.on_nonfinite == 'stop' and not config.spike:
    return None

  def guard(task, old, new, measures):
    good = jnp.isfinite(measures['loss']) & jnp.isfinite(measures['gradient'])
    if config.spike:
      recent_W = old.carry[RECENT][task]
      limit = jnp.where(jnp.isfinite(recent_W).all(), config.spike * jnp.median(recent_W), jnp.inf)
      good &= measures['loss'] <= limit
      moved_W = jnp.where(good, jnp.append(recent_W[1:], measures['loss']), recent_W)
      new = new.replace(carry=new.carry | {RECENT: old.carry[RECENT] | {task: moved_W}})
      measures = measures | {'limit': limit}
    if config.on_nonfinite == 'skip':
      kept = jax.tree.map(lambda before, after: jnp.where(good, after, before), old, new)
      new = kept.replace(step=new.step)
    return new, measures
  return guard


log = logging.getLogger(__name__)

FILE = 'bad_batches.jsonl'


class Diverged(RuntimeError):
  """A loss or gradient that is not a number, or a spike."""


def make_judge(config, workdir, name_images, describe_latest):
  """judge(step, task, measures) -> whether the step counts; raises Diverged where the run has to stop.

  Args:
    name_images: step -> [(dataset, image_id), ...] of its batch.
    describe_latest: () -> where the last good checkpoint is, in words.
  """
  in_a_row = 0

  def judge(step, task, measures):
    nonlocal in_a_row
    words = find_fault(measures)
    if not words:
      in_a_row = 0
      return True
    in_a_row += 1
    where = write(workdir, step, task, measures, name_images)
    if config.on_nonfinite == 'skip' and in_a_row <= config.max_skips:
      log.warning('step %d (%s) %s and is skipped, %d in a row; its images are in %s', step, task, words, in_a_row,
                  where)
      return False
    skipped = f' after {in_a_row - 1} skipped ones' if in_a_row > 1 else ''
    raise Diverged(
      f'step {step} ({task}) {words}: the run stops here{skipped}. The images of the batch are in {where}, the last '
      f'good checkpoint is {describe_latest()}. A lower --config.optimiser.learning_rate or more config.optimiser.warmup_steps '
      f'usually helps; --config.on_nonfinite=skip leaves such steps out')
  return judge


def find_fault(measures):
  """What is wrong with a step, in words; '' where nothing is."""
  loss, gradient, limit = measures['loss'], measures['gradient'], measures.get('limit', math.inf)
  if not math.isfinite(loss + gradient):
    return f'gave loss {loss} and gradient norm {gradient}'
  return f'gave loss {loss:.4g}, a spike above {limit:.4g}' if loss > limit else ''


def write(workdir, step, task, measures, name_images):
  """Adds a line to the file, and returns where it is."""
  path = pathlib.Path(workdir, FILE)
  if jax.process_index() == 0:
    numbers = {name: repr(measures[name]) if not math.isfinite(measures[name]) else measures[name]
               for name in ('loss', 'gradient', 'limit') if name in measures}  # JSON has no NaN
    images = [{'dataset': dataset, 'image_id': image_id} for dataset, image_id in name_images(step)]
    with open(path, 'a', encoding='utf-8') as file:
      file.write(json.dumps({'step': step, 'task': task} | numbers | {'images': images}) + '\n')
  return path
