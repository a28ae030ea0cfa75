"""The section of a model card that says how its files are loaded."""

from collections.abc import Sequence
from typing import Any

from mtpret_jax.export.stablehlo import SPEC
from mtpret_jax.export.torchvision import MODEL, SCRIPT, TRUNK_FILE

# torchvision's builders for a ResNet-50, and the parts of a head that decide which parameters they have.
BUILDERS = {'segmentation': 'segmentation.deeplabv3_resnet50', 'detection': 'detection.fasterrcnn_resnet50_fpn'}
OTHERWISE = (' It predicts otherwise there, because dilations, anchors and image sizes are not in a state dict: use '
             '`build` of the script.')


def describe_torchvision(spec: dict[str, Any]) -> str:
  """How to use an export for torchvision. `spec`: the content of torchvision.json."""
  timm = (f"model = timm.create_model('{spec['trunk']}', in_chans={spec['channels']}, num_classes=0, "
          f"checkpoint_path='{TRUNK_FILE}')")
  return '\n'.join([
    '## Use in PyTorch', '',
    *code('sh', 'pip install torch torchvision safetensors opencv-python-headless', f'python {SCRIPT.name} IMAGE.png'),
    '', f'`{SCRIPT.name}` builds the network from torchvision\'s parts, loads the weights with `strict=True`, prepares '
    f'an image as above and prints the prediction. It needs nothing of mtpret_jax. {describe_stock(spec)}', '',
    'The trunk alone, in timm:', '', *code('python', 'import timm', timm), '',
    'To train from it here, set `--config.init=other --config.init_from=' + TRUNK_FILE + '`.'])


def describe_stock(spec: dict[str, Any]) -> str:
  """Which of torchvision's own builders loads the file."""
  kind, trunk, about = spec['kind'], spec['trunk'], spec['about']
  first, last = ('features.conv0', 'classifier') if trunk.startswith('densenet') else ('conv1', 'fc')
  stem = '' if spec['channels'] == 3 else f' with a `{first}` of one input channel'
  if kind == 'trunk':
    return f'`{TRUNK_FILE}` is the state dict of `torchvision.models.{trunk}()`{stem}, without `{last}`.'
  if kind not in BUILDERS:
    outputs = len(about['findings']) if kind == 'classification' else 1
    return f'`{MODEL}` is the state dict of `torchvision.models.{trunk}(num_classes={outputs})`{stem}.'
  if not has_stock_parameters(spec):
    return 'torchvision has no builder for this network as a whole.'
  classes = len(about['mask']) if kind == 'segmentation' else len(about['box_classes']) + 1
  text = (f'`{MODEL}` is the state dict of `torchvision.models.{BUILDERS[kind]}(weights=None, weights_backbone=None, '
          f'num_classes={classes})`{stem}.')
  return text if kind == 'segmentation' and has_stock_dilations(spec['head']) else text + OTHERWISE


def has_stock_parameters(spec: dict[str, Any]) -> bool:
  """Whether the parameters of a segmentation or detection network are those of torchvision's builder."""
  head = spec['head']
  if spec['trunk'] != 'resnet50' or head['width'] != 256:
    return False
  if spec['kind'] == 'segmentation':
    return len(head['dilations']) == 3
  return head['roi_hidden'] == 1024 and len(head['aspect_ratios']) * len(head['anchor_sizes'][0]) == 3


def has_stock_dilations(head: dict[str, Any]) -> bool:
  return head['output_stride'] == 8 and list(head['dilations']) == [12, 24, 36]


def describe_own_weights(tasks: Sequence[str]) -> str:
  """How to use an export of our own weights."""
  task = f", task='{tasks[0]}'" if len(tasks) > 1 else ''
  call = "model.predict(['IMAGE.png'])" if tasks else "model.embed(['IMAGE.png'])"
  return '\n'.join(['## Use in mtpret_jax', '', *code(
    'python', 'import mtpret_jax as mt', f"model = mt.load('FOLDER'{task})", call), '',
    'FOLDER is this folder. It can be moved, and needs neither the run nor its data.'])


def describe_stablehlo(spec: dict[str, Any]) -> str:
  """How to use an export to StableHLO. `spec`: the content of stablehlo.json."""
  size = spec['input']['shape'][1]
  table = [f'| `{name}` | {" x ".join(map(str, output["shape"]))} | {output["type"]} | {output["meaning"]} |'
           for name, output in spec['outputs'].items()]
  return '\n'.join([
    '## Use in JAX', '', *code('sh', 'pip install jax flatbuffers'), '', *code(
      'python', 'import jax', 'import numpy as np', '',
      f"model = jax.export.deserialize(bytearray(open('{spec['file']}', 'rb').read()))",
      f"weights = dict(np.load('{spec['weights']}'))", 'predict = jax.jit(model.call)',
      f'outputs = predict(weights, images)  # images: (B, {size}, {size}, 1) uint8, any B'), '',
    f'`images` are the squares of step 3 above; the program does the later steps. It runs on '
    f'{", ".join(spec["platforms"])} without mtpret_jax. `{SPEC}` has names, units and thresholds.', '',
    '| output | shape | type | meaning |', '|---|---|---|---|', *table])


def code(language: str, *lines: str) -> list[str]:
  return [f'```{language}', *lines, '```']
