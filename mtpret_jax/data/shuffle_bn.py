"""ShuffleBN (He et al. 2020): permutes keys across batch-norm groups.

A query and its key must not share batch-norm statistics, or the statistics alone reveal the positive pair. MoCo moves
images between GPUs to prevent that. Here the host writes the keys into the batch in another order (`data/pipeline.py`),
and the device puts their embeddings back (`objectives/moco.py`). So only embeddings move, which are small.

The order: within a block of S groups of N neighbouring rows, row n of group s moves to position n * S + s. Then a group
of keys has at most ceil(N / S) images in common with any group of queries. A block lies inside one process, and the
order does not depend on the number of devices or processes.
"""

from typing import Any

Array = Any  # NumPy's on the host or JAX's on the device; this package does not import JAX


def shuffle_keys(rows: Array, group: int, groups: int) -> Array:
  """Rows (B, ...) in the order of the queries -> the same rows in the order of the keys.

  `group`: rows in a batch-norm group, N. `groups`: groups in a block, S. B is a multiple of N * S. With one group per
  block the order is unchanged.
  """
  # A transpose of (blocks, S, N): two reshapes instead of a gather.
  return rows.reshape(-1, groups, group, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unshuffle_keys(rows: Array, group: int, groups: int) -> Array:
  """The inverse of `shuffle_keys`."""
  return rows.reshape(-1, group, groups, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
