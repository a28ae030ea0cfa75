"""The command of `small_runs.py` with smooth operations: softplus instead of ReLU, average instead of max pooling.

    python -m tests.support.smooth_runs --config=tests/support/small_runs.py:continual --config.workdir=DIR ...

Two ways to spread a batch over devices or processes add floats in another order, so the last bits differ. At a kink
these bits matter: a value near zero lands on the other side of ReLU, and its pixel enters a gradient or leaves it. That
changes the gradient of a kernel by a thousandth. Without kinks the results must agree within rounding, and everything
that processes share is unchanged.
"""

import jax

from mtpret_jax.models import resnet
from tests.support import small_runs


def average_windows(images_BHWC: jax.Array) -> jax.Array:
  """The mean over windows of 3 x 3 pixels with stride 2."""
  return jax.lax.reduce_window(images_BHWC, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1),
                               ((0, 0), (1, 1), (1, 1), (0, 0))) / 9


if __name__ == '__main__':
  jax.nn.relu, resnet.pool_max = jax.nn.softplus, average_windows
  small_runs.main()
