"""What a task is to those who train and evaluate: five things, whatever it asks of an image."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Task:
  """Functions of arrays; only the head has weights.

  Attributes:
    make_head: (trunk, rngs) -> the head as an `nnx.Module`, for the trunk's widths.
    output_stride: of the trunk's maps that the head wants.
    apply: (head, features, batch, *, groups, rng) -> outputs, a dict of arrays with leading axis B. While training
      `groups` is the number of batch-norm groups and `rng` draws what is random; both are None for inference.
    loss: (outputs, batch) -> (sum, count), f32 scalars; what is unknown, not annotated, empty or padding is in neither,
      so that sums and counts of several batches may be added.
    predict: outputs of inference -> what is scored and shown, a dict of arrays.
  """

  make_head: Callable
  output_stride: int
  apply: Callable
  loss: Callable
  predict: Callable


def find_rows(batch):
  """(B,) bool: the images that are no padding. A batch of training has none."""
  return batch['valid'] if 'valid' in batch else jnp.ones(len(batch['image']), bool)


def sum_known(losses, known):
  """(sum, count) of the `losses` that are `label_mask`."""
  return jnp.where(known, losses, 0).sum(), known.sum().astype(jnp.float32)
