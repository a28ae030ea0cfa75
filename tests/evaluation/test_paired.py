"""Differences between pretrainings, against a plain loop and on data whose true difference is known."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.metrics.bootstrap import draw_patients
from mtpret_jax.evaluation.paired import ResampledScore, compute_difference, draw_seeds, resample_score, widen_interval
from tests.support.scored import ABOUT, METRICS, TASKS, make_rows

RESAMPLES = 20


def make_pairs(name, seeds=3, images=40):
  """[rows of a run], [rows of its baseline]: the same images and labels, other predictions for each run."""
  truth, pairs = make_rows(name, images), ([], [])
  kind = METRICS[TASKS[name]]
  for seed in range(seeds):
    for noise, runs in zip((0.3, 0.9), pairs, strict=True):
      rng = np.random.default_rng((seed, int(10 * noise)))
      if name == 'ordinal':
        runs.append(truth | {'score': truth['present'] + 4 * noise * rng.random(truth['present'].shape)})
      elif name == 'mask':
        wrong = (60 * noise * rng.random(truth['confusion'].shape)).astype(int)
        runs.append(truth | {'confusion': truth['confusion'] + wrong * (truth['confusion'] > 0)})
      elif name == 'two':
        score = 1 / (1 + np.exp(-(truth['present'][:, 1] - 0.5 + noise * 3 * rng.normal(size=images))))
        runs.append(truth | {'score': np.stack([1 - score, score], 1)})
      else:
        runs.append(truth | {'predicted': truth['value'] + 20 * noise * rng.normal(size=(images, 1))})
  return kind, *pairs


def resample(name, kind, runs, resamples=RESAMPLES):
  return [resample_score(f'run{index}', kind, ABOUT[name], rows, resamples=resamples, seed=3)
          for index, rows in enumerate(runs)]


def score_plainly(name, rows, drawn):
  if name == 'value':
    return np.abs(rows['predicted'] - rows['value'])[drawn].mean()
  if name == 'ordinal':
    truth, predicted = (rows[field][drawn].argmax(1) for field in ('present', 'score'))
    return cohen_kappa_score(truth, predicted, weights='quadratic')
  if name == 'mask':
    return np.mean([np.mean([dice for dice in (measure_dice(rows['confusion'][image], label) for image in drawn)
                             if dice is not None]) for label in (1, 2)])
  ill, well = (rows['score'][[index for index in drawn if rows['present'][index, 1] == present], 1]
               for present in (1, 0))
  return (ill[:, None] > well).mean()  # the AUC where no scores tie


def measure_dice(confusion, label):
  """None where neither the truth nor the prediction has the class."""
  area = confusion[label].sum() + confusion[:, label].sum()
  return 2 * confusion[label, label] / area if area else None


def compare_plainly(name, first, second, sign):
  """The difference and its interval, one resample after another."""
  counted = list_counted(name, first[0])
  owner, draws = draw_patients(first[0]['patient'][counted], RESAMPLES, 3)
  seeds = draw_seeds(len(first), RESAMPLES, 5)
  values = []
  for resample_index, patients in enumerate(draws):
    images = [image for patient in patients for place, image in enumerate(counted) if owner[place] == patient]
    changes = [score_plainly(name, first[seed], images) - score_plainly(name, second[seed], images)
               for seed in seeds[:, resample_index]]
    values.append(sign * sum(changes) / len(changes))
  every = [score_plainly(name, one, counted) - score_plainly(name, other, counted)
           for one, other in zip(first, second, strict=True)]
  every = [sign * one for one in every]
  return sum(every) / len(every), widen_plainly(np.percentile(values, [2.5, 97.5]), every)


def widen_plainly(interval, values):
  """Rao and Wu's variance and Satterthwaite's degrees of freedom, in scipy's distributions."""
  count, mean, (low, high) = len(values), sum(values) / len(values), interval
  squares = sum((value - mean) ** 2 for value in values)
  drawn = ((high - low) / (stats.norm.ppf(0.975) - stats.norm.ppf(0.025))) ** 2
  seeds = squares / (count * (count - 1))
  total = max(drawn - squares / count ** 2, 0) + seeds
  width = stats.t.ppf(0.975, total ** 2 / (seeds ** 2 / (count - 1))) * total ** 0.5
  factor = width / (stats.norm.ppf(0.975) * drawn ** 0.5)
  return [mean + factor * (low - mean), mean + factor * (high - mean)]


def list_counted(name, rows):
  """Places of the images that have a label or a mask."""
  counted = {'value': lambda: np.ones(len(rows['patient'])), 'mask': lambda: rows['confusion'].any((1, 2))}
  return np.flatnonzero(counted.get(name, lambda: rows['label_mask'].any(1))())


@pytest.mark.parametrize('name', ['two', 'ordinal', 'value', 'mask'])
def test_a_difference_is_that_of_a_plain_loop_over_resamples_of_patients_and_seeds(name):
  kind, first, second = make_pairs(name)
  found = compute_difference(resample(name, kind, first), resample(name, kind, second), sign=kind.sign, seed=5)
  value, interval = compare_plainly(name, first, second, kind.sign)
  assert found.value == pytest.approx(value, abs=1e-12) and found.value > 0, 'the first is better in both'
  assert found.interval == pytest.approx(interval, abs=1e-12)


def test_the_value_is_that_of_the_runs_own_scores(tmp_path):
  """Also after the predictions were written and read, which is what the table does."""
  for name in ('two', 'ordinal', 'value', 'mask', 'boxes'):
    kind = METRICS[TASKS[name]]
    rows = make_rows(name, images=30)
    scored = metrics.score(kind, ABOUT[name], rows, resamples=5)
    metrics.write_predictions(tmp_path / f'{name}.csv', kind, ABOUT[name], rows)
    again = metrics.read_predictions(tmp_path / f'{name}.csv', kind, ABOUT[name])
    found = resample_score('run', kind, ABOUT[name], again, resamples=5)
    expected = scored['scores'][scored['headline']]
    assert found.value == pytest.approx(expected['value'], abs=1e-12)
    assert np.percentile(found.values_R, [2.5, 97.5]) == pytest.approx(expected['interval'], abs=1e-12)


def test_pairs_have_a_narrower_interval_than_independent_patients():
  kind, first, _ = make_pairs('value', seeds=1)
  better = [first[0] | {'predicted': first[0]['value'] + 0.9 * (first[0]['predicted'] - first[0]['value'])}]
  paired = compute_difference(resample('value', kind, better), resample('value', kind, first), sign=-1)
  alone = resample('value', kind, first)[0].values_R
  assert np.ptp(paired.interval) < 0.3 * np.ptp(np.percentile(alone, [2.5, 97.5]))


@pytest.mark.parametrize('seeds', [2, 3, 5])
@pytest.mark.parametrize('patients_share', [0.0, 0.5, 1.0])
def test_the_interval_contains_the_true_difference_as_often_as_it_claims(seeds, patients_share):
  """Scores with a known difference, a share of each patient and a share of each seed. The bootstrap alone would cover
  about half of the cases with 2 seeds and three quarters with 3, where only the seeds differ."""
  rng, hits, tables, resamples, true = np.random.default_rng(0), 0, 300, 200, 0.25
  weights = rng.multinomial(60, np.full(60, 1 / 60), size=resamples) / 60
  for table in range(tables):
    patients = rng.normal(0, np.sqrt(60 * patients_share), 60)
    shares = rng.normal(0, np.sqrt(seeds * (1 - patients_share)), seeds)
    drawn = weights @ patients
    first = [ResampledScore('run', {}, true + share + patients.mean(), true + share + drawn) for share in shares]
    second = [ResampledScore('baseline', {}, 0.0, np.zeros(resamples))] * seeds
    low, high = compute_difference(first, second, sign=1, seed=table).interval
    hits += low <= true <= high
  assert 0.90 < hits / tables < 0.985


def test_where_only_patients_differ_or_seeds_are_many_nothing_is_widened():
  assert widen_interval((-1.0, 2.0), np.full(3, 0.5)) == (-1.0, 2.0)
  assert widen_interval((0.25, 0.75), np.array([0.5])) == (0.25, 0.75)
  values_S = np.random.default_rng(0).normal(size=10_000)
  half = 1.96 * values_S.std() / 100
  interval = values_S.mean() - half, values_S.mean() + half
  assert widen_interval(interval, values_S) == pytest.approx(interval, rel=1e-3)
  nearly = widen_interval((-1.0, 2.0), np.array([0.5, 0.5 + 1e-9, 0.5]))
  assert nearly == pytest.approx((-1.0, 2.0)), 'degrees of freedom beyond any table'


def test_an_end_on_the_wrong_side_of_the_mean_does_not_move_toward_it_or_away():
  low, high = widen_interval((1.0, 3.0), np.array([-1.0, 0.0, 1.0]))
  assert low == 1 and high > 3


def test_seeds_that_differ_have_an_interval_even_if_the_resamples_do_not():
  assert widen_interval((0.5, 0.5), np.array([0.0, 1.0])) == pytest.approx(
    stats.ttest_1samp([0.0, 1.0], 0).confidence_interval())


def test_two_seeds_have_students_interval_if_only_they_differ():
  """The bootstrap draws the mean of the two in half of the cases, and each of them in a quarter."""
  low, high = widen_interval((-1.0, 1.0), np.array([-1.0, 1.0]))
  assert (low, high) == pytest.approx((-stats.t.ppf(0.975, 1), stats.t.ppf(0.975, 1)))


def test_runs_on_other_images_are_refused():
  kind, first, second = make_pairs('value', seeds=2)
  fewer = [{name: values[1:] for name, values in rows.items()} for rows in second]
  with pytest.raises(ConfigError, match="run0 and run0 cannot be compared.*scored on 40 images, the second on 39.*"
                                        "1 images, such as 'image, \"0\"', are not in both"):
    compute_difference(resample('value', kind, first), resample('value', kind, fewer), sign=-1)


def test_the_order_of_the_images_does_not_matter():
  kind, first, second = make_pairs('value')
  turned = [{name: values[::-1] for name, values in rows.items()} for rows in second]
  assert (compute_difference(resample('value', kind, first), resample('value', kind, second), sign=-1).interval
          == pytest.approx(compute_difference(resample('value', kind, first), resample('value', kind, turned),
                                              sign=-1).interval))


def test_without_a_defined_score_there_is_no_difference():
  undefined = [ResampledScore('run', {'image': 'patient'}, np.nan, np.full(4, np.nan))]
  found = compute_difference(undefined, undefined, sign=1)
  assert (found.value, found.interval) == (None, None)
  assert compute_difference([], [], sign=1).value is None


def test_a_resample_in_which_a_drawn_seed_has_no_score_is_left_out():
  """As the AUC of a resample without a sick patient."""
  rng = np.random.default_rng(0)
  change_SR = rng.normal(size=(3, 200))
  change_SR[0, ::3] = np.nan
  first = [ResampledScore('run', {}, 0.5, values_R) for values_R in change_SR]
  second = [ResampledScore('baseline', {}, 0.0, np.zeros(200))] * 3
  drawn_SR = draw_seeds(3, 200, 1)
  values = [np.mean([change_SR[seed, index] for seed in drawn_SR[:, index]]) for index in range(200)]
  defined = [value for value in values if value == value]
  assert 100 < len(defined) < 200
  found = compute_difference(first, second, sign=1, seed=1)
  assert found.interval == pytest.approx(np.percentile(defined, [2.5, 97.5]))


def test_with_one_seed_the_interval_is_that_over_patients():
  values_R = np.random.default_rng(0).normal(size=50)
  one, other = ResampledScore('run', {}, 1.0, values_R), ResampledScore('baseline', {}, 0.5, np.zeros(50))
  assert compute_difference([one], [other], sign=-1).interval == pytest.approx(np.percentile(-values_R, [2.5, 97.5]))
