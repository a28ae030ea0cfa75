"""Where the key of each query sits.

A query and its key must not share batch-norm statistics, or the statistics alone give the positive away. MoCo moves
images between GPUs (ShuffleBN); here the host lays the keys out in another order to begin with, and only their
embeddings are put back, so nothing large travels.

Within a block of S groups of N neighbouring rows, row n of group s moves to place n S + s: each group of keys holds
N / S keys (rounded up) of each group of queries. A block lies inside one process, and the order does not depend on how
many devices or processes there are.
"""


def place_keys(rows, group, groups):
  """Rows of queries (B, ...) -> the same rows in the order of the keys. Numpy or jax arrays.

  `group`: rows in a batch-norm group, N. `groups`: groups in a block, S. B is a multiple of N S.
  """
  return rows.reshape(-1, groups, group, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def return_keys(rows, group, groups):
  """Undoes `place_keys`."""
  return rows.reshape(-1, group, groups, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def share_of_group(group, groups):
  """The largest share of a key's group that comes from its query's group: 1 is no shuffle, 1 / groups at best."""
  return -(-group // groups) / group
