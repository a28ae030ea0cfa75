"""Pictures of the best and worst cases, and class activation maps."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mtpret_jax.models.heads import LinearHead
from mtpret_jax.report.examples import draw_examples, draw_picture
from mtpret_jax.report.image_grids import draw_grid as draw_image_grid
from mtpret_jax.report.pictures import draw_cases, shorten
from mtpret_jax.runtime.pictures import optional_picture
from mtpret_jax.tasks import KINDS

ABOUT = {'findings': ['mass', 'nodule'], 'relation': 'independent'}


def make_example(name, activation):
  return {'image': np.linspace(0, 1, 64).reshape(8, 8), 'image_id': name, 'about': ABOUT,
          'labels': {'present': np.array([1.0, 0.0]), 'label_mask': np.array([True, True])},
          'prediction': {'score': np.array([0.9, 0.2]), 'activation': activation}}


def test_cases_are_drawn_with_captions_that_say_what_they_are(tmp_path):
  example = make_example('scan7', np.ones((2, 3, 2)))
  paths = draw_cases(tmp_path, {'chest': 'classification'}, {'chest': {'worst': [example] * 5, 'best': [example]}})
  captions = json.loads((tmp_path / 'pictures/captions.json').read_text())
  assert [entry['file'] for entry in captions] == [path.name for path in paths] == ['chest_worst.png', 'chest_best.png']
  assert captions[0]['title'] == 'Worst cases: chest' and captions[0]['task'] == 'chest'
  assert captions[0]['caption'].startswith('The 5 images with the largest errors') and '2 x 3' in captions[0]['caption']
  sizes = [Image.open(path).size for path in paths]
  assert sizes[0][0] == 4 * sizes[1][0] and sizes[0][1] == 2 * sizes[1][1]


def test_a_kind_without_activation_and_a_task_without_cases_are_drawn_too(tmp_path):
  example = {'image': np.zeros((4, 4)), 'image_id': 'a', 'about': {'value': {'name': 'age', 'unit': 'months'}},
             'labels': {'value': np.array([3.0])}, 'prediction': {'value': np.array([4.0])}}
  assert len(draw_cases(tmp_path, {'age': 'regression', 'knee': 'classification'},
                        {'age': {'worst': [example], 'best': []}, 'knee': {}})) == 1
  assert 'Grad-CAM' not in (tmp_path / 'pictures/captions.json').read_text()


NO_FORMULA = r'${mass$'  # matplotlib raises ValueError where it reads mathematics


@pytest.mark.parametrize('kind, about, labels, prediction', [
  ('classification', {'findings': [NO_FORMULA], 'relation': 'independent'},
   {'present': np.ones(1), 'label_mask': np.ones(1, bool)},
   {'score': np.full(1, 0.9), 'activation': np.ones((2, 2, 1))}),
  ('regression', {'value': {'name': NO_FORMULA, 'unit': NO_FORMULA}}, {'value': np.ones(1)}, {'value': np.ones(1)}),
  ('segmentation', {'mask': ['background', NO_FORMULA]}, {'mask': np.ones((4, 4), int)},
   {'mask': np.ones((4, 4), int)}),
  ('detection', {'box_classes': [NO_FORMULA]},
   {'boxes': np.array([[0, 0, 0.5, 0.5]]), 'class_id': np.zeros(1, int)},
   {'boxes': np.array([[0, 0, 0.5, 0.5]]), 'class_id': np.zeros(1, int), 'score': np.ones(1)})])
def test_names_are_no_mathematics(kind, about, labels, prediction, tmp_path, caplog):
  example = {'image': np.zeros((4, 4)), 'image_id': NO_FORMULA, 'about': about, 'labels': labels,
             'prediction': prediction}
  assert len(draw_cases(tmp_path, {'own': kind}, {'own': {'worst': [example]}})) == 1 and not caplog.text
  draw_examples(tmp_path / 'examples.png', KINDS[kind], [example], NO_FORMULA)
  assert draw_picture(KINDS[kind], [example], NO_FORMULA).ndim == 3
  draw_image_grid(tmp_path / 'grid.png', [[(np.zeros((4, 4, 1)), NO_FORMULA)]], [NO_FORMULA])


def test_a_picture_that_cannot_be_drawn_is_left_out_with_a_warning(tmp_path, caplog):
  good, bad = make_example('a', np.ones((2, 3, 2))), make_example('b', np.ones((2, 3, 2))) | {'image': None}
  paths = draw_cases(tmp_path, {'chest': 'classification'}, {'chest': {'worst': [bad], 'best': [good]}})
  captions = json.loads((tmp_path / 'pictures/captions.json').read_text())
  assert [path.name for path in paths] == [entry['file'] for entry in captions] == ['chest_best.png']
  assert 'the picture chest_worst.png is missing' in caplog.text


def test_a_full_disk_is_more_than_a_missing_picture():
  with pytest.raises(OSError, match='no space left'), optional_picture('views'):
    raise OSError('no space left')


@pytest.fixture
def axes():
  from matplotlib.figure import Figure
  axes = Figure().subplots()
  axes.imshow(np.zeros((4, 8)), extent=(0, 1, 1, 0), aspect=0.5)
  return axes


@pytest.mark.parametrize('labels, finding', [
  ({}, 'mass'), ({'present': np.array([1.0, 0.0]), 'label_mask': np.array([True, True])}, 'mass'),
  ({'present': np.array([1.0, 1.0]), 'label_mask': np.array([True, True])}, 'nodule'),
  ({'present': np.array([1.0, 1.0]), 'label_mask': np.array([True, False])}, 'mass')])
def test_the_heat_is_of_the_finding_that_is_wrong_or_else_of_the_likeliest(labels, finding, axes):
  activation = np.zeros((4, 4, 2))
  activation[1, 2, 0], activation[3, 0, 1], activation[0, 0] = 5, 9, -7
  KINDS['classification'].draw_activation(axes, ABOUT, labels, make_example('a', activation)['prediction'])
  heat = axes.images[1].get_array()
  assert axes.get_xlabel() == f'Grad-CAM: {finding}' and axes.get_aspect() == 0.5
  assert heat[(1, 2) if finding == 'mass' else (3, 0)] == 1 and heat.sum() == 1
  np.testing.assert_allclose(axes.images[1].get_alpha(), 0.6 * heat)  # elsewhere the image stays clear


def test_of_grades_the_heat_is_that_of_the_likeliest(axes):
  labels = {'present': np.array([0.0, 1.0]), 'label_mask': np.array([True, True])}
  KINDS['classification'].draw_activation(axes, {**ABOUT, 'relation': 'ordinal'}, labels,
                                          make_example('a', np.ones((2, 2, 2)))['prediction'])
  assert axes.get_xlabel() == 'Grad-CAM: mass'


def test_where_nothing_raises_the_probability_the_image_stays_clear(axes):
  KINDS['classification'].draw_activation(axes, ABOUT, {}, make_example('a', np.full((2, 2, 2), -1.0))['prediction'])
  assert not axes.images[1].get_alpha().any() and axes.get_xlabel() == 'Grad-CAM: mass (no place raises it)'


def test_a_mask_of_one_class_has_a_colour_for_the_truth_and_one_for_the_prediction_and_its_dice(axes):
  true, predicted = np.zeros((2, 8, 8), int)
  true[2:6, 2:6], predicted[2:6, 2:4] = 1, 1  # 16 and 8 pixels, of which 8 are common
  true[0, 0] = -1  # not annotated
  KINDS['segmentation'].draw(axes, {'mask': ['background', 'lung']}, {'mask': true}, {'mask': predicted})
  first, second = (tuple(contour.get_edgecolor()[0]) for contour in axes.collections)
  assert first != second and axes.get_xlabel().startswith('Dice 0.67;')


def test_the_activation_adds_up_to_the_logits_and_is_grad_cam():
  """Grad-CAM as published: the gradient of a logit, averaged over places, weighs the channels of the feature map."""
  head = LinearHead(5, 3, rngs=nnx.Rngs(0))
  features = [jax.random.normal(jax.random.key(1), (2, 4, 3, 5))]
  activation = head.map_activation(features)
  np.testing.assert_allclose(activation.mean((1, 2)) + head.out.bias[...][None], head(features), rtol=1e-5, atol=1e-6)
  gradient = jax.grad(lambda last: head([last])[:, 1].sum())(features[0])
  weights = gradient.mean((1, 2), keepdims=True)
  cam = jax.nn.relu((weights * features[0]).sum(-1))
  np.testing.assert_allclose(cam * 12, jnp.maximum(activation[..., 1], 0), rtol=1e-4, atol=1e-5)


def test_long_names_keep_their_end():
  assert shorten('a' * 30 + 'b', 6) == '…aaaab' and shorten('short') == 'short'
