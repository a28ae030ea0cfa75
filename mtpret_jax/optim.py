"""Learning-rate schedules and optimisers from config. The rate belongs to the step, not to the optimiser: the parts
that a step moves have been moved different numbers of times."""

import jax.numpy as jnp
import numpy as np
import optax


def make_schedule(config, steps):
  """step -> learning rate: linear warm-up over `warmup_steps`, then a half cosine to zero at `steps` (Loshchilov and
  Hutter 2017). MoCo v2's code has no warm-up: `warmup_steps=0`."""
  def rate(step):
    warm = jnp.minimum((step + 1) / max(config.warmup_steps, 1), 1.0)
    done = jnp.clip((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 0.0, 1.0)
    return config.rate * warm * 0.5 * (1 + jnp.cos(jnp.pi * done))
  return rate


def make_visit_schedule(config, plan):
  """step -> learning rate: `make_schedule` anew in each visit of the plan, so that every task starts at the full rate.
  The papers' "cyclic" rate is known by recollection only; one half cosine a visit is our reading."""
  rates = np.zeros(plan.steps, np.float32)
  for length in {visit.length for visit in plan.visits}:
    curve = np.asarray(make_schedule(config, length)(np.arange(length)))
    for visit in plan.visits:
      if visit.length == length:
        rates[visit.start:visit.start + length] = curve
  return lambda step: jnp.asarray(rates)[step]


def make_optimiser(config):
  """Gradients -> updates that are yet to be multiplied by the rate and subtracted, `config.kind`:

  sgd     as PyTorch computes it: decay added to the gradient, then momentum. Decay is on everything, batch norm and
          biases included, as in the reference implementation (facebookresearch/moco main_moco.py).
  adamw   Loshchilov and Hutter 2019; `momentum` is the first moment's.
  """
  if config.kind == 'adamw':
    return optax.chain(optax.scale_by_adam(b1=config.momentum), optax.add_decayed_weights(config.weight_decay))
  return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.trace(config.momentum))
