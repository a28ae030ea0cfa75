"""The table as text, Markdown and LaTeX: rows are initialisations, columns are tasks, one block for each fraction."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mtpret_jax.report.table_summary import Key, Table, excludes_zero, is_baseline
from mtpret_jax.report.tables import align

SCORES = ('Test scores of stage 3, mean {pm} standard deviation over seeds; the best of each column is marked. Mean '
          'rank: over the tasks, of the initialisations with a score on each of them; 1 is the best.')
DIFFERENCES = ('Difference to scratch, pooled over the seeds that both have, with its 95 % interval from a paired '
               'bootstrap over patients and seeds. Positive is better, also for errors; * where the interval excludes '
               '0.')
CAVEAT = ('The intervals are widened for the small number of seeds. Where nothing differs, about one interval in '
          'twenty excludes 0 by chance. With pretrain_once, all seeds share one run of stage 1, so the intervals do '
          'not cover how much runs of stage 1 differ.')

NO_DIFFERENCES = ('No difference to scratch: no finished cell of scratch has the task, seed and share of the labels of '
                  'another one.')


class Marks(NamedTuple):
  """How a format writes things. `best`: marks a cell; `escape`: a name as the format needs it."""

  plus_minus: str
  minus: str
  best: Callable[[str], str]
  escape: Callable[[str], str]
  missing: str
  star: str


PLAIN = Marks('+-', '-', lambda cell: f'{cell} (best)', str, '-', ' *')
MARKDOWN = Marks('±', '-', lambda cell: f'**{cell}**', lambda name: name.replace('|', r'\|'), '-', ' *')
LATEX_CHARACTERS = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '-': '{-}',
                    **{character: f'\\{character}' for character in '&%$#_{}'}}


def escape_latex(name: str) -> str:
  """A name as LaTeX text. Hyphens are kept apart, because LaTeX joins two of them to a dash."""
  return ''.join(LATEX_CHARACTERS.get(character, character) for character in name)


LATEX = Marks(r'$\pm$', '$-$', lambda cell: rf'\textbf{{{cell}}}', escape_latex, '--', '$^*$')


def format_fraction(fraction: float) -> str:
  """'5 %', the share of the labelled training patients."""
  return f'{100 * fraction:.4g} %'


def count_digits(table: Table, task: str) -> int:
  """Decimals to print: scores are below 1, errors have a unit such as months."""
  return 3 if table.signs[task] > 0 else 2


def format_mean(table: Table, key: Key, marks: Marks) -> str:
  """'0.912 +- 0.013', marked if it is the best of its column."""
  summary, digits = table.summaries.get(key), count_digits(table, key[0])
  if summary is None or summary.mean is None:
    return marks.missing
  spread = '' if summary.sd is None else f' {marks.plus_minus} {summary.sd:.{digits}f}'
  cell = f'{summary.mean:.{digits}f}'.replace('-', marks.minus) + spread
  return marks.best(cell) if table.is_best(key) else cell


def format_difference(table: Table, key: Key, marks: Marks) -> str:
  """'+0.021 (+0.004 to +0.038) *'."""
  summary, digits = table.summaries.get(key), count_digits(table, key[0])
  if summary is None or summary.difference is None:
    return marks.missing
  interval = '' if summary.low is None else f' ({summary.low:+.{digits}f} to {summary.high:+.{digits}f})'
  numbers = f'{summary.difference:+.{digits}f}{interval}'.replace('-', marks.minus)
  return f'{numbers}{marks.star if excludes_zero(summary) else ""}'


def tabulate_scores(table: Table, fraction: float, marks: Marks) -> list[list[str]]:
  """Header and rows of one block of scores, with the mean ranks."""
  tasks = table.list_tasks(fraction)
  rows = [['init', *(marks.escape(f'{task} ({table.metrics[task]})') for task in tasks), 'mean rank']]
  for init in table.inits:
    rank = table.mean_ranks.get((init, fraction))
    rows.append([marks.escape(init), *(format_mean(table, (task, init, fraction), marks) for task in tasks),
                 marks.missing if rank is None else f'{rank:.2f}'])
  return rows


def tabulate_differences(table: Table, fraction: float, marks: Marks) -> list[list[str]]:
  """Header and rows of one block of differences to scratch."""
  tasks = table.list_tasks(fraction)
  return [['init', *(marks.escape(f'{task} ({table.metrics[task]})') for task in tasks)],
          *([marks.escape(init), *(format_difference(table, (task, init, fraction), marks) for task in tasks)]
            for init in table.inits if not is_baseline(init))]


def describe_scores(table: Table, marks: Marks) -> str:
  """What the scores are, and which of them are errors."""
  errors = dict.fromkeys(marks.escape(table.metrics[task]) for task in table.tasks if table.signs[task] < 0)
  lower = f' Lower is better for {", ".join(errors)}.' if errors else ''
  return SCORES.format(pm=marks.plus_minus) + lower


def has_differences(table: Table) -> bool:
  """Whether an initialisation is compared with scratch."""
  return any(summary.difference is not None for summary in table.summaries.values())


def describe_table(table: Table) -> list[str]:
  """The lines of the table as text."""
  lines = [describe_scores(table, PLAIN)]
  for fraction in table.fractions:
    lines += ['', f'{format_fraction(fraction)} of the labels', *align(tabulate_scores(table, fraction, PLAIN))]
  if not has_differences(table):
    return [*lines, '', NO_DIFFERENCES]
  lines += ['', f'{DIFFERENCES} {CAVEAT}']
  for fraction in table.fractions:
    lines += ['', f'{format_fraction(fraction)} of the labels', *align(tabulate_differences(table, fraction, PLAIN))]
  return lines


def write_latex(table: Table, label: str) -> str:
  r"""Two `table` environments for `\input`, or one without differences. They use the rules of booktabs if the document
  loads it, else \hline.

  Args:
    label: of the first table; the second has `-differences` behind it.
  """
  rules = [rf'\providecommand{{\{rule}}}{{\hline}}' for rule in ('toprule', 'midrule', 'bottomrule')]
  blocks = [(describe_scores(table, LATEX), label, tabulate_scores)]
  if has_differences(table):
    blocks.append((f'{DIFFERENCES} {escape_latex(CAVEAT)}', f'{label}-differences', tabulate_differences))
  return '\n'.join([r'% Load the package booktabs for better rules.', *rules,
                    *(line for words, name, tabulate in blocks
                      for line in write_float(table, words, name, tabulate))]) + '\n'


def write_float(table: Table, words: str, label: str,
                tabulate: Callable[[Table, float, Marks], list[list[str]]]) -> list[str]:
  """One `table` environment. All blocks have the columns of all tasks, so a task may be missing in a block."""
  blocks = {fraction: tabulate(table, fraction, LATEX) for fraction in table.fractions}
  header = max(blocks.values(), key=lambda rows: len(rows[0]))[0] if blocks else ['init']
  caption = words.replace('95 %', r'95\,\%').replace('*', '$^*$')
  lines = [r'\begin{table}', r'\centering', r'\small', rf'\caption{{{caption}}}', rf'\label{{{label}}}',
           rf'\begin{{tabular}}{{l{"c" * (len(header) - 1)}}}', r'\toprule', f'{" & ".join(header)} \\\\']
  for fraction, (own, *rows) in blocks.items():
    lines += [r'\midrule', rf'\multicolumn{{{len(header)}}}{{l}}{{{escape_latex(format_fraction(fraction))} of the '
                           rf'labels}} \\']
    for row in rows:
      cells = dict(zip(own, row, strict=True))
      lines.append(f'{" & ".join(cells.get(title, LATEX.missing) for title in header)} \\\\')
  return [*lines, r'\bottomrule', r'\end{tabular}', r'\end{table}']


def write_markdown(rows: Sequence[Sequence[str]]) -> list[str]:
  """The lines of a Markdown table; the first row is the header."""
  lines = [f'| {" | ".join(row)} |' for row in rows]
  return [lines[0], f'|{"---|" * len(rows[0])}', *lines[1:]]


def name_label(name: str) -> str:
  """A LaTeX label from any name."""
  return 'tab:' + re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')
