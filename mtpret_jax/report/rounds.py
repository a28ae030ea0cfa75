"""The report of stage 2: the validation score of each task after each round and the strength of the memory, as
`rounds.json`, tables and `rounds.png`."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.evaluation import validation
from mtpret_jax.evaluation.rounds import compute_forgetting, summarise_memory
from mtpret_jax.report import page
from mtpret_jax.report.pages.training import find_visits
from mtpret_jax.report.tables import align, format_score
from mtpret_jax.report.words import describe_forgetting
from mtpret_jax.runtime.atomic_io import read_json_lines, write_json
from mtpret_jax.runtime.logging import METRICS
from mtpret_jax.runtime.pictures import plain_text
from mtpret_jax.runtime.prepare_data import PHANTOMS, describe_data

log = logging.getLogger(__name__)

Line = Mapping[str, Any]  # of validation.jsonl
COLUMNS = 4  # plots in a row of rounds.png


def report_rounds(config: ConfigDict) -> None:
  """Writes, draws and prints the rounds of a run, from its `validation.jsonl` and `metrics.jsonl`."""
  workdir = pathlib.Path(config.workdir)
  lines: Sequence[Line] = [line for line in validation.read(workdir) if set(line['tasks']) == set(config.tasks)]
  lines = keep_round_ends(lines, len(config.tasks) if config.order == 'sequential' else config.rounds)
  if not lines:
    log.warning('%s has no scores of any round: nothing to report', workdir / validation.FILE)
    return
  forgetting, data = compute_forgetting(lines, list(config.tasks), config.order), config.data.archives or PHANTOMS
  memory = summarise_memory(read_json_lines(workdir / METRICS), [line['step'] for line in lines])
  picture = draw_rounds(lines, workdir)
  # The file comes last, because `test_scores.is_finished` takes it as proof that the report is complete.
  results = write_json(workdir / 'rounds.json', {'data': data, 'split': 'validation', 'order': config.order,
                                                 'rounds': lines, 'tasks': forgetting, 'memory': memory})
  print(describe_rounds(lines, forgetting, data, config.order))
  if memory:
    print(describe_memory(lines, memory))
  print(f'Files in {workdir}: {picture.name}, {results.name}')
  page.announce(workdir)


def keep_round_ends(lines: Sequence[Line], rounds: int) -> Sequence[Line]:
  """The last line of each round. A round may have several validations (`validations`), the last one at its end."""
  each = max(len(lines) // rounds, 1)
  return lines[each - 1::each]


def describe_rounds(lines: Sequence[Line], forgetting: Mapping[str, Mapping], data: str, order: str) -> str:
  """A row for each task: its scores, forgetting and backward transfer."""
  table = [('task', 'score', *(f'step {line["step"]}' for line in lines), 'since its best round', 'since its first')]
  for name, changes in forgetting.items():
    values = [line['tasks'][name]['value'] for line in lines]
    table.append((name, lines[-1]['tasks'][name]['headline'], *map(format_score, values),
                  describe_forgetting(changes['forgetting']),
                  describe_forgetting(None if changes['transfer'] is None else -changes['transfer'])))
  return '\n'.join([
    f'Validation scores after each round. Data: {describe_data(data)}.', *align(table),
    'The last score against the best earlier one (rounds.json calls what was lost "forgetting") and against the first '
    'one ("transfer").',
    *(['Both count the scores of a task from its own visit on.'] if order == 'sequential' else [])])


def describe_memory(lines: Sequence[Line], memory: Mapping[str, Sequence[Mapping]]) -> str:
  """A row for each task: drift and pull ratio of its visit in each round."""
  table = [('task', *(f'step {line["step"]}' for line in lines))]
  for name, rounds in memory.items():
    table.append((name, *(f'{format_score(visit["drift"])} ({format_score(visit["pull_ratio"])})' for visit in rounds)))
  return '\n'.join([
    'Memory: drift, the distance of the trunk from its anchor in the last log line of a visit, and in parentheses the '
    "mean ratio of the pull to the loss's gradient.", *align(table)])


@plain_text()
def draw_rounds(lines: Sequence[Line], workdir: pathlib.Path) -> pathlib.Path:
  """`rounds.png`: validation score against step, a plot for each task. The background has the colour of the task that
  was trained."""
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  names, visits = list(lines[0]['tasks']), find_visits(read_json_lines(workdir / METRICS))
  colours = {name: f'C{number % 10}' for number, name in enumerate(names)}
  columns = min(len(names), COLUMNS)
  figure = Figure(figsize=(3.3 * columns, 2.8 * -(-len(names) // columns)), layout='constrained')
  for number, name in enumerate(names, 1):
    scores = [line['tasks'][name] for line in lines]
    points = [(line['step'], score['value']) for line, score in zip(lines, scores, strict=True)]
    steps, values = np.array([point for point in points if point[1] is not None], float).reshape(-1, 2).T
    cell = figure.add_subplot(-(-len(names) // columns), columns, number)
    for task, start, end in visits:
      if task in colours:  # in a joint step, all tasks are trained
        cell.axvspan(start, end, color=colours[task], alpha=0.15, linewidth=0)
    cell.plot(steps, values, marker='o', color=colours[name], label=name)
    better = 'higher' if scores[-1]['sign'] > 0 else 'lower'
    cell.set_title(f'{name} ({better} is better)', fontsize='medium')
    cell.set(xlabel='step', ylabel=scores[-1]['headline'])
    cell.grid(alpha=0.3)
  if any(task in colours for task, _, _ in visits):
    figure.suptitle('Validation score after each round; the background is the task that was trained', fontsize='medium')
  path = pathlib.Path(workdir, 'rounds.png')
  figure.savefig(path, dpi=110)
  return path
