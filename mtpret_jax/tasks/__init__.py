"""The kinds of tasks. To add one, add a file to this package and its name to KINDS below.

Importing this package does not import JAX (see `task.py`).
"""

from mtpret_jax.tasks.classification import CLASSIFICATION
from mtpret_jax.tasks.detection import DETECTION
from mtpret_jax.tasks.regression import REGRESSION
from mtpret_jax.tasks.segmentation import SEGMENTATION
from mtpret_jax.tasks.task import TaskKind

KINDS = {kind.name: kind for kind in (CLASSIFICATION, DETECTION, REGRESSION, SEGMENTATION)}


def find_kind(name: str) -> TaskKind:
  """The kind of task called `name`; raises ValueError, with the names there are."""
  if name not in KINDS:
    raise ValueError(f'unknown kind of task {name!r}: choose one of {", ".join(KINDS)}')
  return KINDS[name]
