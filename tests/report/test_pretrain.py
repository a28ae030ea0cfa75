"""The printed probe scores of stage 1."""

import pytest
from ml_collections import ConfigDict

from mtpret_jax.report import pretrain
from mtpret_jax.report.pretrain import describe_change, describe_scores


def make_row(metric='AUROC', before=0.824, after=0.934, change=(0.07, 0.15)):
  scores = {'pixels': (0.5, None), 'histogram': (0.6, None), 'initial': (before, (0.7, 0.9)),
            'calibrated': (0.7, None), 'pretrained': (after, (0.8, 0.95)), 'change': (after - before, change)}
  return {'dataset': 'chest', 'metric': metric, 'train': 1603, 'validation': 197, 'knn': scores, 'linear': scores}


def make_config(split, init='scratch'):
  return ConfigDict(dict(init=init, data=dict(archives='archives', split=split, datasets=('chest', 'teeth', 'hands'),
                                   whole=('hands',))))


@pytest.mark.parametrize('row, sentence', [
  (make_row(), 'Linear-probe AUROC on chest rises from 0.824 to 0.934 (1,603 training and 197 validation images).'),
  (make_row('MAE (months)', 35.42, 30.0, (-9.0, 0.5)), 'Linear-probe MAE (months) on chest falls from 35.4 to 30.0 '
   '(1,603 training and 197 validation images; the interval of the change includes 0).'),
  (make_row('MAE (months)', 30.0, 35.42, (1.0, 9.0)), 'Linear-probe MAE (months) on chest rises from 30.0 to 35.4 '
   '(worse) (1,603 training and 197 validation images).'),
  (make_row(after=0.8, change=(-0.1, -0.01)), 'Linear-probe AUROC on chest falls from 0.824 to 0.800 (worse) (1,603 '
   'training and 197 validation images).'),
  (make_row(after=0.824, change=None), 'Linear-probe AUROC on chest stays at 0.824 (1,603 training and 197 validation '
   'images).')])
def test_a_sentence_says_how_the_linear_probe_changes(row, sentence):
  assert describe_change(row) == sentence


def test_the_table_has_a_line_for_each_dataset_and_probe():
  words = describe_scores([make_row()], make_config('patient'))
  lines = words.splitlines()
  assert [line.split()[:3] for line in lines if line.startswith('chest')] == [
    ['chest', 'kNN', 'AUROC'], ['chest', 'linear', 'AUROC']]
  assert '0.934 (0.800 to 0.950)' in words and '+0.110 (+0.070 to +0.150)' in words
  assert 'no patient is in both splits. Data: archives in archives.' in words
  assert lines[-2:] == [
    'teeth is not scored: its validation images have neither a value nor a finding that is both present and absent '
    'among them.', 'hands is not scored: all its images were training images (data.whole).']


@pytest.mark.parametrize('init, title', [('scratch', 'untrained'), ('imagenet', 'imagenet')])
def test_the_table_has_the_baselines_beside_the_pretrained_trunk(init, title):
  lines = describe_scores([make_row('MAE (months)')], make_config('patient', init)).splitlines()
  header, knn = (next(line for line in lines if line.startswith(word)) for word in ('dataset', 'chest'))
  columns = ['16 x 16 px', 'histogram', title, 'calibrated', 'pretrained', 'change']
  starts = [header.index(column) for column in columns]
  assert starts == sorted(starts)
  assert [knn[at:].split()[0] for at in starts] == ['0.5', '0.6', '0.8', '0.7', '0.9', '+0.1']
  assert any(f'change: pretrained minus {title}.' in line for line in lines)


def test_a_split_that_shares_patients_is_said_so():
  assert 'with data.split=paper a patient may be in both splits' in describe_scores([], make_config('paper'))


def test_scores_on_few_images_come_with_a_warning():
  few = make_row() | {'dataset': 'hands', 'validation': 7}
  assert 'hands has only 7 validation images, so its scores mean little.' in describe_scores(
    [make_row(), few], make_config('patient')).splitlines()


@pytest.mark.parametrize('draws', ['draw_views', 'draw_neighbours'])
def test_results_are_written_after_the_pictures(draws, tmp_path, monkeypatch):
  """The other steps of the report do nothing here."""
  def fail(*args):
    raise OSError('no space left')
  monkeypatch.setattr(pretrain.probe, 'read_datasets', lambda config: {'chest': {}})
  monkeypatch.setattr(pretrain, 'compute_features', lambda *args: {'pretrained': {}})
  monkeypatch.setattr(pretrain.probe, 'score_features', lambda *args: [])
  for name in ('draw_views', 'draw_neighbours'):
    monkeypatch.setattr(pretrain, name, fail if name == draws else lambda *args: tmp_path)
  config = make_config('patient')
  config.update(seed=0, workdir=str(tmp_path))
  with pytest.raises(OSError, match='no space left'):
    pretrain.report(None, None, config)
  assert not (tmp_path / 'results.json').exists(), 'a run with this file counts as finished'
