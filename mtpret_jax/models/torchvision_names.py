"""torchvision's name and layout for every array of our models: one map for import and export.

| kind of task | torchvision's model | trunk | head |
|---|---|---|---|
| classification, regression | `resnet18`, ..., `densenet121` | no prefix | `fc`; of a DenseNet `classifier` |
| segmentation | `deeplabv3_resnet50` | `backbone.` | `classifier.` |
| detection | `fasterrcnn_resnet50_fpn` | `backbone.body.` | `backbone.fpn.`, `rpn.`, `roi_heads.` |

Arrays in and out are NumPy's, f32. `path` is a jax key path into params or running statistics.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
TRUNK_PREFIX = {'classification': '', 'regression': '', 'segmentation': 'backbone.', 'detection': 'backbone.body.'}
HEAD_PREFIXES = {'classification': ('fc.',), 'regression': ('fc.',), 'segmentation': ('classifier.',),
                 'detection': ('backbone.fpn.', 'rpn.', 'roi_heads.')}
# The last layers of a head. Their size depends on the classes, and in the RPN on the anchors of a cell.
LAST_LAYERS = {'classification': ('fc.',), 'regression': ('fc.',), 'segmentation': ('classifier.4.',),
               'detection': ('rpn.head.cls_logits.', 'rpn.head.bbox_pred.', 'roi_heads.box_predictor.')}
OTHER_HEADS = ('roi_heads.mask_', 'roi_heads.keypoint_')  # of Mask R-CNN and Keypoint R-CNN, beside the boxes' head
CELLS = 7  # along each side of an aligned RoI, torchvision's
DETECTOR = {'rpn/conv': 'rpn.head.conv.0.0', 'rpn/cls_logits': 'rpn.head.cls_logits',
            'rpn/bbox_pred': 'rpn.head.bbox_pred', 'roi_head/fc6': 'roi_heads.box_head.fc6',
            'roi_head/fc7': 'roi_heads.box_head.fc7', 'roi_head/cls_score': 'roi_heads.box_predictor.cls_score',
            'roi_head/bbox_pred': 'roi_heads.box_predictor.bbox_pred'}
DENSE = 'features.'  # torchvision's module with the whole trunk of a DenseNet
CONV_NORM = {'conv': 0, 'norm': 1}  # places of a convolution and its batch norm in an nn.Sequential

Tree = Mapping[str, Any]  # nested dicts of arrays


def name_in_torch(path: tuple) -> str:
  """torchvision's name for a leaf of the trunk. Examples:

    norm1/mean -> bn1.running_mean
    stages/0/1/conv2/kernel -> layer1.1.conv2.weight
    stages/3/0/shortcut/norm/scale -> layer4.0.downsample.1.weight
    blocks/0/1/conv2/kernel -> features.denseblock1.denselayer2.conv2.weight
  """
  *modules, leaf = [step.key for step in path]
  if modules[0] in ('conv0', 'norm0', 'blocks', 'norms', 'transitions'):
    return f'{DENSE}{name_dense(modules)}.{LEAVES[leaf]}'
  words: list[str] = []
  while modules:
    word = modules.pop(0)
    if word == 'stages':
      words.append(f'layer{int(modules.pop(0)) + 1}')
    elif word == 'shortcut':
      words += ['downsample', {'conv': '0', 'norm': '1'}[modules.pop(0)]]
    else:
      words.append(str(word).replace('norm', 'bn'))
  return '.'.join([*words, LEAVES[leaf]])


def name_dense(modules: list) -> str:
  """torchvision's name for a module of a DenseNet's trunk. Its batch norm after a block belongs to the transition, and
  after the last block is `norm5`."""
  match modules:
    case ['blocks', block, layer, inner]:
      return f'denseblock{int(block) + 1}.denselayer{int(layer) + 1}.{inner}'
    case ['norms', block]:
      return 'norm5' if int(block) == 3 else f'transition{int(block) + 1}.norm'
    case ['transitions', block]:
      return f'transition{int(block) + 1}.conv'
  return str(modules[0])


def name_head(kind: str, path: tuple, dilations: int = 3) -> str:
  """torchvision's name for a leaf of the head of a task of this kind, in the model of the table above.

  `dilations` is the number of DeepLab's atrous branches. Raises KeyError for a kind that torchvision has no head for.
  Examples:

    segmentation: aspp/atrous/0/norm/mean -> classifier.0.convs.1.1.running_mean
    detection: rpn/conv/kernel -> rpn.head.conv.0.0.weight
    classification: out/kernel -> fc.weight
  """
  *modules, leaf = [str(step.key) for step in path]
  return f'{NAME_MODULE[kind](modules, dilations)}.{LEAVES[leaf]}'


def name_linear(modules: list[str], dilations: int) -> str:
  return {'out': 'fc'}['/'.join(modules)]


def name_deeplab(modules: list[str], dilations: int) -> str:
  if modules == ['logits']:
    return 'classifier.4'
  *block, layer = modules
  place = CONV_NORM[layer]
  match block:
    case ['conv']:
      return f'classifier.{1 + place}'
    case ['aspp', 'project']:
      return f'classifier.0.project.{place}'
    case ['aspp', 'pointwise']:
      return f'classifier.0.convs.0.{place}'
    case ['aspp', 'atrous', index]:
      return f'classifier.0.convs.{int(index) + 1}.{place}'
    case ['aspp', 'pooling']:
      return f'classifier.0.convs.{dilations + 1}.{place + 1}'  # 0 is the pooling itself
  raise KeyError('/'.join(modules))


def name_detector(modules: list[str], dilations: int) -> str:
  match modules:
    case ['fpn', blocks, level]:
      return f'backbone.fpn.{blocks}.{level}.0'
  return DETECTOR['/'.join(modules)]


NAME_MODULE = {'classification': name_linear, 'regression': name_linear, 'segmentation': name_deeplab,
               'detection': name_detector}


def count_dilations(params: Tree) -> int:
  """The number of atrous branches of a head; 0 for a head that is no DeepLab."""
  return len(params.get('aspp', {}).get('atrous', ()))


def list_head(kind: str, params: Tree, stats: Tree) -> Iterator[tuple[str, Any]]:
  """(torchvision's name, leaf) of each array of a head, or of whatever stands for it, such as its shape."""
  for tree in (params, stats):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      yield name_head(kind, path, count_dilations(params)), leaf


def export_head(kind: str, params: Tree, stats: Tree) -> dict[str, np.ndarray]:
  """The arrays of a head under torchvision's names and in its layouts. A linear layer is called `fc`."""
  return {name: to_torch(leaf, name) for name, leaf in list_head(kind, params, stats)}


def to_torch(leaf: jax.Array | np.ndarray, name: str = '') -> np.ndarray:
  """An array in PyTorch's layout. f32, contiguous.

  Kernels of convolutions change from (height, width, in, out) to (out, in, height, width), those of linear layers from
  (in, out) to (out, in). `name`, which is torchvision's, tells two layers of the detector that need more: `fc6` reads
  an aligned RoI as (channels, height, width), and box deltas have columns first.
  """
  array = np.asarray(leaf, np.float32)
  if array.ndim == 2 and name.endswith('box_head.fc6.weight'):
    array = array.reshape(CELLS, CELLS, -1, array.shape[1]).transpose(2, 0, 1, 3).reshape(array.shape)
  array = np.transpose(array, TO_TORCH.get(array.ndim))
  # Contiguous: safetensors would write a transposed view in the wrong order.
  return np.ascontiguousarray(swap_deltas(array) if 'bbox_pred.' in name else array)


def from_torch(leaf: np.ndarray, name: str = '') -> np.ndarray:
  """The inverse of `to_torch`."""
  array = np.asarray(leaf, np.float32)
  array = np.transpose(swap_deltas(array) if 'bbox_pred.' in name else array, FROM_TORCH.get(array.ndim))
  if array.ndim == 2 and name.endswith('box_head.fc6.weight'):
    array = array.reshape(-1, CELLS, CELLS, array.shape[1]).transpose(1, 2, 0, 3).reshape(array.shape)
  return np.ascontiguousarray(array)


TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def swap_deltas(array: np.ndarray) -> np.ndarray:
  """Exchanges (y, x, height, width) and (x, y, width, height) in every four entries of the first axis."""
  return array.reshape(-1, 4, *array.shape[1:])[:, [1, 0, 3, 2]].reshape(array.shape)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape that `to_torch` gives an array of `shape`."""
  return tuple(shape[axis] for axis in TO_TORCH.get(len(shape), range(len(shape))))


def rename_old(name: str) -> str:
  """The name since torchvision 0.13 of a detector's array; its published weights have the older names."""
  name = re.sub(r'^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$', r'\1.0.\2', name)
  return re.sub(r'^rpn\.head\.conv\.(weight|bias)$', r'rpn.head.conv.0.0.\1', name)
