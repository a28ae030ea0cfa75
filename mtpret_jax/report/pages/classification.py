"""Plots of findings: ROC, precision-recall, decisions, calibration, and the largest mistakes. N images, T findings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtpret_jax.evaluation.metrics.threshold_metrics import list_scored_findings, predict_labels
from mtpret_jax.report.blocks import Block, Plot, Plots, Section, Table, Words, shade
from mtpret_jax.report.pages.points import Points, describe_rule, make_point_blocks, read_points
from mtpret_jax.report.plots.findings import Finding, draw_calibration, draw_precision_recall, draw_roc
from mtpret_jax.report.run_files import RunFiles
from mtpret_jax.report.words import format_number

HALF = 0.5  # the threshold where none was chosen
TOGETHER = 5  # curves in one plot
SHOWN = 3  # calibration plots; more are folded
MISTAKES = 10


def make_sections(run: RunFiles, name: str, result: Mapping[str, Any], about: Mapping[str, Any],
                  rows: Mapping[str, np.ndarray]) -> list[Section]:
  points = read_points(run, name, result)
  findings = list_findings(about, rows, points.thresholds)
  drawn = [finding for finding in findings if finding.has_both()]
  exclusive = about['relation'] != 'independent'
  calibrations = draw_calibrations(findings, result, rows, exclusive)
  alone = len(calibrations) == 1  # it fits beside the curves
  decisions: list[Block] = [make_confusion(about, rows)] if exclusive else []
  if points.thresholds or not exclusive:
    decisions += [make_decisions(findings), *make_point_blocks(points)]
  decisions += make_mistakes(about, rows)
  sections = [Section('ROC, precision-recall and calibration' if alone else 'ROC and precision-recall',
                      list(make_curves(drawn, result, points, calibrations if alone else []))),
              Section('Decisions', decisions),
              Section('Calibration', [] if alone else list(make_calibrations(calibrations)))]
  return [section for section in sections if section.blocks]


def list_findings(about: Mapping[str, Any], rows: Mapping[str, np.ndarray],
                  thresholds: Mapping[str, float]) -> list[Finding]:
  """The findings that have scores of their own, with the images for which each is known."""
  found = []
  # The likeliest of several exclusive findings is predicted, whatever its probability.
  otherwise = HALF if about['relation'] == 'independent' or len(about['findings']) == 2 else None
  for t in list_scored_findings(about):
    title, known_N = about['findings'][t], rows['label_mask'][:, t]
    found.append(Finding(title, rows['present'][known_N, t] > 0, rows['score'][known_N, t],
                         thresholds.get(title, otherwise), title in thresholds))
  return [finding for finding in found if len(finding.present_N)]


def find_value(result: Mapping[str, Any], score: str, finding: str, findings: Sequence[Finding]) -> float | None:
  """A score of one finding; with one finding it is the score of the task."""
  found = result['scores'].get(f'{score}: {finding}') or (result['scores'].get(score) if len(findings) == 1 else None)
  return found['value'] if found else None


def make_curves(findings: Sequence[Finding], result: Mapping[str, Any], points: Points,
                also: Sequence[Plot]) -> Iterator[Block]:
  """ROC and precision-recall, a few findings in each plot, and the plots in `also`."""
  plots = []
  for start in range(0, len(findings), TOGETHER):
    some = findings[start:start + TOGETHER]
    areas, precisions = ({finding.name: find_value(result, score, finding.name, findings) for finding in some}
                         for score in ('AUC', 'AP'))
    plots += [draw_roc(some, areas), draw_precision_recall(some, precisions)]
  if plots or also:
    yield Plots([*plots, *also])
  if plots:
    yield Words([describe_points(points, findings)], tone='muted')


def describe_points(points: Points, findings: Sequence[Finding]) -> str:
  """Where the dots come from."""
  if points.thresholds:
    return f'The dots are the operating points. {describe_rule(points)}'
  if all(finding.threshold is None for finding in findings):
    return 'No operating point was chosen on the validation split.'
  return f'The dots are at a probability of {HALF}: no operating point was chosen on the validation split.'


def make_decisions(findings: Sequence[Finding]) -> Table:
  """What the threshold of each finding does to the images of this split."""
  rows = []
  for finding in findings:
    if finding.threshold is None:
      continue
    hits, misses, alarms, rest = finding.count_outcomes()
    rows.append((finding.name, format_number(finding.threshold), *(f'{count:,}' for count in (
      hits, misses, alarms, rest)), *map(format_ratio, (
        (hits, hits + misses), (rest, rest + alarms), (hits, hits + alarms), (rest, rest + misses)))))
  return Table(('finding', 'threshold', 'found', 'missed', 'false alarms', 'rightly not reported', 'sensitivity',
                'specificity', 'PPV', 'NPV'), rows,
               'Images by outcome at the threshold. PPV: share of the reports that are right; NPV: share of the other '
               'images that do not have the finding.')


def format_ratio(counts: tuple[int, int]) -> str:
  return format_number(counts[0] / counts[1]) if counts[1] else '-'


def make_confusion(about: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> Table:
  """The confusion matrix of mutually exclusive findings, by the likeliest one."""
  names = about['findings']
  count_TT = np.zeros((len(names), len(names)), int)
  np.add.at(count_TT, (rows['present'].argmax(1), rows['score'].argmax(1)), 1)
  share_TT = count_TT / np.maximum(count_TT.sum(1, keepdims=True), 1)
  return Table(('true', *(f'predicted {name}' for name in names)),
               [(name, *(shade(f'{count:,} ({share:.0%})', share) for count, share in zip(counts, shares, strict=True)))
                for name, counts, shares in zip(names, count_TT, share_TT, strict=True)],
               'Confusion matrix: images by true and likeliest class, and their share of the true class.')


def draw_calibrations(findings: Sequence[Finding], result: Mapping[str, Any], rows: Mapping[str, np.ndarray],
                      exclusive: bool) -> list[Plot]:
  """Reliability plots: of each independent finding, or of the likeliest of exclusive ones."""
  if exclusive:
    correct_N = rows['present'].argmax(1) == rows['score'].argmax(1)
    error = result['scores'].get('ECE', {}).get('value')
    return [draw_calibration('likeliest class', correct_N, rows['score'].max(1), error)]
  return [draw_calibration(finding.name, finding.present_N, finding.score_N,
                           find_value(result, 'ECE', finding.name, findings)) for finding in findings]


def make_calibrations(plots: Sequence[Plot]) -> Iterator[Block]:
  """The first few reliability plots; the others are folded."""
  if plots:
    yield Plots(plots[:SHOWN])
  if plots[SHOWN:]:
    yield Plots(plots[SHOWN:], f'{len(plots) - SHOWN} more findings', folded=True)


def make_mistakes(about: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> list[Block]:
  """The images whose probability is farthest from their label, of those that are predicted wrongly."""
  is_wrong_NT = rows['label_mask'] & (predict_labels(about, rows['score']) != (rows['present'] > 0))
  error_NT = np.where(is_wrong_NT, np.abs(rows['present'] - rows['score']), -1)
  worst_N = [at for at in np.argsort(-error_NT.max(1), kind='stable')[:MISTAKES] if is_wrong_NT[at].any()]
  lines = []
  for at in worst_N:
    t = int(error_NT[at].argmax())
    lines.append((str(rows['image_id'][at]), str(rows['patient'][at]), about['findings'][t],
                  'there' if rows['present'][at, t] else 'not there', format_number(float(rows['score'][at, t]))))
  return [Table(('image', 'patient', 'finding', 'label', 'probability'), lines,
                'The images whose probability is farthest from their label: look at these first, some labels may be '
                'wrong', text_columns=(0, 1, 2, 3), folded=True)] if lines else []
