"""A program of `jax.export` gives the predictions of evaluation, in a process without this package."""

import functools
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtpret_jax.evaluation.metrics.temperature import apply_temperature
from mtpret_jax.export import stablehlo
from mtpret_jax.models import conv
from mtpret_jax.objectives.multitask import make_predict
from mtpret_jax.runtime import backend
from tests.support.drawn_models import SIZE, TASK, make_trained

# A user's program: jax and NumPy only. It predicts for batches of three images and of one.
PROGRAM = '''
import sys
import jax
import numpy as np
for folder in sys.argv[1:]:
  model = jax.export.deserialize(bytearray(open(f'{folder}/model.stablehlo', 'rb').read()))
  weights = dict(np.load(f'{folder}/weights.npz'))
  images = np.load(f'{folder}/images.npy')
  predict = jax.jit(model.call)
  np.savez(f'{folder}/found.npz', **predict(weights, images))
  np.savez(f'{folder}/one.npz', **predict(weights, images[:1]))
assert not {'mtpret_jax', 'flax', 'configs'} & set(sys.modules)
'''
KINDS = ('classification', 'segmentation', 'trunk')


@pytest.fixture(scope='module', autouse=True)
def small_trunk(one_block):
  """Programs of one block compile in seconds."""


@functools.cache
def make(kind):
  return make_trained(kind, 'resnet18' if kind == 'detection' else 'one_block')


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1)).astype(np.uint8)


@pytest.fixture(scope='module')
def folders(tmp_path_factory, images):
  return run_program(tmp_path_factory.mktemp('programs'), KINDS, images)


def run_program(root, kinds, images):
  """{kind: an exported folder}, in each of which PROGRAM has left its predictions."""
  for kind in kinds:
    (root / kind).mkdir()
    stablehlo.write(make(kind), None if kind == 'trunk' else TASK, root / kind)
    np.save(root / kind / 'images.npy', images)
  (root / 'program.py').write_text(PROGRAM)
  subprocess.run([sys.executable, root / 'program.py', *(root / kind for kind in kinds)], check=True, cwd=root)
  return {kind: root / kind for kind in kinds}


def predict(trained, images):
  compute = jax.jit(make_predict(trained.config, TASK, trained.tasks[TASK].make_model()))
  return jax.device_get(compute(trained.params, trained.stats, {'image': images})[1])


@pytest.mark.parametrize('kind', ['classification', 'segmentation'])
def test_a_fresh_process_predicts_what_evaluation_predicts(kind, folders, images):
  compare(folders[kind], make(kind), images)


@pytest.mark.slow
def test_a_fresh_process_detects_what_evaluation_detects(images, tmp_path):
  compare(run_program(tmp_path, ['detection'], images)['detection'], make('detection'), images)


def compare(folder, trained, images):
  expected = predict(trained, images)
  for found, count in (('found.npz', 3), ('one.npz', 1)):
    with np.load(folder / found) as outputs:
      for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values[:count], rtol=0, atol=1e-5, err_msg=name)


def test_the_activation_is_what_the_logits_are_made_of(folders):
  with np.load(folders['classification'] / 'found.npz') as outputs:
    bias = make('classification').params[TASK]['out']['bias']
    np.testing.assert_allclose(outputs['activation'].mean((1, 2)) + bias, outputs['logits'], atol=1e-5)
    kernel = make('classification').params[TASK]['out']['kernel']
    np.testing.assert_allclose(outputs['features'] @ kernel, outputs['activation'], atol=1e-5)


def test_the_trunk_of_stage_1_gives_embeddings(folders):
  with np.load(folders['trunk'] / 'found.npz') as outputs:
    np.testing.assert_allclose(outputs['features'].mean((1, 2)), outputs['embedding'], atol=1e-5)
    assert outputs['embedding'].std(0).max() > 1e-3, 'images differ'


def test_the_description_has_shapes_names_and_units(folders):
  spec = json.loads((folders['classification'] / 'stablehlo.json').read_text())
  assert spec['input']['shape'] == ['B', SIZE, SIZE, 1] and spec['input']['type'] == 'uint8'
  assert spec['outputs']['score'] == {'shape': ['B', 3], 'type': 'float32', 'meaning': 'probability, 0 to 1'}
  assert spec['about']['findings'] == ['opacity', 'effusion', 'nodule'] and spec['platforms'] == ['cpu', 'cuda', 'tpu']
  assert all(output['meaning'] for kind in KINDS
             for output in json.loads((folders[kind] / 'stablehlo.json').read_text())['outputs'].values())


def test_the_replacements_for_cpus_are_not_in_the_program(monkeypatch):
  """They are installed in this process, as the training command installs them."""
  assert backend.find('convolve', conv.convolve_plainly) is not conv.convolve_plainly
  def lower():
    text = stablehlo.export(make('classification'), TASK).mlir_module()
    return re.sub(r' loc\(.*|^#loc.*', '', text, flags=re.MULTILINE)  # the lines of this file

  installed = lower()
  assert backend.find('convolve', conv.convolve_plainly) is not conv.convolve_plainly
  monkeypatch.setattr(backend, 'OVERRIDES', {})
  assert lower() == installed
  assert 'stablehlo.convolution' in installed


@pytest.mark.parametrize('relation', ['independent', 'exclusive'])
def test_scores_have_the_temperature_of_the_run(relation):
  score = np.float32([[0.0, 1e-9, 0.3, 0.999, 1.0], [0.1, 0.2, 0.3, 0.3, 0.1]])
  about = {'relation': relation}
  for temperature in (1.0, 0.5, 2.5):
    expected = apply_temperature(about, score, temperature)
    np.testing.assert_allclose(stablehlo.scale_score(score, relation, temperature), expected, rtol=1e-4, atol=1e-6)


def test_flips_are_in_the_program_where_the_run_has_them(images):
  trained = make('classification')
  mirrored = make_trained('classification', 'one_block')
  mirrored.config.flips = True
  expected = predict(mirrored, images)['score']
  outputs = jax.jit(stablehlo.make_function(mirrored, TASK))(stablehlo.flatten(mirrored, TASK), images)
  np.testing.assert_allclose(outputs['score'], expected, atol=1e-5)
  assert np.abs(expected - predict(trained, images)['score']).max() > 1e-4
