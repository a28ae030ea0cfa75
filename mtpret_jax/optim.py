"""Learning-rate schedules and optimisers from config."""

import jax.numpy as jnp
import optax


def make_schedule(config, steps):
  """step -> learning rate: linear warm-up over `warmup_steps`, then a half cosine to zero at `steps` (Loshchilov and
  Hutter 2017). MoCo v2's code has no warm-up: `warmup_steps=0`."""
  def rate(step):
    warm = jnp.minimum((step + 1) / max(config.warmup_steps, 1), 1.0)
    done = jnp.clip((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 0.0, 1.0)
    return config.rate * warm * 0.5 * (1 + jnp.cos(jnp.pi * done))
  return rate


def make_optimiser(config, schedule):
  """SGD as PyTorch computes it: decay added to the gradient, then momentum, then the rate. Decay is on everything,
  batch norm and biases included, as in the reference implementation (facebookresearch/moco main_moco.py)."""
  return optax.chain(
    optax.add_decayed_weights(config.weight_decay),
    optax.trace(config.momentum),
    optax.scale_by_learning_rate(schedule))
