"""Scores as JSON and as a table in words."""

import json
import pathlib


def write_scores(path, results):
  """Writes a dict of results, such as those of `score` by their names, as JSON, and returns the path."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(results, indent=2, allow_nan=False) + '\n'
  whole = path.with_suffix('.partial')
  whole.write_text(text)
  whole.replace(path)  # a reader never sees half a file
  return path


def describe(result):
  """A result of `score` in words: the scores, the headline first and marked, then its subgroups."""
  head = result['headline']
  names = [head, *(name for name in result['scores'] if name != head)]
  table = [('score', 'value', '95 % interval'),
           *((f'{name} *' if name == head else name, *describe_score(result['scores'][name])) for name in names)]
  left_out = f', {result["left_out"]:,} left out as nothing of them is annotated' if result['left_out'] else ''
  lines = [f'{result["task"]}: {result["images"]:,} images of {result["patients"]:,} patients{left_out}; * headline; '
           f'intervals from {result["resamples"]:,} draws of patients', *align(table)]
  if result['groups']:
    table = [('by', 'group', 'images', 'patients', head, '95 % interval'),
             *((row['by'], row['group'], f'{row["images"]:,}', f'{row["patients"]:,}', *describe_score(row))
               for row in result['groups'])]
    lines += ['', *align(table)]
  return '\n'.join(lines)


def describe_score(scored):
  value, interval = scored['value'], scored['interval']
  return ('undefined' if value is None else f'{value:.3f}',
          f'{interval[0]:.3f} to {interval[1]:.3f}' if interval else '')


def align(table):
  """Rows of text as lines with aligned columns."""
  widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
  return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
