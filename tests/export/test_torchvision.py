"""An export for torchvision has its names and shapes, and predicts there what we predict.

`python -m tests.reference.names_torch` recorded the names and shapes in names.npz. The tests marked `reference` run
torchvision, timm and the exported script.
"""

import ast
import dataclasses
import importlib.util
import json
import pathlib

import cv2
import jax
import numpy as np
import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.records import decode_image
from mtpret_jax.evaluation import operating_points
from mtpret_jax.evaluation.metrics.temperature import apply_temperature
from mtpret_jax.export import torchvision as export
from mtpret_jax.models.torchvision_weights import name_trunk
from mtpret_jax.objectives.multitask import make_predict
from mtpret_jax.predict.reading import read_image
from mtpret_jax.runtime.atomic_io import write_json
from tests.reference import draw
from tests.reference.names_setting import CLASSES, FIXTURE, MODELS
from tests.support.drawn_models import SIZE, TASK, make_trained, make_zeros
from tests.support.paths import ROOT
from tfds_builders.common import images

TOLERANCE = 1e-4
STOCK = [(kind, name) for kind, names in MODELS.items() for name in names]
CASES = {  # what is exported: kind of task, trunk, changes of the head
  'classification': ('classification', 'resnet18', {}),
  'exclusive': ('classification', 'resnet34', {'relation': 'exclusive'}),
  'regression': ('regression', 'resnet50', {}),
  'DenseNet': ('classification', 'densenet121', {}),
  'segmentation by a DenseNet': ('segmentation', 'densenet121', {'output_stride': 8}),
  'detection by a DenseNet': ('detection', 'densenet121', {}),
  'segmentation': ('segmentation', 'resnet18', {'output_stride': 8}),
  'segmentation at stride 16': ('segmentation', 'resnet50', {'output_stride': 16}),
  'segmentation at stride 32': ('segmentation', 'resnet34', {'output_stride': 32}),
  'detection': ('detection', 'resnet18', {}),
  'mirrored findings': ('classification', 'resnet18', {'flips': True}),
  'mirrored sides': ('segmentation', 'resnet18', {
    'flips': True, 'about': {'mask': ['background', 'left lung', 'right lung']}}),
  'mirrored boxes': ('detection', 'resnet18', {
    'flips': True, 'about': {'box_classes': ['left hip', 'nail', 'right hip']}}),
  'detection by torchvision\'s head': ('detection', 'resnet50', {'stock': True})}
SIDES = ((300, 200), (40, 61), (110, 110))  # of images: stored smaller, enlarged, a square


def find_trunk(name):
  return name.removeprefix('deeplabv3_').removeprefix('fasterrcnn_').removesuffix('_fpn')


@pytest.mark.parametrize('kind, name', STOCK)
def test_names_and_shapes_are_torchvisions(kind, name):
  trained = make_trained(kind, find_trunk(name), make_leaf=make_zeros, stock=True)
  trunk = export.add_counters(name_trunk(*trained.take_trunk(TASK), 3))
  ours = {f'{key} {value.shape}' for key, value in export.name_model(trained, TASK, trunk).items()}
  with np.load(FIXTURE) as recorded:
    theirs = {line for line in recorded[name].tolist() if not line.startswith('aux_classifier')}
  assert ours == theirs and CLASSES == 3


def test_the_stem_takes_one_grey_channel_or_three_equal_ones():
  trunk = make_trained('trunk').take_trunk(None)
  one, three = (name_trunk(*trunk, channels)['conv1.weight'] for channels in (1, 3))
  assert one.shape == (64, 1, 7, 7) and three.shape == (64, 3, 7, 7)
  np.testing.assert_allclose(three.sum(1, keepdims=True), one, rtol=1e-5)


def test_stage_1_exports_its_trunk_alone(tmp_path):
  export.write(make_trained('trunk', make_leaf=make_zeros), None, tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['load_in_torch.py', 'torchvision.json',
                                                              'trunk.safetensors']
  spec = json.loads((tmp_path / 'torchvision.json').read_text())
  assert spec['kind'] == 'trunk' and spec['weights'] == 'trunk.safetensors' and spec['stored_longest'] == 256


def test_a_kind_of_task_that_torchvision_lacks_is_refused():
  trained = make_trained('classification', make_leaf=make_zeros)
  toy = dataclasses.replace(trained, tasks={TASK: dataclasses.replace(trained.tasks[TASK], kind='landmarks')})
  with pytest.raises(ConfigError, match='--to=safetensors'):
    export.name_model(toy, TASK, {})


def write_images(folder):
  """Grey images with structure at several scales."""
  for height, width in SIDES:
    coarse = cv2.resize(draw.uniform('coarse', (7, 5), 20, 230), (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = coarse + draw.uniform(f'{height} {width}', (height, width), -20, 20)
    cv2.imwrite(str(folder / f'{height}x{width}.png'), np.clip(noisy, 0, 255).astype(np.uint8))
  return sorted(folder.glob('*.png'))


def predict_ours(trained, paths):
  """Our predictions for files, read as a builder stores them; logits in place of masks without flips."""
  stored = [images.read_stored(path, 256)[0] for path in paths]
  batch = {'image': np.stack([decode_image(encoded, SIZE) for encoded in stored])}
  model = trained.tasks[TASK].make_model()
  if trained.tasks[TASK].kind == 'segmentation' and not trained.config.flips:
    model = dataclasses.replace(model, predict=lambda outputs: outputs)
  predict = jax.jit(make_predict(trained.config, TASK, model))
  _, predictions = jax.device_get(predict(trained.params, trained.stats, batch))
  return [{field: values[index] for field, values in predictions.items()} for index in range(len(paths))]


def load_script(folder):
  """The exported script, as a module."""
  pytest.importorskip('safetensors.torch')
  spec = importlib.util.spec_from_file_location('exported_script', folder / 'load_in_torch.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module, json.loads((folder / 'torchvision.json').read_text())


def test_the_script_reads_the_grey_values_that_predict_reads(tmp_path):
  source = (ROOT / 'mtpret_jax/export/load_in_torch.py').read_text()
  own = next(node for node in ast.parse(source).body if getattr(node, 'name', '') == 'read_grey')
  names = {'cv2': cv2, 'np': np, 'pathlib': pathlib}
  exec(ast.unparse(own), names)  # this function alone, because the script imports torch
  grey, colour = draw.uniform('grey', (40, 30), 0, 255).astype(np.uint8), draw.uniform('colour', (40, 30, 3), 0, 255)
  cv2.imwrite(str(tmp_path / 'equal.png'), np.stack([grey] * 3, 2))
  cv2.imwrite(str(tmp_path / 'three.jpg'), np.stack([grey, grey, np.maximum(grey, 3) - 3], 2))  # nearly equal
  cv2.imwrite(str(tmp_path / 'colour.png'), colour.astype(np.uint8))
  cv2.imwrite(str(tmp_path / 'one.jpg'), grey)
  np.testing.assert_array_equal(names['read_grey'](tmp_path / 'equal.png'), grey)
  for path in sorted(tmp_path.iterdir()):
    np.testing.assert_array_equal(names['read_grey'](path), read_image(path, 'original').image, path.name)
  for name, pixels in {'alpha': np.zeros((4, 4, 4), np.uint8), 'deep': np.zeros((4, 4), np.uint16)}.items():
    cv2.imwrite(str(tmp_path / f'{name}.png'), pixels)
    with pytest.raises(SystemExit, match='not a grey or RGB image of 8 bits'):
      names['read_grey'](tmp_path / f'{name}.png')


def test_the_stem_of_a_densenet_may_have_three_channels_too():
  trunk = make_trained('trunk', 'densenet121', make_leaf=make_zeros).take_trunk(None)
  assert name_trunk(*trunk, 3)['features.conv0.weight'].shape == (64, 3, 7, 7)


@pytest.mark.reference
@pytest.mark.parametrize('channels', (3, 1))
@pytest.mark.parametrize('case', CASES)
def test_torchvision_predicts_what_we_predict(case, channels, tmp_path):
  pytest.importorskip('torchvision')
  kind, trunk, changes = CASES[case]
  if channels == 1 and case not in ('classification', 'DenseNet', 'detection'):
    pytest.skip('the stem is the same')
  trained = make_trained(kind, trunk, **changes)
  export.write(trained, TASK, tmp_path, channels)
  script, spec = load_script(tmp_path)
  paths = write_images(tmp_path)
  model, batch = script.load(spec), script.torch.stack([script.read_image(path, spec) for path in paths])
  theirs = script.predict(model, spec, batch)
  if kind == 'segmentation' and not trained.config.flips:
    with script.torch.inference_mode():
      logits = model(batch)['out'].permute(0, 2, 3, 1).numpy()
    for other, own in zip(theirs, logits, strict=True):
      np.testing.assert_array_equal(other['mask'], own.argmax(-1))
    theirs = [{'logits': own} for own in logits]
  for mine, other, path in zip(predict_ours(trained, paths), theirs, paths, strict=True):
    if kind == 'detection':
      found = mine['class_id'] >= 0
      assert found.sum() == len(other['class_id']) > 0
      mine = {field: values[found] for field, values in mine.items()}
    mine.pop('activation', None)  # class activation maps, which the script does not give
    assert mine.keys() == other.keys()
    for field, values in mine.items():
      if field == 'mask':  # a pixel may tie
        assert len(np.unique(values)) > 1 and (values != other[field]).mean() < 1e-3
        continue
      worst = np.abs(values - other[field]).max()
      print(f'{case}, {path.stem}: {field} differs by {worst:.1e} at most, of up to {np.abs(values).max():.2f}')
      assert worst <= TOLERANCE * (120 if field == 'value' else 1), field  # months


@pytest.mark.reference
@pytest.mark.parametrize('channels', (1, 3))
@pytest.mark.parametrize('trunk', ('resnet18', 'densenet121'))
def test_timm_loads_the_trunk_and_gives_its_features(trunk, channels, tmp_path):
  pytest.importorskip('torchvision')
  timm = pytest.importorskip('timm')
  export.write(make_trained('trunk', trunk), None, tmp_path, channels)
  script, spec = load_script(tmp_path)
  batch = script.torch.stack([script.read_image(path, spec) for path in write_images(tmp_path)])
  model = timm.create_model(trunk, in_chans=channels, num_classes=0,
                            checkpoint_path=str(tmp_path / 'trunk.safetensors')).eval()
  with script.torch.inference_mode():
    features = model(batch).numpy()
  theirs = [prediction['features'] for prediction in script.predict(script.load(spec), spec, batch)]
  np.testing.assert_allclose(features, theirs, atol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize('relation', ('independent', 'exclusive'))
def test_the_script_predicts_at_the_temperature_of_validation(relation, tmp_path):
  pytest.importorskip('torchvision')
  drawn = make_trained('classification', relation=relation, make_leaf=make_zeros)
  trained = dataclasses.replace(drawn, run=tmp_path)
  write_json(tmp_path / operating_points.FILE, {TASK: {'temperature': 2.5, 'thresholds': {}, 'rule': 'youden'}})
  export.write(trained, TASK, tmp_path)
  script, spec = load_script(tmp_path)
  scores = np.float32([[0.9, 0.06, 0.04], [0.2, 0.3, 0.5], [1, 0, 0]])
  np.testing.assert_allclose(script.scale(script.torch.tensor(scores), spec).numpy(),
                             apply_temperature(trained.tasks[TASK].about, scores, 2.5), atol=1e-6)
