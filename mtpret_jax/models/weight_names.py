"""Finds a trunk among the parameters of a file, and gives its parameters torchvision's names.

Others save a trunk below a prefix (`module.encoder_q.`, `backbone.`, `state_dict.model.`), inside `nn.Sequential`,
whose parameters have numbers for names (RadImageNet, lightly, fastai), with its stem apart, or compiled.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from mtpret_jax.config.errors import show
from mtpret_jax.models.torchvision_names import DENSE, HEAD_PREFIXES, TRUNK_PREFIX, rename_old

LANDMARK = 'layer1.0.conv1.weight'  # every ResNet has it; what precedes it in a name is the encoder's prefix
DENSE_LANDMARK = 'denseblock1.denselayer1.conv1.weight'  # every DenseNet has it
# A layer's modules are called norm1 or conv2 in torchvision, norm.1 in its published weights, layers.norm1 in MONAI.
DENSE_LAYER = re.compile(r'(denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.')
DENSE_MODULES = re.compile(r'(conv0|norm0|norm5|denseblock\d|transition\d)\.')
# nn.Sequential(*resnet.children()): 2 is the ReLU, 3 the max-pooling, 8 the mean.
SEQUENTIAL = {'0': 'conv1', '1': 'bn1', '4': 'layer1', '5': 'layer2', '6': 'layer3', '7': 'layer4', '9': 'fc'}
SEQUENTIAL_LANDMARK = LANDMARK.replace('layer1', '4')
COCO_SCORES = 'roi_heads.box_predictor.cls_score.bias'
STEMS = ('layer0.', 'stem.')  # modules that some put the stem into, as conv1 and bn1 or as 0 and 1
WRAPPERS = re.compile(r'_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.')
# Prefixes of an encoder that follows or teaches another one. MoCo and BYOL evaluate the trained one; DINO the teacher.
FOLLOWERS = re.compile(r'encoder_k|momentum|(^|[._])(key|target|student)')
# First modules of what sits on top of a trunk.
HEADS = re.compile(r'(fc|heads?|class|op_threshs|proj|pred|prototype|mlp|neck|linear|logit|last_l|queue|criterion|'
                   r'loss|aux)\w*')
SHOWN = 6  # names in a message
PICK = ('python -c "import sys, safetensors.numpy as s; from mtpret_jax.models.weight_files import read; w = '
        'read(sys.argv[1]); s.save_file({n: w[n] for n in w if n.startswith(sys.argv[3])}, sys.argv[2])" '
        'FILE NEW_FILE PREFIX')


def select_encoder(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The parameters of one encoder under torchvision's names, without heads and the counters of batches.

  Raises:
    ValueError: the file has no encoder, or several of which none is the one to take.
  """
  plain = {unwrap(name): value for name, value in weights.items()}
  prefixes = find_prefixes(plain)
  if not prefixes:
    raise ValueError(f'the file has no encoder, because no parameter name ends in {LANDMARK} (or, inside '
                     f'nn.Sequential, in {SEQUENTIAL_LANDMARK}; of a DenseNet, in {DENSE_LANDMARK}), only '
                     f'{list_names(plain) or "nothing"}: give the state dict of a torchvision ResNet or DenseNet-121')
  prefix, *others = choose_prefixes(prefixes)
  if others:
    raise ValueError(f'the file has {len(prefixes)} encoders (names that end in {LANDMARK} or {DENSE_LANDMARK}, with '
                     f"the prefixes {show(prefixes)}): keep only one, or give one the prefix 'encoder_q.'; to keep "
                     f'one, type {PICK}')
  parameters = take(plain, prefix, prefixes)
  if len(prefixes) > 1:
    logging.info('took the encoder with the prefix %s, of %s', show(prefix), show(prefixes))
  heads = [name for name in parameters if HEADS.fullmatch(name.split('.')[0])]
  if heads:
    logging.info('left out the classifier: %s', show(', '.join(heads))[1:-1])
  return {name: value for name, value in parameters.items() if name not in heads}


def select_head(weights: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
  """The parameters of the head of torchvision's model for this kind of task, on the encoder that `select_encoder`
  takes; {} if the file has no such head."""
  plain = {unwrap(name): value for name, value in weights.items()}
  prefix, *others = choose_prefixes(find_prefixes(plain))
  if others or not prefix.endswith(TRUNK_PREFIX[kind]):
    return {}
  root = prefix.removesuffix(TRUNK_PREFIX[kind])
  own = {rename_old(name.removeprefix(root)): value for name, value in plain.items() if name.startswith(root)}
  return {name: value for name, value in own.items()
          if name.startswith(HEAD_PREFIXES[kind]) and not name.endswith('num_batches_tracked')}


def has_no_epsilon(weights: Mapping[str, np.ndarray]) -> bool:
  """Whether the batch norms of a file divide by the root of the variance alone. torchvision sets their epsilon to 0 in
  its detectors for COCO, which have 91 classes and frozen batch norms, without a counter of batches."""
  plain = {unwrap(name): value for name, value in weights.items()}
  scores = next((value for name, value in plain.items() if name.endswith(COCO_SCORES)), np.zeros(0))
  return np.shape(scores) == (91,) and not any(name.endswith('num_batches_tracked') for name in plain)


def unwrap(name: str) -> str:
  """The name without what PyTorch's wrappers add, and with torchvision's names in the layers of a DenseNet."""
  return DENSE_LAYER.sub(r'\1.\2\3.', WRAPPERS.sub('', name))


def find_prefixes(names: Collection[str]) -> list[str]:
  """What precedes the names of each trunk. Numbers count only in a file without torchvision's names, because any
  network may have a module 4."""
  named = [name.removesuffix(LANDMARK) for name in names if name.endswith(LANDMARK)]
  named += [name.removesuffix(DENSE_LANDMARK).removesuffix(DENSE) for name in names if name.endswith(DENSE_LANDMARK)]
  numbered = [name.removesuffix(SEQUENTIAL_LANDMARK) for name in names
              if f'.{name}'.endswith(f'.{SEQUENTIAL_LANDMARK}')]
  return named or [prefix for prefix in numbered if {f'{prefix}0.weight', f'{prefix}1.running_mean'} <= set(names)]


def choose_prefixes(prefixes: list[str]) -> list[str]:
  """The prefix of the encoder to take; several if that is not known."""
  for chosen in ([prefix for prefix in prefixes if prefix.endswith('encoder_q.')],
                 [prefix for prefix in prefixes if 'online' in prefix],
                 [prefix for prefix in prefixes if not FOLLOWERS.search(prefix)]):
    if len(chosen) == 1:
      return chosen
  return prefixes


def take(weights: Mapping[str, np.ndarray], prefix: str, prefixes: list[str]) -> dict[str, np.ndarray]:
  """The parameters below `prefix`, without those of encoders below it, under torchvision's names."""
  below = [other for other in prefixes if other != prefix and other.startswith(prefix)]
  bare = {name.removeprefix(prefix): value for name, value in weights.items()
          if name.startswith(prefix) and not any(map(name.startswith, below))
          and not name.endswith('num_batches_tracked')}
  if SEQUENTIAL_LANDMARK in bare:
    return {f'{SEQUENTIAL.get(module, module)}.{rest}': value for name, value in bare.items()
            for module, _, rest in [name.partition('.')]}
  if DENSE_LANDMARK in bare:  # only the module `features` of a DenseNet was saved
    return {f'{DENSE}{name}' if DENSE_MODULES.match(name) else name: value for name, value in bare.items()}
  return {rename_stem(name): value for name, value in bare.items()}


def rename_stem(name: str) -> str:
  """torchvision's name of a parameter of the stem; other names as they are."""
  for stem in STEMS:
    module, _, rest = name.removeprefix(stem).partition('.')
    if name.startswith(stem) and module in ('0', '1', 'conv1', 'bn1'):
      return f'{SEQUENTIAL.get(module, module)}.{rest}'
  return name


def list_names(names: Iterable[str]) -> str:
  """A few of the names, evenly spread, for a message."""
  every = list(names)
  some = every[::max(1, len(every) // SHOWN)][:SHOWN]
  return ', '.join(map(show, some)) + (f' and {len(every) - len(some)} more' if len(every) > len(some) else '')
