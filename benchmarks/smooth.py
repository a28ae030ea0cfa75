"""`benchmarks/support/tiny.py` without anything that compares: softplus for ReLU, the mean of a window for its maximum.

    python -m benchmarks.smooth --config=benchmarks/support/tiny.py:continual --config.workdir=DIR --config.data.dir=DIR

Sums over processes are taken in another order than sums over the devices of one, which changes the last bits. A
number within these last bits of zero may then be on the other side of ReLU, and the pixel's share in a gradient is lost
or won at once: a thousandth of the gradient of a kernel. So it is here that runs in several processes must
end as in one within rounding; whatever the processes have in common, they have here too.
"""

import jax

from benchmarks.support import tiny
from mtpret_jax import cli
from mtpret_jax.models import resnet


def pool_mean(images_BHWC):
  return jax.lax.reduce_window(images_BHWC, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1),
                               ((0, 0), (1, 1), (1, 1), (0, 0))) / 9


if __name__ == '__main__':
  jax.nn.relu, resnet.pool_max = jax.nn.softplus, pool_mean
  tiny.add_trunk()
  cli.run()
