"""Classes of unequal size: weighted and focal losses are the textbooks', and rare images are drawn more often."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.tasks import dataset, find_kind, imbalance

RNG = np.random.default_rng(0)
INDEPENDENT = {'findings': ['a', 'b'], 'relation': 'independent'}
EXCLUSIVE = {'findings': ['a', 'b', 'c'], 'relation': 'exclusive'}
MASKS = {'mask': ['background', 'lung', 'heart']}


def make_config(kind='classification', **fields):
  loss = {name.removeprefix('loss_'): fields.pop(name) for name in list(fields) if name.startswith('loss_')}
  return ConfigDict(dict(kind=kind, dataset='atlas', findings=(), among='', uncertain='ignore', sampler='shuffled',
                         loss=dict(class_weights='none', focal=0.0) | loss) | fields)


def make_label(present, known):
  return {'present': np.float32(present), 'label_mask': np.array(known, bool)}


# Two of five known images have a, one of four known ones has b.
LABELS = [make_label([1, 1], [1, 1]), make_label([1, 0], [1, 1]), make_label([0, 0], [1, 1]),
          make_label([0, 0], [1, 1]), make_label([0, 1], [1, 0])]
ONE_OF = [make_label(np.eye(3)[index], [1] * 3) for index in (0, 0, 0, 0, 0, 1, 1, 2)]


def make_loss(about, task_config, labels):
  return find_kind(task_config.kind).make_loss(about, task_config, labels)


def mean(loss, outputs, batch):
  total, count = loss(outputs, batch)
  return float(total / count)


def draw_findings(about, images=40):
  count = len(about['findings'])
  known = RNG.random((images, count)) < 0.7
  present = (RNG.random((images, count)) < 0.4) & known
  if about['relation'] != 'independent':
    present, known = np.eye(count)[RNG.integers(count, size=images)], np.repeat(RNG.random((images, 1)) < 0.8, count, 1)
  return ({'logits': RNG.normal(size=(images, count)).astype(np.float32)},
          {'image': np.zeros((images, 1)), 'present': np.float32(present), 'label_mask': known})


@pytest.mark.parametrize('about', [INDEPENDENT, EXCLUSIVE], ids=['independent', 'exclusive'])
def test_without_weights_and_gamma_the_loss_is_the_plain_one(about):
  outputs, batch = draw_findings(about)
  plain = find_kind('classification').make_model(about, None).loss(outputs, batch)
  np.testing.assert_allclose(make_loss(about, make_config(), [])(outputs, batch), plain, rtol=1e-5)


def test_balanced_weights_of_independent_findings_are_absent_over_present_images_without_unknown_ones():
  outputs, batch = draw_findings(INDEPENDENT)
  loss = make_loss(INDEPENDENT, make_config(loss_class_weights='balanced'), LABELS)
  weights = np.where(batch['present'] > 0, [3 / 2, 3 / 1], 1)
  known, score = batch['label_mask'], 1 / (1 + np.exp(-outputs['logits'].astype(float)))
  wanted = log_loss(batch['present'][known], score[known], sample_weight=weights[known], normalize=False) / known.sum()
  assert mean(loss, outputs, batch) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('setting, weights', [
  ('balanced', compute_class_weight('balanced', classes=np.arange(3), y=[0, 0, 0, 0, 0, 1, 1, 2])),
  ('1,4,0.5', [1, 4, 0.5])])
def test_weights_of_exclusive_findings_are_those_of_scikit_learn(setting, weights):
  outputs, batch = draw_findings(EXCLUSIVE)
  loss = make_loss(EXCLUSIVE, make_config(loss_class_weights=setting), ONE_OF)
  known, truth = batch['label_mask'][:, 0], batch['present'].argmax(1)
  score = np.asarray(jax.nn.softmax(outputs['logits'].astype(np.float64)))
  assert mean(loss, outputs, batch) == pytest.approx(
    log_loss(truth[known], score[known], sample_weight=np.array(weights)[truth[known]], labels=range(3)), rel=1e-4)


@pytest.mark.parametrize('about', [INDEPENDENT, EXCLUSIVE], ids=['independent', 'exclusive'])
@pytest.mark.parametrize('gamma', [0.5, 2.0])
def test_the_focal_loss_is_that_of_lin_et_al(about, gamma):
  outputs, batch = draw_findings(about)
  logits, known = outputs['logits'].astype(float), batch['label_mask']
  if about['relation'] == 'independent':
    score = 1 / (1 + np.exp(-logits))
    true = np.where(batch['present'] > 0, score, 1 - score)[known]
  else:
    score = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = score[batch['present'] > 0][known[:, 0]]
  loss = make_loss(about, make_config(loss_focal=gamma), [])
  assert mean(loss, outputs, batch) == pytest.approx(np.mean((1 - true) ** gamma * -np.log(true)), rel=1e-4)


@pytest.mark.parametrize('about', [INDEPENDENT, EXCLUSIVE], ids=['independent', 'exclusive'])
def test_certain_predictions_and_padding_leave_a_finite_gradient(about):
  _, batch = draw_findings(about, images=4)
  batch |= {'valid': np.array([True, True, True, False])}
  loss = make_loss(about, make_config(loss_focal=0.5, loss_class_weights='balanced'), LABELS if about is INDEPENDENT
                   else ONE_OF)
  for size in (0.0, 50.0, 1e4):
    gradient = jax.grad(lambda logits: loss({'logits': logits}, batch)[0])(
      jnp.asarray(size * np.sign(RNG.normal(size=batch['present'].shape)), jnp.float32))
    assert np.isfinite(gradient).all() and not gradient[3].any()


def test_a_soft_label_is_a_mixture_of_both_labels():
  outputs, batch = draw_findings(INDEPENDENT)
  loss = make_loss(INDEPENDENT, make_config(loss_focal=2.0), [])
  values = [float(loss(outputs, batch | {'present': np.full_like(batch['present'], label)})[0])
            for label in (0, 0.7, 1)]
  assert values[1] == pytest.approx(0.3 * values[0] + 0.7 * values[2], rel=1e-5)


def test_balanced_weights_of_pixels_are_those_of_scikit_learn():
  masks = RNG.integers(-1, 3, (2, 6, 6))
  masks[masks == 2] = np.where(RNG.random((masks == 2).sum()) < 0.5, 0, 2)
  labels = [{'mask_pixels': np.bincount(mask[mask >= 0])} for mask in masks]
  task_config = make_config('segmentation', head=ConfigDict(dict(
    dice=0.0, output_stride=32, width=8, dilations=(1,))), loss_class_weights='balanced')
  logits = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
  batch = {'image': masks, 'mask': masks}
  seen = masks >= 0
  weights = compute_class_weight('balanced', classes=np.arange(3), y=masks[seen])
  score = np.asarray(jax.nn.softmax(logits))[seen]
  loss = make_loss(MASKS, task_config, labels)
  assert mean(loss, {'logits': logits}, batch) == pytest.approx(
    log_loss(masks[seen], score, sample_weight=weights[masks[seen]]), rel=1e-4)


def make_run(monkeypatch, about, labels, **fields):
  """A config of one task whose training records have these labels."""
  source = types.SimpleNamespace(about=about, split='train', name='atlas', split_rule='patient')
  monkeypatch.setattr(imbalance, 'open_usable', lambda *_: (source, dataset.Usable(range(len(labels)), labels, {})))
  return ConfigDict({'tasks': {'task': make_config(**fields)}, 'data': {'fraction': 1.0}})


def test_a_task_without_options_keeps_its_model(monkeypatch):
  model = find_kind('classification').make_model(INDEPENDENT, None)
  assert imbalance.weigh_loss(make_run(monkeypatch, INDEPENDENT, LABELS), 'task', model) is model
  focal = imbalance.weigh_loss(make_run(monkeypatch, INDEPENDENT, LABELS, loss_focal=2.0), 'task', model)
  assert focal.loss is not model.loss and focal.predict is model.predict


def test_weights_for_another_number_of_classes_are_refused(monkeypatch):
  config = make_run(monkeypatch, EXCLUSIVE, ONE_OF, loss_class_weights='1,2')
  with pytest.raises(ConfigError, match="^tasks.task.loss.class_weights='1,2' has 2 numbers, but the task has 3 cl"):
    imbalance.weigh_loss(config, 'task', find_kind('classification').make_model(EXCLUSIVE, None))


def test_images_are_grouped_by_their_rarest_class(monkeypatch):
  config = make_run(monkeypatch, EXCLUSIVE, ONE_OF, sampler='balanced')
  assert sorted(map(list, imbalance.group_by_class(config, 'task'))) == [[0, 1, 2, 3, 4], [5, 6], [7]]
  # b is in one image, a in two, no a and no b in three
  config = make_run(monkeypatch, INDEPENDENT, LABELS, sampler='balanced')
  assert sorted(map(list, imbalance.group_by_class(config, 'task'))) == [[0], [1], [2, 3, 4]]


# One finding in 90 images without it, 5 with it, and 5 in which it is uncertain.
UNCERTAIN = [make_label([0], [1])] * 90 + [make_label([1], [1])] * 5 + [make_label([0], [0])] * 5
UNCERTAIN = [label | {'uncertain': np.array([index >= 95])} for index, label in enumerate(UNCERTAIN)]


@pytest.mark.parametrize('policy, groups, weight', [
  ('ones', [90, 10], 9), ('soft', [90, 10], 9), ('zeros', [95, 5], 19), ('ignore', [90, 5, 5], 18)])
def test_uncertain_labels_are_counted_as_the_policy_says(policy, groups, weight, monkeypatch):
  about = {'findings': ['mass'], 'relation': 'independent', 'uncertain': True}
  config = make_run(monkeypatch, about, UNCERTAIN, sampler='balanced', uncertain=policy,
                    loss_class_weights='balanced')
  found = imbalance.group_by_class(config, 'task')
  assert sorted(map(len, found), reverse=True) == groups
  loss = make_loss(about, config.tasks.task, UNCERTAIN)
  batch = {'image': np.zeros((1, 1)), 'present': np.ones((1, 1), np.float32), 'label_mask': np.ones((1, 1), bool)}
  assert mean(loss, {'logits': np.zeros((1, 1), np.float32)}, batch) == pytest.approx(weight * np.log(2), rel=1e-5)


def test_images_without_a_class_are_a_group(monkeypatch):
  labels = [{'objects': {'class_id': np.array(ids, int)}} for ids in ([0], [0, 1], [], [0], [])]
  config = make_run(monkeypatch, {'box_classes': ['mass', 'node']}, labels, kind='detection', sampler='balanced')
  assert sorted(map(list, imbalance.group_by_class(config, 'task'))) == [[0, 3], [1], [2, 4]]


def test_one_group_is_refused_and_the_shuffled_sampler_has_none(monkeypatch):
  config = make_run(monkeypatch, EXCLUSIVE, ONE_OF[:3], sampler='balanced')
  with pytest.raises(ConfigError, match="no images of different classes: try --config.tasks.task.sampler=shuffled"):
    imbalance.group_by_class(config, 'task')
  assert imbalance.group_by_class(make_run(monkeypatch, EXCLUSIVE, ONE_OF), 'task') == []
