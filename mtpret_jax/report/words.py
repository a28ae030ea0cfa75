"""Scores, intervals and forgetting in words that a newcomer understands."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtpret_jax.evaluation.metrics.flat_intervals import is_flat

MEANINGS = {
  'AUC': 'how often an image with the finding gets a higher probability than one without it. 0.5 is guessing, 1 is '
         'perfect',
  'AUC by study': 'AUC of whole studies, whose probability is the mean over their images',
  'kappa by study': 'agreement with the labels of whole studies beyond chance. 0 is chance, 1 is perfect',
  'AP': 'average precision: precision, averaged over the findings that are there from the most certain to the last. '
        'Guessing gives the share of images with the finding',
  'accuracy': 'share of the images whose label is predicted correctly',
  'sensitivity': 'share of the images with the finding in which it is found',
  'specificity': 'share of the images without the finding in which none is reported',
  'ECE': 'calibration error: how far probabilities are from observed frequencies. 0 is perfect',
  'quadratic kappa': 'agreement with the true grades beyond chance, where being far off costs more. 0 is chance, 1 is '
                     'perfect',
  'MAE (grades)': 'how many grades a prediction is off, on average',
  'MAE': 'mean absolute error: how far a prediction is off, on average. Lower is better',
  'RMSE': 'root mean square error: like the mean absolute error, but large errors count more. Lower is better',
  'R2': 'share of the variance that the predictions explain. 1 is perfect, 0 is no better than the mean',
  'Pearson r': 'correlation of predicted and true values. 1 is perfect',
  'Dice over images': 'overlap of predicted and true areas, averaged over images. 0 is none, 1 is perfect',
  'Dice over pixels': 'overlap of predicted and true areas, with the pixels of all images together. 1 is perfect',
  'IoU over images': 'shared area divided by the area of both, averaged over images. 1 is perfect',
  'IoU over pixels': 'shared area divided by the area of both, with the pixels of all images together. 1 is perfect',
  'mean IoU over images': 'IoU, averaged over the classes, background included',
  'mean IoU over pixels': 'IoU of the pixels of all images together, averaged over the classes, background included',
  'AP50': 'average precision of the boxes. A predicted box counts if it and a true one share at least half of the area '
          'that both cover together (IoU 0.5). 1 is perfect',
  'AP50-95': 'as AP50, averaged over stricter and stricter overlaps (IoU 0.5 to 0.95)',
  'AUROC': 'how often an image with the finding is ranked above one without it. 0.5 is guessing, 1 is perfect'}
FLAT = ('Where an interval has no width, every resample of the patients gives the same score. That does not mean that '
        'the score is certain.')
TITLES = ('initial', 'pretrained', 'change')  # of a share of the labels
MEANS = 'AUC, AP, sensitivity and specificity without the name of a finding are means over the findings. '
THRESHOLD = ('Without a threshold beside them, sensitivity and specificity are at a probability of 0.5, or, where '
             'findings exclude each other, those of the likeliest one.')
INTERVAL = ('The 95 % interval says how much a score depends on which patients happen to be in the split: {patients} '
            'patients were drawn anew {resamples} times, with all their images, and 95 % of the scores lie in it.')


def explain_flat(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """A line if an interval in the rows of `label_shares.score_shares` has no width, such as 1.000 to 1.000."""
  shares = [share for row in rows for share in row['shares']]
  return [FLAT] if any(is_flat(share[title][1]) for share in shares for title in TITLES) else []


def explain_score(name: str) -> str:
  """What a score means; '' for one that we do not know, such as that of a kind of task of your own."""
  return MEANINGS.get(name) or MEANINGS.get(name.split(': ')[0]) or MEANINGS.get(name.split(' (')[0], '')


def explain_findings(result: Mapping[str, Any]) -> str:
  """What the scores of findings stand for, where a reader may take them for others; '' for other kinds of task."""
  scores = result['scores']
  if result['task'] != 'classification' or 'sensitivity' not in scores:
    return ''
  named = any(name.startswith('sensitivity: ') for name in scores)
  return (MEANS if named else '') + THRESHOLD


def explain_interval(result: Mapping[str, Any]) -> str:
  """Where the intervals of a result of `metrics.score` come from."""
  return INTERVAL.format(patients=f'{result["patients"]:,}', resamples=f'{result["resamples"]:,}')


def format_number(value: float | None, undefined: str = 'undefined') -> str:
  """Three decimals for scores, fewer for larger numbers such as months."""
  if value is None:
    return undefined
  size = abs(value)
  return f'{value:.3f}' if size < 10 else f'{value:.2f}' if size < 100 else f'{value:,.1f}'


def format_range(interval: Sequence[float] | None) -> str:
  """'0.871 to 0.954', or '' where there is no interval."""
  return '' if interval is None else ' to '.join(map(format_number, interval))


def format_change(value: float | None) -> str:
  return '' if value is None else f'{"+" if value >= 0 else "−"}{format_number(abs(value))}'


def describe_forgetting(value: float | None) -> str:
  """'improved by 0.286' or 'forgot 0.012'. Forgetting is the best earlier score minus the last one, so a negative one
  means that the task ended better than it ever was."""
  if value is None:
    return 'not known'
  if round(abs(value), 3) == 0:
    return 'unchanged'
  return f'forgot {format_number(value)}' if value > 0 else f'improved by {format_number(-value)}'


def describe_percent(share: float) -> str:
  return f'{100 * share:.4g} %'


def say_count(number: int, noun: str) -> str:
  """'1 image', '12 images'."""
  return f'{number:,} {noun}' + ('' if number == 1 else 's')
