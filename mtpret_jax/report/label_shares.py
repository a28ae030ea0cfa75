"""How far a share of the labels gets, before and after pretraining: a table and a picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mtpret_jax.evaluation.probe import count_digits
from mtpret_jax.report.tables import align
from mtpret_jax.report.words import explain_flat
from mtpret_jax.runtime.pictures import plain_text

COLOURS = {'initial': 'tab:gray', 'pretrained': 'tab:blue'}
Row = Mapping[str, Any]  # of `label_shares.score_shares`


def describe_shares(rows: Sequence[Row], start: str, draws: int) -> str:
  """The rows as a table. `start` names the trunk before pretraining."""
  table = [('dataset', 'score', 'labelled images', start, 'pretrained', 'difference')]
  for row in rows:
    for share in row['shares']:
      table.append((row['dataset'], row['metric'], f'{round(share["images"]):,} ({describe_percent(row, share)})',
                    *(format_interval(row, share, title) for title in ('initial', 'pretrained', 'change'))))
  return '\n'.join([
    f'How many labels it takes: a linear model on the frozen trunk, fitted on a share of the training images (mean of '
    f'{draws} draws)', *align(table),
    'In brackets: 95 % intervals over validation patients, which do not cover the draws. A share has some images of '
    'each finding, so it may exceed its fraction.', *explain_flat(rows)])


def describe_percent(row: Row, share: Mapping[str, Any]) -> str:
  """'1 %' of the labels. The actual share, which exceeds the configured one where every class has a minimum."""
  percent = 100 * share['images'] / row['labelled']
  return f'{percent:.0f} %' if percent >= 1 else f'{percent:.1g} %'


def format_interval(row: Row, share: Mapping[str, Any], title: str) -> str:
  """'0.934 (0.905 to 0.964)'; the numbers of a change are printed with their signs."""
  value, interval = share[title]
  form = f'{"+" if title == "change" else ""}.{count_digits(row["metric"])}f'
  return f'{value:{form}}' + (f' ({interval[0]:{form}} to {interval[1]:{form}})' if interval else '')


def count_worse(rows: Sequence[Row]) -> tuple[int, int]:
  """In how many of the datasets, with the largest share of the labels, and in how many of all rows of the table the
  pretrained trunk is worse than the initial one."""
  worse = [[share['change'][0] * (1 if row['metric'] == 'AUROC' else -1) < 0 for share in row['shares']]
           for row in rows]
  return sum(shares[-1] for shares in worse), sum(map(sum, worse))


@plain_text()
def draw_shares(rows: Sequence[Row], start: str, workdir: pathlib.Path) -> pathlib.Path:
  """`labels.png`: a panel for each dataset, with the score against the number of labelled images, before and after
  pretraining. The bands are 95 % intervals over validation patients."""
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  figure = Figure(figsize=(3.2 * len(rows), 3.3))
  axes = figure.subplots(1, len(rows), squeeze=False)[0]
  for row, cell in zip(rows, axes, strict=True):
    images = [share['images'] for share in row['shares']]
    for title, colour in COLOURS.items():
      values = [share[title][0] for share in row['shares']]
      ends = [share[title][1] or (value, value) for share, value in zip(row['shares'], values, strict=True)]
      name = f'{start if title == "initial" else title} trunk'
      cell.plot(images, values, marker='o', color=colour, label=name)
      cell.fill_between(images, *zip(*ends, strict=True), color=colour, alpha=0.15, linewidth=0)
    cell.set_xscale('log')
    cell.set_xticks(images, [f'{round(share["images"]):,}\n{describe_percent(row, share)}' for share in row['shares']])
    cell.set_xticks([], minor=True)
    better = 'higher' if row['metric'] == 'AUROC' else 'lower'
    cell.set(title=row['dataset'], xlabel='labelled training images', ylabel=f'{row["metric"]} ({better} is better)')
    cell.grid(alpha=0.3)
  axes[0].legend(loc='best', fontsize='small')
  figure.suptitle('A linear model on the frozen trunk, before and after pretraining', fontsize='medium')
  figure.tight_layout()
  path = pathlib.Path(workdir, 'labels.png')
  figure.savefig(path, dpi=110)
  return path
