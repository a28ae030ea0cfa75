"""The tasks: what is unknown, not annotated or padding is in no loss; losses are those of scikit-learn's formulas.
Detection has tests/models/detection/test_faster_rcnn.py, where this and more is compared with torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from sklearn.metrics import f1_score, log_loss

from configs import common
from mtpret_jax.data.sources import Source
from mtpret_jax.models.resnet import ResNet
from mtpret_jax.tasks import find_kind
from tests.reference import draw

BATCH, SIZE = 3, (64, 96)
ABOUT = {'findings': ['nodule', 'effusion', 'mass', 'hernia'], 'relation': 'independent', 'value': {'name': 'age'},
         'mask': ['background', 'lung', 'heart']}
CONFIGS = {
  'classification': ConfigDict(),
  'regression': ConfigDict(dict(mean=120.0, deviation=40.0)),
  'segmentation': ConfigDict(dict(common.deeplab_v3(), width=8))}


def make_batch():
  stream = draw.stream('batch')
  known = stream.uniform(size=(BATCH, 4)) < 0.6
  return {
    'image': draw.normal('image', (BATCH, *SIZE, 1)), 'valid': np.array([True, True, False]),
    'label_mask': known, 'present': np.where(known, stream.randint(0, 2, (BATCH, 4)), 0).astype(np.float32),
    'value': draw.uniform('value', (BATCH, 1), 20, 220), 'mask': stream.randint(-1, 3, (BATCH, *SIZE))}


def change_what_is_absent(batch):
  """Other labels wherever a label is unknown or in a row of padding, where they also say that they are known."""
  gone = ~batch['valid']
  changed = dict(batch)
  changed['present'] = np.where(batch['label_mask'] & ~gone[:, None], batch['present'], 1 - batch['present'])
  changed['label_mask'] = batch['label_mask'] | gone[:, None]
  changed['value'] = np.where(gone[:, None], 500, batch['value']).astype(np.float32)
  changed['mask'] = np.where(gone[:, None, None], 1, batch['mask'])
  return changed


def draw_leaf(path, leaf):
  name = jax.tree_util.keystr(path)
  return jnp.ones(leaf.shape) if name.endswith("['var']") else jnp.asarray(draw.normal(name, leaf.shape) / 20)


def compile_task(name):
  """(compute, infer) for `name` on a ResNet-18's shapes: `compute(batch) -> sum, count, gradient`, `infer(batch)`."""
  task = find_kind(name).make_model(ABOUT, CONFIGS[name])
  head = nnx.eval_shape(lambda: task.make_head(ResNet('resnet18', rngs=nnx.Rngs(0)), nnx.Rngs(0)))
  graph, *states = nnx.split(head, nnx.Param, nnx.BatchStat)
  params, stats = (jax.tree.map_with_path(draw_leaf, nnx.to_pure_dict(state)) for state in states)
  strides = [min(stride, task.output_stride) for stride in (4, 8, 16, 32)]
  features = [draw.normal(f'features {index}', (BATCH, SIZE[0] // stride, SIZE[1] // stride, channels))
              for index, (stride, channels) in enumerate(zip(strides, (64, 128, 256, 512), strict=True))]

  @jax.jit
  def compute(batch):
    def compute_loss(params):
      head = nnx.merge(graph, params, stats)
      total, count = task.loss(task.apply(head, features, batch, groups=1, rng=jax.random.key(0)), batch)
      return total, count
    (total, count), gradient = jax.value_and_grad(compute_loss, has_aux=True)(params)
    return total, count, gradient

  @jax.jit
  def infer(batch):
    outputs = task.apply(nnx.merge(graph, params, stats), features, batch, groups=None, rng=None)
    return task.predict(outputs), outputs

  return compute, infer


@pytest.mark.parametrize('name', CONFIGS)
def test_absent_labels_move_neither_loss_nor_gradient(name):
  batch = make_batch()
  compute, infer = compile_task(name)
  total, count, gradient = compute(batch)
  assert np.isfinite(total) and total > 0 and count > 0
  changed_total, changed_count, changed_gradient = compute(change_what_is_absent(batch))
  assert (total, count) == (changed_total, changed_count)
  jax.tree.map(np.testing.assert_array_equal, gradient, changed_gradient)
  everything, *_ = compute(batch | {'valid': np.ones(BATCH, bool)})
  assert everything != total
  nothing = compute(batch | {'valid': np.zeros(BATCH, bool)})
  assert nothing[0] == nothing[1] == 0 and all(not np.any(leaf) for leaf in jax.tree.leaves(nothing[2]))
  prediction, _ = infer(batch)
  assert all(len(values) == BATCH and np.isfinite(values).all() for values in prediction.values())


def test_losses_are_the_textbooks():
  batch = make_batch() | {'valid': np.ones(BATCH, bool)}
  logits = draw.normal('logits', (BATCH, 4))
  total, count = find_kind('classification').make_model(ABOUT, None).loss({'logits': logits}, batch)
  known = batch['label_mask']
  score = 1 / (1 + np.exp(-logits[known].astype(np.float64)))
  np.testing.assert_allclose(total / count, log_loss(batch['present'][known], score), rtol=1e-5)

  one = batch | {'present': np.eye(4, dtype=np.float32)[[2, 0, 3]], 'label_mask': np.array([[True], [False], [True]])
                 & np.ones((1, 4), bool)}
  task = find_kind('classification').make_model(ABOUT | {'relation': 'exclusive'}, None)
  total, count = task.loss({'logits': logits}, one)
  score = np.asarray(task.predict({'logits': logits, 'activation': None})['score'])
  np.testing.assert_allclose(score.sum(1), 1, rtol=1e-6)
  np.testing.assert_allclose(total / count, log_loss([2, 3], score[[0, 2]], labels=range(4)), rtol=1e-5)

  logits = draw.normal('pixels', (BATCH, *SIZE, 3))
  total, count = find_kind('segmentation').make_model(ABOUT, CONFIGS['segmentation']).loss({'logits': logits}, batch)
  seen = batch['mask'] >= 0
  score = np.exp(logits[seen]) / np.exp(logits[seen]).sum(-1, keepdims=True)
  np.testing.assert_allclose(total / count, log_loss(batch['mask'][seen], score), rtol=1e-4)

  deviations = np.float32([[0.5], [-3.0], [0.0]])
  task = find_kind('regression').make_model(ABOUT, CONFIGS['regression'])
  total, count = task.loss({'z_score': deviations}, batch | {'value': np.float32([[120.0], [120.0], [160.0]])})
  np.testing.assert_allclose((total, count), (0.125 + 2.5 + 0.5, 3))
  np.testing.assert_allclose(task.predict({'z_score': deviations})['value'], [[140], [0], [120]])


def test_the_dice_loss_of_sure_predictions_is_what_f1_lacks_of_one():
  """F1 over pixels is Dice; the annotated ones of each image, the mean over its classes without the background."""
  batch = make_batch()
  guess = draw.stream('guess').randint(0, 3, (BATCH, *SIZE))
  batch['mask'][1] = -1  # an image without annotated pixels, and the third row is padding
  weight = 0.5
  config = CONFIGS['segmentation'].copy_and_resolve_references()
  kind = find_kind('segmentation')
  plain = kind.make_model(ABOUT, config).loss({'logits': 100.0 * np.eye(3)[guess]}, batch)
  config.dice = weight
  both = kind.make_model(ABOUT, config).loss({'logits': 100.0 * np.eye(3)[guess]}, batch)
  seen = batch['mask'][0] >= 0
  wanted = 1 - f1_score(batch['mask'][0][seen], guess[0][seen], labels=[1, 2], average='macro')
  assert both[1] == plain[1] == seen.sum() and 0.3 < wanted < 0.9
  np.testing.assert_allclose((both[0] - plain[0]) / plain[1], weight * wanted, rtol=1e-4)


def test_the_dice_loss_of_a_class_that_is_absent_and_not_predicted_is_nothing():
  batch = make_batch() | {'mask': np.zeros((BATCH, *SIZE), int)}
  config = CONFIGS['segmentation'].copy_and_resolve_references()
  config.dice = 1.0
  model = find_kind('segmentation').make_model(ABOUT, config)
  total, _ = model.loss({'logits': 100.0 * np.eye(3)[batch['mask']]}, batch)
  assert total < 1e-3


@pytest.mark.parametrize('value', [120.0, 100.1])  # the mean of many 100.1 in float32 is not quite 100.1
def test_training_values_that_are_all_equal_give_a_finite_loss(value):
  records = [{'value': np.float32([value])}] * 1001
  kind = find_kind('regression')
  config = kind.fit_head(ConfigDict(), Source('atlas', 'train', '1.0.0', ABOUT, records))
  batch = make_batch() | {'value': np.full((BATCH, 1), value, np.float32)}
  total, count = kind.make_model(ABOUT, config).loss({'z_score': np.float32([[0.5]] * BATCH)}, batch)
  assert config.deviation == 1 and config.mean == pytest.approx(value, rel=1e-6)
  np.testing.assert_allclose(total / count, 0.125, rtol=1e-3)
