"""The trunks by their names in `config.trunk`.

A trunk is a module: standardised images (B, H, W, 1) -> four feature maps at strides 4, 8, 16 and 32. `trunk(images,
groups=..., output_stride=...)`, `widths` and `channels` are explained in `resnet.py`.
"""

from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from flax import nnx

from mtpret_jax.models import densenet, resnet
from mtpret_jax.models.densenet import DenseNet
from mtpret_jax.models.resnet import ResNet

# {name: (block or growth, layers of the four stages)}. A view of both tables; a ChainMap lists its last one first.
TRUNKS: Mapping[str, tuple[Any, tuple[int, ...]]] = ChainMap(densenet.LAYERS, resnet.LAYERS)  # type: ignore[arg-type]


def make_trunk(name: str, *, rngs: nnx.Rngs) -> ResNet | DenseNet:
  """The trunk `name`, a key of TRUNKS, with random weights."""
  return DenseNet(name, rngs=rngs) if name in densenet.LAYERS else ResNet(name, rngs=rngs)
