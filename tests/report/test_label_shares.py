"""How far a share of the labels gets: the printed table, and the picture."""

import cv2

from mtpret_jax.report.label_shares import describe_shares, draw_shares


def make_row(metric='AUROC', labelled=1600, before=0.701, after=0.812, interval=(0.061, 0.152)):
  """Two shares of the labels, the same scores for both."""
  scores = {'initial': (before, (before - 0.1, before + 0.1)), 'pretrained': (after, (after - 0.1, after + 0.1)),
            'change': (after - before, interval)}
  return {'dataset': 'chest', 'metric': metric, 'labelled': labelled, 'shares': [
    {'fraction': fraction, 'images': images, **scores} for fraction, images in ((0.01, 16.4), (1.0, labelled))]}


def test_the_table_has_a_line_for_each_share():
  lines = describe_shares([make_row(), make_row('MAE (months)', 40_000, 35.0, 30.0, (-6.0, -4.0))], 'untrained',
                          5).splitlines()
  assert 'mean of 5 draws' in lines[0]
  assert lines[1].split() == ['dataset', 'score', 'labelled', 'images', 'untrained', 'pretrained', 'difference']
  assert [line.split()[0] for line in lines[2:6]] == ['chest'] * 4 and lines[6].startswith('In brackets: ')
  assert '16 (1 %)' in lines[2] and '1,600 (100 %)' in lines[3] and '16 (0.04 %)' in lines[4]
  assert lines[2].endswith('0.701 (0.601 to 0.801)  0.812 (0.712 to 0.912)  +0.111 (+0.061 to +0.152)')
  assert lines[4].endswith('30.0 (29.9 to 30.1)     -5.0 (-6.0 to -4.0)')


def test_an_interval_without_width_has_a_line():
  assert 'no width' not in describe_shares([make_row()], 'untrained', 5)
  assert describe_shares([make_row(), make_row(interval=(0.1, 0.1))], 'untrained', 5).splitlines()[-1].startswith(
    'Where an interval has no width, every resample')


def test_the_picture_has_a_panel_for_each_dataset(tmp_path):
  one, two = (cv2.imread(str(draw_shares(rows, 'untrained', tmp_path))) for rows in ([make_row()], [make_row()] * 2))
  assert two.shape[1] == 2 * one.shape[1] and one.std() > 0
