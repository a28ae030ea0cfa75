"""Made-up predictions for the tests of scores, and a plain bootstrap to compare scores with."""

import numpy as np
import pytest

from mtpret_jax.evaluation.metrics import bootstrap_interval
from mtpret_jax.tasks import KINDS

ABOUT = {
  'independent': {'findings': ['mass', 'nodule', 'effusion'], 'relation': 'independent', 'value': {}, 'mask': [],
                  'box_classes': []},
  'two': {'findings': ['normal', 'ill'], 'relation': 'exclusive', 'value': {}, 'mask': [], 'box_classes': []},
  'exclusive': {'findings': ['a', 'b', 'c', 'd'], 'relation': 'exclusive', 'value': {}, 'mask': [], 'box_classes': []},
  'ordinal': {'findings': ['0', '1', '2', '3', '4'], 'relation': 'ordinal', 'value': {}, 'mask': [],
              'box_classes': []},
  'value': {'findings': [], 'relation': 'independent', 'value': {'name': 'bone age', 'unit': 'months'}, 'mask': [],
            'box_classes': []},
  'mask': {'findings': [], 'relation': 'independent', 'value': {}, 'mask': ['background', 'lung', 'heart'],
           'box_classes': []},
  'boxes': {'findings': [], 'relation': 'independent', 'value': {}, 'mask': [],
            'box_classes': ['active', 'latent', 'none']},
}
TASKS = {'independent': 'classification', 'two': 'classification', 'exclusive': 'classification',
         'ordinal': 'classification', 'value': 'regression', 'mask': 'segmentation', 'boxes': 'detection'}
METRICS = {name: kind.metrics for name, kind in KINDS.items()}


def make_rows(name, images=90, seed=0):
  """Rows for ABOUT[name]. Most patients have several images; scores tie; some labels and annotations are missing."""
  rng = np.random.default_rng(seed)
  patients = rng.integers(images // 2, size=images)
  rows = {
    'image_id': np.array([f'image, "{index}"' for index in range(images)]),
    'patient': np.array([f'p{patient}' for patient in patients]),
    'study': np.array(['' if patient % 5 == 0 else f's{patient}-{rng.integers(2)}' for patient in patients]),
    'sex': rng.choice(['F', 'M', ''], images), 'view': rng.choice(['PA', 'AP'], images, p=[0.9, 0.1]),
    'part': np.full(images, 'chest'),
    'age': np.where(rng.random(images) < 0.1, np.nan, rng.uniform(10, 60, images)).astype(np.float32)}
  return rows | MAKERS[TASKS[name]](rng, images, ABOUT[name])


def make_findings(rng, images, about):
  count = len(about['findings'])
  if about['relation'] == 'independent':
    present = rng.random((images, count)) < 0.3
    known = rng.random((images, count)) < 0.8
    score = np.clip(np.round(rng.random((images, count)) * 0.7 + 0.3 * present, 1), 0, 1)  # many ties, some 0.5
  else:
    truth = rng.integers(count, size=images)
    present = truth[:, None] == np.arange(count)
    known = np.repeat(rng.random((images, 1)) < 0.9, count, axis=1)
    score = np.round(rng.dirichlet(np.ones(count), images) + 0.5 * present, 1) + 0.01
    score /= score.sum(1, keepdims=True)
  return {'score': score.astype(np.float32), 'present': np.where(known, present, 0).astype(np.float32),
          'label_mask': known}


def make_values(rng, images, about):
  value = rng.normal(120, 40, (images, 1)).astype(np.float32)
  return {'value': value, 'predicted': value + rng.normal(0, 12, (images, 1)).astype(np.float32)}


def make_confusions(rng, images, about):
  """Every fifth image is not annotated. Few images have the last class, in truth or prediction."""
  confusion = rng.integers(0, 50, (images, 3, 3)) + 200 * np.eye(3, dtype=int)
  rare = rng.random(images) < 0.7
  confusion[rare, 2] = confusion[rare, :, 2] = 0
  confusion[::5] = 0
  return {'confusion': confusion}


def make_boxes(rng, images, about):
  """Predictions are the true boxes, moved a little, and wrong ones. No true box has the last class; slots are empty."""
  columns = {name: np.empty(images, object) for name in ('boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id')}
  for image in range(images):
    truths, wrong = rng.integers(0, 4), rng.integers(0, 4)
    corner = rng.uniform(0, 0.6, (truths, 2))
    true = np.hstack([corner, corner + rng.uniform(0.1, 0.4, (truths, 2))])
    found = true + rng.normal(0, 0.02, true.shape)
    corner = rng.uniform(0, 0.6, (wrong, 2))
    boxes = np.vstack([found, np.hstack([corner, corner + rng.uniform(0.1, 0.4, (wrong, 2))])])
    true_kind = rng.integers(0, 2, truths)
    kind = np.concatenate([true_kind, rng.integers(-1, 3, wrong)])
    columns['boxes'][image], columns['class_id'][image] = boxes.astype(np.float32), kind
    columns['score'][image] = rng.random(truths + wrong).astype(np.float32)
    columns['truth_boxes'][image] = np.vstack([true, np.zeros((1, 4))])
    columns['truth_class_id'][image] = np.append(true_kind, -1)
  return columns | {'sizes': rng.integers(100, 400, (images, 2))}


MAKERS = {'classification': make_findings, 'regression': make_values, 'segmentation': make_confusions,
          'detection': make_boxes}


def check_score(scored, plain, rows, resamples):
  """Asserts that a score and its interval equal those of a plain bootstrap, which calls `plain` on each resample."""
  everyone = np.arange(len(rows['patient']))
  assert scored['value'] == pytest.approx(plain(everyone), abs=1e-12)

  def call(drawn):
    value = plain(drawn)
    return None if np.isnan(value) else value
  assert scored['interval'] == pytest.approx(bootstrap_interval(call, rows['patient'], resamples=resamples, seed=3),
                                             abs=1e-12)
