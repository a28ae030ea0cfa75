"""The page of several runs side by side: headline scores and their differences, curves, and configs."""

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.paired import Difference, ResampledScore, compute_difference, resample_score
from mtpret_jax.report.blocks import Block, Cell, Page, Plot, Plots, Table, Words, bar, find_scale, link
from mtpret_jax.report.pages.about import describe_start, uses_phantoms
from mtpret_jax.report.pages.classification import list_findings
from mtpret_jax.report.pages.config_changes import MISSING, show_value
from mtpret_jax.report.pages.guard import attempt, make_sections
from mtpret_jax.report.pages.points import read_points
from mtpret_jax.report.pages.training import METRICS, VALIDATION
from mtpret_jax.report.plots.findings import draw_roc
from mtpret_jax.report.plots.lines import Line, draw_lines
from mtpret_jax.report.run_files import (
  CONTINUAL,
  DAMAGED,
  PRETRAIN,
  RECIPE,
  REPORT,
  RESULTS,
  ROUNDS,
  SCORES,
  SCORES_FILE,
  RunFiles,
)
from mtpret_jax.report.words import explain_score, format_change, format_number, format_range
from mtpret_jax.tasks import KINDS

MOST_DRAWS = 2 * 10**7  # images times resamples of a difference
RESAMPLES = 1000
ROCS = 6  # findings whose ROC curves are compared
IGNORED = ('workdir', 'name')
Named = Mapping[str, RunFiles]  # name of a run -> the run


class Score(NamedTuple):
  """A headline score of a run. `sign` is -1 where lower is better."""

  metric: str
  value: float | None
  interval: Sequence[float] | None
  sign: int


def make_page(runs: Sequence[RunFiles], out: pathlib.Path) -> Page:
  """The page that will be written to `out`, from which the links start."""
  named = name_runs(runs)
  collector = RunFiles(out.parent)
  scores = {name: attempt(collector, f'scores of {name}', functools.partial(read_scores, run), {})
            for name, run in named.items()}
  sections = make_sections(
    collector, ('Scores side by side', lambda _: make_score_blocks(named, scores)),
    ('The runs', lambda _: [make_runs(named, out)]),
    ('Curves', lambda _: make_curve_blocks(named)), ('ROC', lambda _: make_roc_blocks(named)),
    ('Configs', lambda _: make_config_blocks(named)))
  problems = [f'{name}: {problem}' for name, run in named.items() for problem in dict.fromkeys(run.problems)]
  return Page('Comparison', ', '.join(named), sections, [*problems, *collector.problems],
              all(uses_phantoms(run.config) for run in runs))


def name_runs(runs: Sequence[RunFiles]) -> dict[str, RunFiles]:
  """The runs by the part of their paths in which they differ."""
  parts = [run.folder.resolve().parts for run in runs]
  shared = len(os.path.commonprefix(parts)) if len(set(parts)) > 1 else 0
  named: dict[str, RunFiles] = {}
  for number, (run, path) in enumerate(zip(runs, parts, strict=True), 1):
    name = '/'.join(path[shared:]).removeprefix('//') or run.folder.name
    named[name if name not in named else f'{name} ({number})'] = run
  return named


def read_scores(run: RunFiles) -> dict[str, Score]:
  """The headline scores of a run: of each task, or of stage 1 the linear probe of each dataset."""
  if run.kind == SCORES:
    return {task: read_result(result) for task, result in run.read_json(SCORES_FILE).get('tasks', {}).items()}
  if run.kind == RECIPE:
    return {task: read_result(result) for stage in run.read_json(SCORES_FILE).values()
            for task, result in stage['tasks'].items()}
  if run.kind == CONTINUAL:
    rounds = run.read_json(ROUNDS).get('rounds') or [{'tasks': {}}]
    return {f'{task} (validation)': Score(score['headline'], score['value'], None, score['sign'])
            for task, score in rounds[-1]['tasks'].items()}
  if run.kind == PRETRAIN:
    return {f'{row["dataset"]}, linear model on {100 * share["fraction"]:.4g} % of the labels': Score(
      row['metric'], share['pretrained'][0], share['pretrained'][1], 1 if row['metric'] == 'AUROC' else -1)
      for row in run.read_json(RESULTS).get('label_shares') or [] for share in row['shares']}
  run.problems.append('A table has no headline score to compare: name its cells.')
  return {}


def read_result(result: Mapping[str, Any]) -> Score:
  score = result['scores'][result['headline']]
  return Score(result['headline'], score['value'], score['interval'], result['sign'])


def make_score_blocks(named: Named, scores: Mapping[str, Mapping[str, Score]]) -> Iterator[Block]:
  """For each score a row per run, with the difference to the first run."""
  first, *others = named
  yield Words([f'The difference is that to {first}; positive is better, also for errors. Its 95 % interval is from a '
               f'paired bootstrap: both runs are scored on the same redrawn patients. It is missing where the runs '
               f'were not scored on the same images, or where there are no predictions.'], tone='muted')
  for what in dict.fromkeys(what for own in scores.values() for what in own):
    present = {name: own[what] for name, own in scores.items() if what in own}
    differences = {name: find_difference(named[name], named[first], what, score, present[first])
                   for name, score in present.items() if name in others and first in present}
    scale = find_scale([0.0, *(end for change in differences.values() if change.value is not None
                               for end in (change.interval or (change.value,)))])
    rows: list[tuple[Cell, ...]] = []
    for name, score in present.items():
      change = differences.get(name, Difference(None, None))
      star = ' *' if change.interval and not change.interval[0] <= 0 <= change.interval[1] else ''
      rows.append((name, format_number(score.value), format_range(score.interval),
                   f'{format_change(change.value)}{star}',
                   ' to '.join(map(format_change, change.interval)) if change.interval else '',
                   bar(change.value, change.interval, scale, 0.0)))
    metric = next(iter(present.values())).metric
    meaning = explain_score(metric)
    yield Table(('run', 'value', '95 % interval', 'difference', '95 % interval',
                 f'{format_change(scale[0])} to {format_change(scale[1])}'), rows,
                f'{what}, {metric}: {meaning}.' if meaning else f'{what}, {metric}', text_columns=(0, 5),
                wide_only=(5,))
  yield Words(['* marks intervals that exclude 0.'], tone='muted')


def find_difference(run: RunFiles, first: RunFiles, task: str, score: Score, base: Score) -> Difference:
  """score - base, times the sign. With an interval if both runs have predictions of the same images."""
  if score.value is None or base.value is None or score.metric != base.metric:
    return Difference(None, None)
  simple = Difference(score.sign * (score.value - base.value), None)
  if run.kind != SCORES or first.kind != SCORES:
    return simple
  try:
    return compute_difference([resample(run, task)], [resample(first, task)], sign=score.sign)
  except DAMAGED:  # no predictions, or of other images, which is a ConfigError
    return simple


def resample(run: RunFiles, task: str) -> ResampledScore:
  """The headline score of the resamples, from the predictions."""
  scores = run.read_json(SCORES_FILE)
  kind, about = KINDS[scores['tasks'][task]['task']].metrics, scores['about'][task]
  rows = metrics.read_predictions(run.folder / f'predictions_{task}.csv', kind, about)
  draws = int(np.clip(MOST_DRAWS // max(len(rows['patient']), 1), 100, RESAMPLES))
  return resample_score(str(run.folder), kind, about, rows, resamples=draws)


def make_runs(named: Named, out: pathlib.Path) -> Table:
  """What each run is, with a link to its page."""
  rows: list[tuple[Cell, ...]] = []
  for name, run in named.items():
    config = run.config
    address = pathlib.PurePath(os.path.relpath(run.folder / REPORT, out.parent)).as_posix()
    rows.append((link(name, address) if run.has(REPORT) else name, str(config.get('trunk', '')),
                 describe_start(config) if config else '', str(config.get('seed', '')),
                 'phantoms' if uses_phantoms(config) else str((config.get('data') or {}).get('archives', ''))))
  return Table(('run', 'trunk', 'started from', 'seed', 'data'), rows, text_columns=(0, 1, 2, 3, 4))


def make_curve_blocks(named: Named) -> Iterator[Block]:
  """Validation scores, probes and losses of all runs in the same plots."""
  numbers = {name: index for index, name in enumerate(named)}
  curves: dict[tuple[str, str], dict[str, Line]] = {}
  for name, run in named.items():
    for what, line in list_curves(run):
      curves.setdefault(what, {})[name] = line
  plots = [draw_lines(lines, title, 'step', label, numbers=numbers) for (title, label), lines in curves.items()]
  if plots:
    yield Plots(plots)


def list_curves(run: RunFiles) -> Iterator[tuple[tuple[str, str], Line]]:
  """((title, label), line) of each curve of a run."""
  lines = run.read_lines(VALIDATION)
  for task in lines[-1]['tasks'] if lines else ():
    own = [(line['step'], line['tasks'][task]) for line in lines if task in line['tasks']]
    yield (f'{task}, validation', own[-1][1]['headline']), Line([step for step, _ in own],
                                                                [score['value'] for _, score in own])
  probes = run.read_lines('probes.jsonl')
  for name in dict.fromkeys(name for line in probes for name in line['scores']):
    found = [(line['step'], line['scores'][name]) for line in probes if name in line['scores']]
    yield (f'{name}, linear probe', found[-1][1]['metric']), Line([step for step, _ in found],
                                                                 [score['linear'] for _, score in found])
  losses = [line for line in run.read_lines(METRICS) if 'loss' in line]
  for task in dict.fromkeys(line.get('task', '') for line in losses):
    own_losses = [line for line in losses if line.get('task', '') == task]
    yield (f'{task}, training', 'loss'), Line([line['step'] for line in own_losses],
                                              [line['loss'] for line in own_losses])


def make_roc_blocks(named: Named) -> Iterator[Block]:
  """ROC curves of findings that several runs have, on the split of their scores."""
  found: dict[tuple[str, str], dict[str, Any]] = {}
  for name, run in named.items():
    if run.kind != SCORES:
      continue
    scores = run.read_json(SCORES_FILE)
    for task, result in (scores.get('tasks') or {}).items():
      about = (scores.get('about') or {}).get(task)
      rows = run.read_rows(task, result, about) if result['task'] == 'classification' and about else None
      for finding in list_findings(about, rows, read_points(run, task, result).thresholds) if about and rows else ():
        if finding.has_both():
          found.setdefault((task, finding.name), {})[name] = finding._replace(name=name)
  plots = []
  for (task, title), findings in list(found.items())[:ROCS]:
    if len(findings) > 1:
      plot = draw_roc(list(findings.values()), {})
      plots.append(Plot(plot.svg, f'{task}: {title}', plot.caption, plot.keys))
  if plots:
    yield Plots(plots)


def make_config_blocks(named: Named) -> Iterator[Block]:
  """The fields in which the configs differ."""
  flat = [flatten(run.config) for run in named.values()]
  fields = [field for field in dict.fromkeys(field for one in flat for field in one) if field not in IGNORED
            and len({show_value(one.get(field, MISSING)) for one in flat}) > 1]
  if not fields:
    yield Words(['The configs do not differ.'])
    return
  yield Table(('field', *named), [(field, *(show_value(one.get(field, MISSING)) for one in flat)) for field in fields],
              'What differs', text_columns=range(len(named) + 1), folded=len(fields) > 15)
