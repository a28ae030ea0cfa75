"""What is looked at inside of every step: is the loss a number, and is it far above the last ones of its task?

The recent losses are part of the state, so that a run that was stopped judges as one that was not. What becomes of a
bad step: `bad_steps.py`.
"""

import dataclasses

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
  `spike_window`. With on_bad='skip' a bad step leaves everything as it was but the number of the step.
  """
  if config.on_bad == 'stop' and not config.spike:
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
    if config.on_bad == 'skip':
      kept = jax.tree.map(lambda before, after: jnp.where(good, after, before), old, new)
      new = kept.replace(step=new.step)
    return new, measures
  return guard
