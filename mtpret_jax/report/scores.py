"""The printed tables of test scores."""

import pathlib
from collections.abc import Mapping
from typing import Any

from mtpret_jax.evaluation.metrics import operating_points
from mtpret_jax.evaluation.test_scores import FILE, Scored, predictions_path
from mtpret_jax.report.examples import draw_examples
from mtpret_jax.report.pictures import draw_cases
from mtpret_jax.report.tables import align, format_interval, format_score
from mtpret_jax.report.words import explain_findings
from mtpret_jax.runtime.pictures import optional_picture
from mtpret_jax.runtime.prepare_data import describe_data
from mtpret_jax.tasks import find_kind


def report_scores(scored: Scored) -> None:
  """Prints the scores of one split, draws some of its predictions, and says where everything is."""
  results, workdir, pictures = scored.results, scored.workdir, []
  for name, result in results['tasks'].items():
    print(f'{name}: {results["split"]} split (rule: {results["split_rule"]}), state after step {results["step"]:,}. '
          f'Data: {describe_data(results["data"])}.')
    print(describe_result(result))
  for note in (*results.get('notes', ()), *results['pretraining']['notes']):
    print(f'Note: {note}.')
  # scores.json is already there: if a run is killed while it draws, it is finished all the same, only without pictures.
  for name, examples in scored.examples.items():
    path, kind = pathlib.Path(workdir, f'examples_{name}.png'), find_kind(results['tasks'][name]['task'])
    with optional_picture(path.name):
      draw_examples(path, kind, examples, f'{name}, {results["split"]} split, step {results["step"]:,}')
      pictures.append(path)
  pictures += draw_cases(workdir, {name: result['task'] for name, result in results['tasks'].items()}, scored.cases)
  paths = [pathlib.Path(workdir, FILE), *(predictions_path(workdir, name) for name in results['tasks']), *pictures]
  print(f'Files in {workdir}: ' + ', '.join(str(path.relative_to(workdir)) for path in paths))


def describe_result(result: Mapping[str, Any]) -> str:
  """A result of `metrics.score` as a table, the headline first and marked with *, then a table of its subgroups."""
  headline = result['headline']
  names = [headline, *(name for name in result['scores'] if name != headline)]
  table = [('score', 'value', '95 % interval'),
           *((f'{name} *' if name == headline else name, *format_cells(result['scores'][name])) for name in names)]
  left_out = f' ({result["left_out"]:,} left out, without a label)' if result['left_out'] else ''
  lines = [f'{result["task"]}: {result["images"]:,} images{left_out} of {result["patients"]:,} patients; * headline '
           f'score; intervals: bootstrap over patients, {result["resamples"]:,} resamples', *align(table),
           *filter(None, [explain_findings(result)])]
  if 'operating_points' in result:
    lines += ['', *describe_operating_points(result['operating_points'])]
  if result['groups']:
    groups = [('subgroup by', 'group', 'images', 'patients', headline, '95 % interval'),
              *((row['by'], row['group'], f'{row["images"]:,}', f'{row["patients"]:,}', *format_cells(row))
                for row in result['groups'])]
    lines += ['', *align(groups)]
  return '\n'.join(lines)


def describe_operating_points(points: Mapping[str, Any]) -> list[str]:
  """The scores at the thresholds that validation recommends, a line for each finding or class of boxes."""
  lines = []
  if classes := points['classes']:
    names = [name for name in operating_points.NAMES if name in next(iter(classes.values()))]
    table = [('operating point', 'threshold', *(cell for name in names for cell in (name, '95 % interval'))),
             *((title, f'{scores["threshold"]:.3g}', *(cell for name in names for cell in format_cells(scores[name])))
               for title, scores in classes.items())]
    temperature = f', at temperature {points["temperature"]:.3f}' if points['temperature'] != 1 else ''
    lines = [f'at thresholds chosen on validation ({points["rule"]}){temperature}:', *align(table)]
  return [*lines, *(f'No operating point: {note}.' for note in points['notes']),
          *(f'Note: {doubt}.' for doubt in points.get('doubts', ()))]


def format_cells(score: Mapping[str, Any]) -> tuple[str, str]:
  return format_score(score['value'], 'undefined'), format_interval(score['interval'], '')
