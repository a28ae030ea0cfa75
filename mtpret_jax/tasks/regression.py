"""How much of something, such as the age of bones, from the mean over the last map."""

import optax

from mtpret_jax.models.heads import LinearHead
from mtpret_jax.tasks.task import Task, find_rows, sum_known

STRIDE = 32


def make_regression(about, config):
  """The head answers in deviations from the mean: `config.mean` and `config.deviation` are those of the values that it
  is trained on, in their unit. The loss is smooth L1 with its bend at one deviation."""
  def compare(outputs, batch):
    losses_B1 = optax.huber_loss(outputs['deviations'], (batch['value'] - config.mean) / config.deviation)
    return sum_known(losses_B1, find_rows(batch)[:, None])

  return Task(
    make_head=lambda trunk, rngs: LinearHead(trunk.channels, 1, rngs=rngs),
    output_stride=STRIDE,
    apply=lambda head, features, batch, *, groups, rng: {'deviations': head(features)},
    loss=compare,
    predict=lambda outputs: {'value': outputs['deviations'] * config.deviation + config.mean})
