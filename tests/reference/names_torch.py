"""Names and shapes of the state dicts of torchvision's models.

`python -m tests.reference.names_torch` records them in names.npz, for `tests/export/test_torchvision.py`. Needs torch
and torchvision.
"""

import numpy as np
from torchvision.models import get_model

from tests.reference.names_setting import CLASSES, FIXTURE, MODELS


def build(name):
  """torchvision's `name` with random weights."""
  options = {} if '_' not in name else {'weights_backbone': None}
  return get_model(name, weights=None, num_classes=CLASSES, **options)


def list_shapes(name):
  """'NAME SHAPE' of each entry of a state dict, in its order."""
  return [f'{key} {tuple(value.shape)}' for key, value in build(name).state_dict().items()]


if __name__ == '__main__':
  np.savez_compressed(FIXTURE, **{name: np.array(list_shapes(name)) for names in MODELS.values() for name in names})
