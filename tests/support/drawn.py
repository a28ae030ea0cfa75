"""Random weights under torchvision's names, without PyTorch."""

import jax

from mtpret_jax.models import torchvision_weights
from tests.reference import draw


def make_state_dict(name, channels=3, make=draw.weight):
  """A state dict like torchvision's of the model `name`, without the classifier, for images of `channels` channels.

  `make`: (name, shape) -> array.
  """
  trees = torchvision_weights.trunk_shapes(name)
  shapes = {torchvision_weights.name_in_torch(path): torchvision_weights.torch_shape(leaf.shape) for tree in trees
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  stem = next(key for key in shapes if key in torchvision_weights.STEMS)
  shapes[stem] = (64, channels, 7, 7)
  return {key: make(key, shape) for key, shape in shapes.items()}
