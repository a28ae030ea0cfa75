"""The operating points of a task: thresholds that were chosen on validation, and the scores at them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mtpret_jax.evaluation.metrics.operating_points import NAMES
from mtpret_jax.report.blocks import Block, Table, Words, explain
from mtpret_jax.report.run_files import RunFiles
from mtpret_jax.report.words import format_number, format_range


@dataclasses.dataclass(frozen=True)
class Points:
  """Attributes:
    thresholds: {finding or class of boxes: threshold}; {} where none was chosen.
    rule: how they were chosen.
    temperature: that the probabilities were divided by; 1 for none.
    scores: {class: {score: {'value', 'interval'}}} at them, on the split of the page.
    validation: {class: {'sensitivity', 'specificity', 'n'}} where they were chosen.
    notes: why a class has none.
    doubts: what few images say about the scores.
  """

  thresholds: Mapping[str, float]
  rule: str = ''
  temperature: float = 1.0
  scores: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  validation: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  doubts: tuple[str, ...] = ()


def read_points(run: RunFiles, task: str, result: Mapping[str, Any]) -> Points:
  """The points that the scores of a task were computed at. Where the scores say nothing about them, those in
  `operating_points.json`; without points for runs that have neither."""
  chosen, used = run.read_operating_points(task), result.get('operating_points')
  if used is None:
    classes: Mapping[str, Any] = {}
    used, thresholds = chosen, chosen.get('thresholds') or {}
  else:  # without classes, the scores are of another state or with other flips than the points of the file
    classes = used.get('classes') or {}
    thresholds = {name: scores['threshold'] for name, scores in classes.items()}
  return Points({name: float(value) for name, value in thresholds.items()}, str(used.get('rule') or ''),
                float(used.get('temperature') or 1.0), classes,
                (chosen.get('validation') or {}) if thresholds else {}, tuple(used.get('notes') or ()),
                tuple(used.get('doubts') or ()))


def describe_rule(points: Points) -> str:
  rule = {'youden': 'the largest sum of sensitivity and specificity'}.get(points.rule, points.rule)
  temperature = f' Probabilities are at temperature {points.temperature:.3g}.' if points.temperature != 1 else ''
  return f'They were chosen on the validation split{f" ({rule})" if rule else ""}.{temperature}'


def make_point_blocks(points: Points) -> Iterator[Block]:
  """The scores at the thresholds with their intervals, those on validation, and what has no threshold."""
  names = [name for name in NAMES if any(name in scores for scores in points.scores.values())]
  if names:
    rows = [(title, format_number(scores['threshold']), *(format_score(scores.get(name)) for name in names))
            for title, scores in points.scores.items()]
    yield Table(('', 'threshold', *names), rows, 'Scores at the operating points, with 95 % intervals')
  if points.validation:
    rows = [(title, *(format_number(scores.get(name), '-') for name in NAMES[:2]), f'{scores.get("n") or 0:,}')
            for title, scores in points.validation.items()]
    yield Table(('', *NAMES[:2], 'number'), rows, 'The same thresholds on the validation split, where they were chosen',
                folded=True)
  if points.notes:
    yield Words([f'No operating point: {note}.' for note in points.notes], tone='muted')
  if points.doubts:
    yield Words([f'{doubt}.' for doubt in points.doubts], tone='note')


def format_score(score: Mapping[str, Any] | None) -> Any:
  if score is None:
    return '-'
  return explain(format_number(score['value']), format_range(score['interval']))
