"""Weights are imported and exported under torchvision's names without a change; what does not fit is named."""

import re
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from mtpret_jax.models import torchvision_weights, weight_files, weight_names
from mtpret_jax.models.trunk import make_trunk
from tests.reference import draw
from tests.support.drawn import make_state_dict


@pytest.fixture(scope='module')
def state_dict():
  """ResNet-18 with a grey stem, a classifier and a counter of batches."""
  rest = {'fc.weight': np.ones((10, 512)), 'fc.bias': np.ones(10), 'bn1.num_batches_tracked': np.int64(7)}
  return make_state_dict('resnet18', channels=1) | rest


def assert_trees_equal(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_names_equal_torchvisions():
  names = {torchvision_weights.name_in_torch(path) for tree in torchvision_weights.trunk_shapes('resnet50')
           for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
  assert {'conv1.weight', 'bn1.running_mean', 'layer1.0.downsample.0.weight', 'layer1.0.downsample.1.running_var',
          'layer3.5.bn2.bias', 'layer4.2.conv3.weight'} <= names
  assert len(names) == 53 + 4 * 53  # each convolution has one batch norm of four arrays


def test_export_then_import_changes_no_bit(state_dict, tmp_path):
  trunk = torchvision_weights.import_trunk(state_dict, 'resnet18')
  torchvision_weights.export_trunk(*trunk, tmp_path / 'trunk.safetensors')
  assert_trees_equal(torchvision_weights.import_trunk(tmp_path / 'trunk.safetensors', 'resnet18'), trunk)
  written = safetensors.numpy.load_file(tmp_path / 'trunk.safetensors')
  for name, value in written.items():
    np.testing.assert_array_equal(value, state_dict[name])


def test_three_channel_stem_is_summed_and_written_back_as_thirds(tmp_path):
  coloured = make_state_dict('resnet18', channels=3)
  params, stats = torchvision_weights.import_trunk(coloured, 'resnet18')
  summed = coloured['conv1.weight'].sum(1)
  np.testing.assert_allclose(params['conv1']['kernel'][:, :, 0].transpose(2, 0, 1), summed, rtol=1e-6)
  torchvision_weights.export_trunk(params, stats, tmp_path / 'trunk.safetensors', channels=3)
  written = safetensors.numpy.load_file(tmp_path / 'trunk.safetensors')['conv1.weight']
  assert written.shape == (64, 3, 7, 7)
  np.testing.assert_allclose(written.sum(1), summed, rtol=1e-5, atol=1e-6)


def test_the_query_encoder_is_taken_from_mocos_release(state_dict):
  queries = {f'module.encoder_q.{name}': value for name, value in state_dict.items()}
  keys = {f'module.encoder_k.{name}': value + 1 for name, value in state_dict.items()}
  extra = {'module.queue': np.zeros((128, 64), np.float32)}
  assert_trees_equal(torchvision_weights.import_trunk(keys | queries | extra, 'resnet18'),
                     torchvision_weights.import_trunk(state_dict, 'resnet18'))


SEQUENTIAL = {'conv1': '0', 'bn1': '1', 'layer1': '4', 'layer2': '5', 'layer3': '6', 'layer4': '7', 'fc': '9'}


def add_prefix(prefix, weights):
  return {f'{prefix}{name}': value for name, value in weights.items()}


def number(weights):
  """The names in nn.Sequential(*resnet.children())."""
  return {'.'.join([SEQUENTIAL[module], rest]): value for name, value in weights.items()
          for module, _, rest in [name.partition('.')]}


def shift(weights):
  return {name: value + 1 for name, value in weights.items()}


# What others save, given torchvision's state dict `w`.
SAVED = {
  'RadImageNet': lambda w: add_prefix('backbone.', number(w)) | {'classifier.weight': np.ones((9, 512), np.float32)},
  'nn.Sequential': number,
  'fastai': lambda w: add_prefix('0.', number(w)) | {'1.4.weight': np.ones((9, 512), np.float32)},
  'lightly MoCo': lambda w: add_prefix('backbone.', number(w)) | add_prefix('backbone_momentum.', number(shift(w)))
  | {'projection_head.layers.0.weight': np.ones((9, 512), np.float32)},
  'lightly DINO': lambda w: add_prefix('student_backbone.', shift(w)) | add_prefix('teacher_backbone.', w),
  'solo-learn': lambda w: add_prefix('state_dict.backbone.', w) | add_prefix('state_dict.momentum_backbone.', shift(w))
  | {'state_dict.projector.0.weight': np.ones((9, 512), np.float32)},
  'DINO': lambda w: add_prefix('teacher.backbone.', w) | add_prefix('student.module.backbone.', shift(w))
  | {'student.module.head.mlp.0.weight': np.ones(3, np.float32)},
  'MoCo v3': lambda w: add_prefix('module.base_encoder.', w) | add_prefix('module.momentum_encoder.', shift(w)),
  'DenseCL': lambda w: add_prefix('encoder_q.0.', w) | add_prefix('encoder_k.0.', shift(w)),
  'BYOL in PyTorch': lambda w: add_prefix('net.', w) | add_prefix('online_encoder.net.', w)
  | add_prefix('target_encoder.net.', shift(w)),
  'SwAV': lambda w: add_prefix('module.', w) | {'module.projection_head.0.weight': np.ones(3, np.float32),
                                                'module.prototypes.weight': np.ones(3, np.float32)},
  'MMPretrain': lambda w: add_prefix('backbone.', w) | {'head.fc.weight': np.ones(3, np.float32)},
  'VISSL': lambda w: add_prefix('classy_state_dict.base_model.model.trunk._feature_blocks.', w),
  'torch.compile': lambda w: add_prefix('module._orig_mod.', w),
  'torch.compile of a layer': lambda w: {name.replace('layer1.', 'layer1._orig_mod.'): w[name] for name in w},
  'stem apart': lambda w: {re.sub('^(conv|bn)1', lambda found: {'conv': 'layer0.0', 'bn': 'layer0.1'}[found[1]], name):
                           value for name, value in w.items()},
  'beside a network with numbers': lambda w: add_prefix('model.', w) | {
    '0.weight': np.ones(3, np.float32), '1.running_mean': np.ones(3, np.float32),
    '4.0.conv1.weight': np.ones(3, np.float32)}}


@pytest.mark.parametrize('library', SAVED)
def test_the_encoder_is_found_under_the_names_of_other_libraries(library, state_dict):
  weights = {name: value for name, value in state_dict.items() if value.ndim}
  found = weight_names.select_encoder(SAVED[library](weights))
  expected = {name: value for name, value in weights.items() if not name.startswith('fc.')}
  assert found.keys() == expected.keys()
  assert all(found[name] is value or np.array_equal(found[name], value) for name, value in expected.items())


def test_the_encoder_that_was_taken_of_several_is_logged(state_dict, caplog):
  with caplog.at_level('INFO'):
    weight_names.select_encoder(SAVED['DINO'](state_dict))
  assert "took the encoder with the prefix 'teacher.backbone.'" in caplog.text


def test_what_is_between_the_numbers_of_a_sequence_is_refused(state_dict):
  spare = number(state_dict) | {'2.weight': np.ones(1, np.float32)}  # a PReLU in place of the ReLU
  with pytest.raises(ValueError, match=r'2\.weight of shape \(1,\) does not belong to the trunk'):
    torchvision_weights.import_trunk(spare, 'resnet18')


def test_a_file_of_another_network_is_refused_with_some_of_its_names():
  names = [f'resnet.encoder.stages.{i}.layers.0.layer.0.convolution.weight' for i in range(20)]
  with pytest.raises(ValueError, match=r"'resnet\.encoder\.stages\.0\..* and 14 more: give the state dict"):
    weight_names.select_encoder({name: np.ones(1, np.float32) for name in names})


def test_two_encoders_of_unknown_roles_are_refused_with_a_command_that_keeps_one(state_dict, tmp_path):
  weights = {name: np.asarray(value, np.float32) for name, value in state_dict.items() if value.ndim}
  both, one = tmp_path / 'both.safetensors', tmp_path / 'one.safetensors'
  safetensors.numpy.save_file(add_prefix('model.', weights) | add_prefix('model_ema.', shift(weights)), both)
  with pytest.raises(ValueError, match=r"the prefixes \['model\.', 'model_ema\.'\]") as error:
    torchvision_weights.import_trunk(both, 'resnet18')
  command = str(error.value).split('type ')[1].replace('python', sys.executable, 1)
  for name, value in {'NEW_FILE': one, 'FILE': both, 'PREFIX': 'model_ema.'}.items():
    command = command.replace(name, str(value), 1)
  subprocess.run(command, shell=True, check=True)
  assert_trees_equal(torchvision_weights.import_trunk(one, 'resnet18'),
                     torchvision_weights.import_trunk(shift(weights), 'resnet18'))


@pytest.mark.parametrize('kind', ['float16', 'bfloat16', 'float64'])
def test_a_stem_in_another_precision_is_summed_without_rounding(kind, state_dict, tmp_path):
  stem = np.random.default_rng(0).normal(size=(64, 3, 7, 7)) + 1
  weights = {name: np.asarray(value).astype(kind) for name, value in (state_dict | {'conv1.weight': stem}).items()}
  safetensors.numpy.save_file(weights | {'rng_state': np.ones(5, np.uint8)}, tmp_path / 'half.safetensors')
  params, _ = torchvision_weights.import_trunk(tmp_path / 'half.safetensors', 'resnet18')
  exact = weights['conv1.weight'].astype(np.float64).sum(1)
  np.testing.assert_allclose(params['conv1']['kernel'][:, :, 0].transpose(2, 0, 1), exact, rtol=1e-6, atol=1e-7)


def test_kernels_in_the_order_of_tensorflow_are_named_as_such(state_dict):
  turned = {name: value.transpose(2, 3, 1, 0) if value.ndim == 4 else value for name, value in state_dict.items()}
  with pytest.raises(ValueError, match=r'conv1\.weight has shape \(7, 7, 1, 64\).*the order height, width, in, out'):
    torchvision_weights.import_trunk(turned, 'resnet18')


def test_the_blocks_of_another_depth_are_counted(state_dict):
  deeper = state_dict | {name.replace('layer3.1', f'layer3.{i}'): value for name, value in state_dict.items()
                         for i in range(2, 23) if name.startswith('layer3.1.')}
  with pytest.raises(ValueError, match='its stages have 2-2-23-2 blocks .*resnet50 3-4-6-3'):
    torchvision_weights.import_trunk(deeper, 'resnet18')


@pytest.mark.parametrize('name, contents', [
  ('ResNet50.h5', b''), ('ResNet50.keras', b''), ('ResNet50.bin', weight_files.HDF5), ('ResNet50', None)])
def test_a_file_of_keras_is_refused_as_such(name, contents, tmp_path):
  if contents is None:
    with zipfile.ZipFile(tmp_path / name, 'w') as file:
      file.writestr('model.weights.h5', b'')
  else:
    (tmp_path / name).write_bytes(contents)
  with pytest.raises(ValueError, match='is a file of Keras.*give weights for PyTorch'):
    torchvision_weights.import_trunk(tmp_path / name, 'resnet18')


@pytest.mark.parametrize('contents', [b'', b'version https://git-lfs.github.com/spec/v1', b'<html></html>'])
def test_a_file_that_is_no_safetensors_file_is_to_be_downloaded_again(contents, tmp_path):
  (tmp_path / 'a.safetensors').write_bytes(contents)
  with pytest.raises(ValueError, match='a.safetensors cannot be read: .*download it again'):
    torchvision_weights.import_trunk(tmp_path / 'a.safetensors', 'resnet18')


def test_two_encoders_of_unknown_roles_are_refused(state_dict):
  with pytest.raises(ValueError, match="the file has 2 encoders .*: keep only one, or give one the prefix"):
    twice = state_dict | {f'other.{name}': value for name, value in state_dict.items()}
    torchvision_weights.import_trunk(twice, 'resnet18')


def test_a_file_without_a_trunk_is_refused():
  with pytest.raises(ValueError, match='the file has no encoder, .*: give the state dict of a torchvision ResNet'):
    torchvision_weights.import_trunk({'fc.weight': np.zeros((10, 512))}, 'resnet18')


def test_leaving_out_the_classifier_is_logged(state_dict, caplog):
  with caplog.at_level('INFO'):
    torchvision_weights.import_trunk(state_dict, 'resnet18')
  assert 'left out the classifier: fc.weight, fc.bias' in caplog.text


def test_weights_of_another_trunk_are_named_with_both_shapes_and_the_remedy(state_dict):
  with pytest.raises(ValueError) as error:
    torchvision_weights.import_trunk(state_dict, 'resnet50')
  assert str(error.value) == ('layer1.0.conv1.weight has shape (64, 64, 3, 3), but must have (64, 64, 1, 1); '
                              'these are the weights of a resnet18: set --config.trunk=resnet18')


def test_missing_and_spare_parameters_are_named(state_dict):
  short = {name: value for name, value in state_dict.items() if name != 'layer2.0.bn1.bias'}
  with pytest.raises(ValueError, match=r'layer2\.0\.bn1\.bias of shape \(128,\) is missing'):
    torchvision_weights.import_trunk(short, 'resnet18')
  with pytest.raises(ValueError, match=r'layer9\.x of shape \(3,\) does not belong to the trunk'):
    torchvision_weights.import_trunk(state_dict | {'layer9.x': np.zeros(3, np.float32)}, 'resnet18')


def make_detector(classes, counters):
  """The state dict of a detector, whose variances are small."""
  trunk = make_state_dict('resnet18')
  trunk |= {name: value * np.float32(1e-5) for name, value in trunk.items() if name.endswith('running_var')}
  rest = {'bn1.num_batches_tracked': np.int64(7)} if counters else {}
  return {f'backbone.body.{name}': value for name, value in (trunk | rest).items()} | {
    'roi_heads.box_predictor.cls_score.bias': np.zeros(classes, np.float32)}


def test_scales_of_a_detector_for_coco_make_up_for_its_lack_of_an_epsilon(caplog):
  file = make_detector(91, counters=False)
  file['backbone.body.bn1.running_var'][0] = 0
  with caplog.at_level('INFO'):
    params, stats = torchvision_weights.import_trunk(file, 'resnet18')
  assert 'scales of batch norms converted' in caplog.text
  var, scale = (file[f'backbone.body.layer1.0.bn2.{name}'] for name in ('running_var', 'weight'))
  ours, running = params['stages'][0][0]['norm2'], stats['stages'][0][0]['norm2']
  np.testing.assert_allclose(ours['scale'] / np.sqrt(running['var'] + 1e-5), scale / np.sqrt(var), rtol=1e-5)
  np.testing.assert_array_equal(running['var'], var)
  assert np.abs(ours['scale'] / scale - 1).min() > 0.1
  assert params['norm1']['scale'][0] == file['backbone.body.bn1.weight'][0], 'no variance, no conversion'


@pytest.mark.parametrize('classes, counters', [(5, False), (91, True)])
def test_scales_of_other_detectors_stay(classes, counters):
  file = make_detector(classes, counters)
  params, _ = torchvision_weights.import_trunk(file, 'resnet18')
  np.testing.assert_array_equal(params['stages'][0][0]['norm2']['scale'], file['backbone.body.layer1.0.bn2.weight'])


@pytest.mark.reference
def test_the_trunk_of_torchvisions_detector_for_coco_gives_its_features():
  """Built as `fasterrcnn_resnet50_fpn(weights=COCO_V1)` builds it, with drawn weights and small variances."""
  torch, torchvision = pytest.importorskip('torch'), pytest.importorskip('torchvision')
  from torchvision.models.detection import _utils, backbone_utils, faster_rcnn
  backbone = backbone_utils.resnet_fpn_backbone(backbone_name='resnet18', weights=None,
                                                norm_layer=torchvision.ops.FrozenBatchNorm2d)
  model = faster_rcnn.FasterRCNN(backbone, 91).eval()
  drawn = {name: torch.tensor(value) for name, value in make_detector(91, counters=False).items()
           if name in model.state_dict()}
  model.load_state_dict(drawn, strict=False)
  _utils.overwrite_eps(model, 0.0)
  params, stats = torchvision_weights.import_trunk(
    {name: value.numpy() for name, value in model.state_dict().items()}, 'resnet18')
  grey = draw.normal('grey', (2, 64, 64, 1))
  with torch.no_grad():
    theirs = model.backbone.body(torch.tensor(grey.transpose(0, 3, 1, 2)).expand(-1, 3, -1, -1))
  graph = nnx.split(nnx.eval_shape(lambda: make_trunk('resnet18', rngs=nnx.Rngs(0))))[0]
  ours = jax.jit(lambda: nnx.merge(graph, params, stats)(grey, groups=None))()
  for level, features in zip('0123', ours, strict=True):
    expected = theirs[level].numpy().transpose(0, 2, 3, 1)
    worst = np.abs(features - expected).max() / np.abs(expected).max()
    print(f'level {level}: features differ by {worst:.1e} of the largest')
    assert worst < 1e-4


@pytest.mark.reference
def test_torchvision_loads_an_export_and_gives_the_same_features(state_dict, tmp_path):
  torch, torchvision = pytest.importorskip('torch'), pytest.importorskip('torchvision')
  safetensors_torch = pytest.importorskip('safetensors.torch')
  trunk = torchvision_weights.import_trunk(state_dict, 'resnet18')
  torchvision_weights.export_trunk(*trunk, tmp_path / 'trunk.safetensors', channels=3)
  model = torchvision.models.resnet18()
  left = model.load_state_dict(safetensors_torch.load_file(tmp_path / 'trunk.safetensors'), strict=False)
  assert set(left.missing_keys) == {'fc.weight', 'fc.bias'} and not left.unexpected_keys
  grey = torch.tensor(draw.normal('grey', (2, 1, 32, 32)))
  stem = torch.nn.functional.conv2d(grey, torch.tensor(state_dict['conv1.weight']), stride=2, padding=3)
  np.testing.assert_allclose(model.conv1(grey.expand(-1, 3, -1, -1)).detach(), stem, atol=1e-5)
