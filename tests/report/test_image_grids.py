"""Captions of neighbours: what an image is known to show, its dataset and how near it is."""

import numpy as np
from PIL import Image

from mtpret_jax.report import image_grids

FINDINGS = {'about': {'findings': ['mass', 'nodule', 'effusion'], 'value': None},
            'present': np.array([[1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]),
            'label_mask': np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]])}
AGES = {'about': {'findings': [], 'value': {'name': 'bone age', 'unit': 'months'}},
        'value': np.array([[120.0], [np.nan]])}


def test_labels_are_named_in_a_few_words():
  assert [image_grids.describe_labels(FINDINGS, row) for row in range(4)] == [
    'mass', 'none of 3 findings', 'mass, nodule +1', '']
  assert image_grids.describe_absent(['covid']) == 'covid absent'
  assert [image_grids.describe_labels(AGES, row) for row in range(2)] == ['120 months', '']
  assert image_grids.describe_labels({'about': {'findings': []}}, 0) == ''


def test_neighbours_carry_dataset_label_and_similarity(tmp_path, monkeypatch):
  grids = []
  monkeypatch.setattr(image_grids, 'draw_grid', lambda path, rows, titles: grids.append(rows))
  image = np.zeros((4, 4, 8, 1), np.uint8)
  datasets = {'chest': {split: FINDINGS | {'image': image} for split in ('train', 'validation')},
              'hand': {split: AGES | {'image': image[:2]} for split in ('train', 'validation')}}
  features = {'chest': {'train': np.array([[1, 0], [0, 1], [0, -1], [-1, 0]]), 'validation': np.array([[3.0, 0]] * 4)},
              'hand': {'train': np.array([[4, 3], [0, -2]]), 'validation': np.array([[0.0, 1.0]] * 2)}}
  image_grids.draw_neighbours(tmp_path, datasets, features, queries=2, neighbours=2)
  captions = [[caption for _, caption in row] for row in grids[0]]
  assert captions == [['chest\nmass', 'hand\n120 months'],
                      ['chest\nmass\n1.00', 'chest\nnone of 3 findings\n1.00'],
                      ['hand\n120 months\n0.80', 'hand\n120 months\n0.60']]


def test_a_grid_is_a_picture(tmp_path):
  cell = np.zeros((4, 4, 1), np.uint8), 'chest\nmass'
  assert Image.open(image_grids.draw_grid(tmp_path / 'grid.png', [[cell, cell]], ['image'])).size[0] > 200
