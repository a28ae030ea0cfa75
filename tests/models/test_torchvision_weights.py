"""Weights are imported and exported under torchvision's names without a change; what does not fit is named."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from mtpret_jax.models import torchvision_weights
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


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
  path = tmp_path / 'moco.pth'
  path.write_bytes(b'not read')
  with pytest.raises(ValueError, match='weights_only=True') as error:
    torchvision_weights.import_trunk(path, 'resnet18')
  assert str(tmp_path / 'moco.safetensors') in str(error.value)


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


@pytest.mark.reference
def test_the_printed_command_converts_a_pickle(state_dict, tmp_path):
  torch = pytest.importorskip('torch')
  import subprocess
  import sys
  path = tmp_path / 'moco.pth'
  torch.save({'epoch': 3, 'state_dict': {f'module.encoder_q.{name}': torch.tensor(value)
                                         for name, value in state_dict.items()}}, path)
  with pytest.raises(ValueError) as error:
    torchvision_weights.import_trunk(path, 'resnet18')
  command = str(error.value).split('convert it with: ')[1].replace('python', sys.executable, 1)
  subprocess.run(command, shell=True, check=True)
  assert_trees_equal(torchvision_weights.import_trunk(path.with_suffix('.safetensors'), 'resnet18'),
                     torchvision_weights.import_trunk(state_dict, 'resnet18'))
