"""How training went: curves over the steps."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtpret_jax.report.blocks import Block, Key, Plot, Plots
from mtpret_jax.report.plots.figure import is_number, make_key
from mtpret_jax.report.plots.lines import Band, Line, draw_lines
from mtpret_jax.report.run_files import RunFiles

METRICS, VALIDATION = 'metrics.jsonl', 'validation.jsonl'
MOCO = 'moco'
# measure -> title, label of the y axis, caption. Others that a run logs are shown under their own names.
MEASURES = {
  'loss': ('Loss', 'loss', 'What training minimises.'),
  'accuracy_batch': ('Contrastive accuracy', 'share of queries',
                     'How often a query is most like its own key among those of the batch.'),
  'learning_rate': ('Learning rate', 'learning rate', ''),
  'images_per_second': ('Speed', 'images/s', 'Without pauses such as compiling and validation.'),
  'gradient': ('Gradient', 'norm of the gradient', 'Before clipping.'),
  'agreement': ('Agreement', 'cosine similarity', 'Of a query and its key.'),
  'spread': ('Spread', 'standard deviation', 'Of the embeddings; near 0 they have collapsed to one point.'),
  'drift': ('Drift', 'distance', 'Of the trunk from its anchor.'),
  'pull_ratio': ('Pull of the memory', 'pull / gradient', 'Strength of the pull toward the anchor.'),
  'uniformity': ('Uniformity', 'log mean exp(-2 d²)', '0 for a collapse, about -4 for evenly spread embeddings.'),
  'queue_filled': ('Queue', 'filled share', ''),
  'waited': ('Waiting for data', 'share of the time', '')}
SHOWN = ('loss', 'accuracy_batch', 'learning_rate', 'images_per_second')
LOGARITHMIC = ('gradient',)


def make_training_blocks(run: RunFiles) -> Iterator[Block]:
  """The curves of `metrics.jsonl`."""
  lines = run.read_lines(METRICS)
  if not lines:
    run.problems.append(f'{METRICS} is not there or empty, so the learning curves are missing.')
    return
  tasks = list(dict.fromkeys(str(line.get('task', '')) for line in lines))
  logged = dict.fromkeys(name for line in lines for name, value in line.items() if is_number(value))
  measures = [*(name for name in MEASURES if name in logged),
              *(name for name in logged if name not in MEASURES and name != 'step')]
  plots = {name: draw_measure(name, lines, tasks) for name in measures}
  yield Plots([plots[name] for name in measures if name in SHOWN])
  others = [plots[name] for name in measures if name not in SHOWN]
  if others:
    yield Plots(others, 'More curves', folded=True)


def draw_measure(name: str, lines: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Plot:
  """A measure of every task against the step."""
  words = name.replace('_', ' ')
  title, label, caption = MEASURES.get(name, (words.capitalize(), words, ''))
  curves = {}
  for task in tasks:
    # Lines of other tasks are undefined, so that the curve is broken between the visits.
    own = [line for line in lines if name in line]
    curves['stage 1' if task == MOCO else task] = Line(
      [line['step'] for line in own], [line[name] if str(line.get('task', '')) == task else None for line in own])
  return draw_lines(curves, title, 'step', label, caption=caption, log='y' if name in LOGARITHMIC else '')


def make_validation_blocks(run: RunFiles, best: float | None = None) -> Iterator[Block]:
  """The headline scores of `validation.jsonl`, a plot for each task. `best` is the step of the state that is scored."""
  lines = run.read_lines(VALIDATION)
  if not lines:
    run.problems.append(f'{VALIDATION} is not there or empty, so the validation scores are missing.')
    return
  tasks = list(lines[-1]['tasks'])
  visits = find_visits(run.read_lines(METRICS)) if len(tasks) > 1 else []
  names = list(dict.fromkeys(visit for visit, _, _ in visits))
  bands = [Band(start, end, names.index(name)) for name, start, end in visits]
  plots = []
  for task in tasks:
    scores = [(line['step'], line['tasks'][task]) for line in lines if task in line['tasks']]
    better = 'higher' if scores[-1][1]['sign'] > 0 else 'lower'
    caption = f'On the validation split; {better} is better.'
    if bands:
      caption += ' The background is the task that was trained.'
    if best is not None and len(tasks) == 1:
      caption += ' The dotted line marks the state that is scored.'
    plot = draw_lines({task: Line([step for step, _ in scores], [score['value'] for _, score in scores])},
                      f'Validation: {task}', 'step', scores[-1][1]['headline'], caption=caption, markers=True,
                      bands=bands, best=best if len(tasks) == 1 else None,
                      numbers={task: names.index(task) if task in names else 0})
    plots.append(dataclasses.replace(plot, keys=list_visit_keys(names)) if bands else plot)
  yield Plots(plots)


def list_visit_keys(names: Sequence[str]) -> list[Key]:
  """What the colours of the bands mean."""
  return [make_key(number, name) for number, name in enumerate(names)]


def find_visits(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
  """(task, first step, last step) of each visit, from the lines of `metrics.jsonl`. A line has the means of the steps
  since the line before; where it spans the end of a visit, the visits meet at it."""
  visits: list[tuple[str, int, int]] = []
  before = 0
  for line in lines:
    task, step = str(line.get('task', '')), line['step']
    if visits and visits[-1][0] == task:
      visits[-1] = (task, visits[-1][1], step)
    elif step > before or not visits:
      visits.append((task, before, step))
    before = step
  return visits
