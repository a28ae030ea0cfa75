"""The printed probe scores of stage 1."""

import pytest
from ml_collections import ConfigDict

from mtpret_jax.report import pretrain, standing
from mtpret_jax.report.pretrain import describe_scores, explain_decline


def make_row(metric='AUROC', before=0.824, after=0.934, change=(0.07, 0.15)):
  scores = {'pixels': (0.5, None), 'histogram': (0.6, None), 'initial': (before, (0.7, 0.9)),
            'calibrated': (0.7, None), 'pretrained': (after, (0.8, 0.95)), 'change': (after - before, change)}
  return {'dataset': 'chest', 'metric': metric, 'train': 1603, 'validation': 197, 'knn': scores, 'linear': scores}


def make_config(split, init='scratch'):
  return ConfigDict(dict(init=init, probe=dict(images=8), data=dict(
    archives='archives', split=split, datasets=('chest', 'teeth', 'hands'), whole=('hands',))))


def test_the_table_has_a_line_for_each_dataset_and_probe():
  words = describe_scores([make_row()], make_config('patient'))
  lines = words.splitlines()
  assert [line.split()[:3] for line in lines if line.startswith('chest')] == [
    ['chest', 'kNN', 'AUROC'], ['chest', 'linear', 'AUROC']]
  assert '0.934 (0.800 to 0.950)' in words and '+0.110 (+0.070 to +0.150)' in words
  assert 'no patient is in both splits. Data: archives in the folder archives.' in words
  assert lines[-2:] == [
    'Not scored: teeth (the validation images have neither a value nor a finding that is both present and absent among '
    'them).', 'Not scored: hands (all images were training images: data.whole).']


@pytest.mark.parametrize('init, title', [('scratch', 'untrained'), ('imagenet', 'imagenet')])
def test_the_table_has_the_baselines_beside_the_pretrained_trunk(init, title):
  lines = describe_scores([make_row('MAE (months)')], make_config('patient', init)).splitlines()
  header, knn = (next(line for line in lines if line.startswith(word)) for word in ('dataset', 'chest'))
  columns = ['16 x 16 px', 'histogram', title, 'calibrated', 'pretrained', 'change']
  starts = [header.index(column) for column in columns]
  assert starts == sorted(starts)
  assert [knn[at:].split()[0] for at in starts] == ['0.5', '0.6', '0.8', '0.7', '0.9', '+0.1']
  assert any(f'change: pretrained minus {title}.' in line for line in lines)


def make_shares(*changes, metric='AUROC'):
  """A dataset whose pretrained trunk differs by these changes, from the smallest share to all labels."""
  return {'dataset': 'chest', 'metric': metric, 'labelled': 1000, 'shares': [
    {'fraction': fraction, 'images': images, 'initial': (0.5, None), 'pretrained': (0.5 + change, None),
     'change': (change, None)} for fraction, images, change in zip((0.01, 1.0), (10, 1000), changes, strict=True)]}


@pytest.fixture
def stage(monkeypatch, tmp_path):
  """The config of a run whose log has one line, and which has 1,000 training images."""
  monkeypatch.setattr(pretrain, 'count_training_images', lambda config: 1000)
  monkeypatch.setattr(pretrain, 'explain_key_age', lambda lines, config: '')
  (tmp_path / 'metrics.jsonl').write_text('{"step": 20, "accuracy_batch": 0.07}\n')
  return ConfigDict(dict(workdir=str(tmp_path), steps=200, batch=50, moco=dict(negatives='queue'),
                         augment=dict(crop_area=(0.2, 1.0))))


@pytest.mark.parametrize('shares, worse', [
  ([make_shares(0.1, 0.1)], ''),
  ([make_shares(0.1, -0.1), make_shares(0.1, 0.1)], ''),
  ([make_shares(0.0, 0.0)], ''),
  ([make_shares(1.0, -1.0, metric='MAE (months)')], ''),
  ([make_shares(0.1, -0.1)], '1 of 1 dataset, and over all shares in 1 of 2 rows'),
  ([make_shares(1.0, 1.0, metric='MAE (months)')], '1 of 1 dataset, and over all shares in 2 of 2 rows'),
  ([make_shares(-0.1, -0.1), make_shares(-0.1, 0.1)], '1 of 2 datasets, and over all shares in 3 of 4 rows')])
def test_a_trunk_below_its_start_is_said_so_with_what_to_change(shares, worse, stage):
  line = explain_decline(shares, stage)
  if not worse:
    assert line == ''
    return
  assert line == (
    f'The pretrained trunk is worse than the one it started from: with all labels its linear score is worse on '
    f'{worse}. Start again in a new '
    'workdir with more steps (--config.steps; now 10 epochs), milder crops (--config.augment.crop_area="(0.6, 1.0)") '
    'or negatives from the batch (--config.moco.negatives=batch) (at the end, queries find their key in the batch in '
    '7% of the cases; chance is 2%).')


def test_what_the_log_explains_is_the_advice(stage, monkeypatch):
  monkeypatch.setattr(pretrain, 'explain_key_age', lambda lines, config: 'keys are known by their age')
  assert explain_decline([make_shares(-0.1, -0.1)], stage).endswith('The log says why: keys are known by their age.')


def test_one_epoch_is_not_epochs(stage):
  stage.steps = 20
  assert 'now 1 epoch)' in explain_decline([make_shares(-0.1, -0.1)], stage)


@pytest.mark.parametrize('images, steps, why', [
  ((48, 40), 6, 'it took only 6 steps and no dataset has more than 48 validation images'),
  ((200,), 1, 'it took only 1 step'), ((7, 49), 1000, 'no dataset has more than 49 validation images'),
  ((7, 200), 1000, ''), ((), 6, '')])
def test_a_run_too_small_to_judge_is_a_check_of_the_installation(images, steps, why):
  said = standing.describe_check([make_row() | {'validation': number} for number in images], steps)
  assert said == (f'This run is a check of the installation, and its scores mean nothing: {why}.' if why else '')


def test_better_and_worse_are_counted_with_the_fewest_and_with_all_labels():
  rows = [make_shares(0.1, -0.1), make_shares(0.1, -0.1), make_shares(1.0, -1.0, metric='MAE (months)')]
  rows[0]['shares'][0]['change'] = 0.1, (0.05, 0.15)
  rows[2]['shares'][0]['change'] = 1.0, (0.5, 1.5)
  assert standing.find_standing(rows) == standing.Standing(3, better=2, better_with_all=1, clearly_better=1,
                                                           clearly_worse=1)


def make_end(*images, steps=1000, decline=''):
  """The lines at the end of a run on datasets with these numbers of validation images."""
  config = make_config('patient')
  config.update(steps=steps, probe=dict(draws=5))
  rows = [make_row() | {'dataset': f'chest{number}', 'validation': number} for number in images]
  return pretrain.describe_end(rows, [make_shares(0.1, -0.1)], decline, config).splitlines()


def test_the_end_has_the_scores_and_what_they_say_but_not_the_baselines():
  lines = make_end(200, decline='It is worse.')
  assert [line.split()[0] for line in lines if line.startswith('chest ')] == ['chest'] * 2
  assert any(line.startswith('With the fewest labels, better after pretraining on 1 of 1 dataset.') for line in lines)
  assert any('no patient is in both splits. Data: archives in the folder archives.' in line for line in lines)
  assert [line[:17] for line in lines if line.startswith('Not scored')] == ['Not scored: chest', 'Not scored: hands']
  assert lines[-1] == 'It is worse.' and len(lines) <= 10 and not any('histogram' in line for line in lines)


@pytest.mark.parametrize('images, steps, doubt', [
  ((49, 50), 1000, 'chest49: fewer than 50 validation images, so the scores say little.'),
  ((49,), 1000, 'This run is a check of the installation, and its scores mean nothing: no dataset has more than 49 '
   'validation images.')])
def test_the_end_says_what_makes_its_scores_doubtful(images, steps, doubt):
  assert make_end(*images, steps=steps)[-1] == doubt


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
  monkeypatch.setattr(pretrain.probe, 'read_datasets', lambda config, images: {'chest': {}})
  monkeypatch.setattr(pretrain, 'compute_features', lambda *args: {'pretrained': {}})
  monkeypatch.setattr(pretrain.probe, 'score_features', lambda *args: [])
  monkeypatch.setattr(pretrain.label_shares, 'score_shares', lambda *args: [])
  for name in ('draw_views', 'draw_neighbours'):
    monkeypatch.setattr(pretrain, name, fail if name == draws else lambda *args: tmp_path)
  config = make_config('patient')
  config.update(seed=0, workdir=str(tmp_path))
  with pytest.raises(OSError, match='no space left'):
    pretrain.report(None, None, config)
  assert not (tmp_path / 'results.json').exists(), 'a run with this file counts as finished'
