"""The page of a recipe: the test scores of its stages, with links to their pages."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mtpret_jax.report.blocks import Block, Cell, Page, Table, Words, bar_of_share, drop_if_empty, link
from mtpret_jax.report.pages.about import uses_phantoms
from mtpret_jax.report.pages.guard import make_sections
from mtpret_jax.report.run_files import (
  CONTINUAL,
  PRETRAIN,
  REPORT,
  SCORES,
  SCORES_FILE,
  NotARun,
  RunFiles,
  list_stages,
  open_run,
)
from mtpret_jax.report.words import explain_score, format_number, format_range

# in the order of the stages
KINDS = {PRETRAIN: 'stage 1: pretraining without labels', CONTINUAL: 'stage 2: several tasks one after another',
         SCORES: 'stage 3: fine-tuning'}


def make_page(run: RunFiles) -> Page:
  collected = run.read_json(SCORES_FILE)
  stages = [stage for folder in list_stages(run.folder) if (stage := open_stage(folder)) and stage.kind in KINDS]
  stages.sort(key=lambda stage: list(KINDS).index(stage.kind))
  if not collected:
    run.problems.append(f'{SCORES_FILE} is not there yet: the recipe has not finished.')
  sections = make_sections(run, ('Test scores', lambda run: make_score_blocks(collected)),
                           ('Stages', lambda run: make_stage_blocks(run, stages)))
  return Page('All stages', str(run.folder), sections, run.problems,
              any(uses_phantoms(stage.config) for stage in stages))


def open_stage(folder: pathlib.Path) -> RunFiles | None:
  try:
    return open_run(folder)
  except NotARun:
    return None


def make_score_blocks(collected: Mapping[str, Any]) -> Iterator[Block]:
  """The headline score of each fine-tuned task."""
  rows: list[tuple[Cell, ...]] = []
  notes = list[str]()
  for scores in collected.values():
    notes += [note for note in scores.get('notes') or () if note not in notes]
    for task, result in scores['tasks'].items():
      score, headline = result['scores'][result['headline']], result['headline']
      rows.append((task, headline, format_number(score['value']), format_range(score['interval']),
                   bar_of_share(score), f'{result["images"]:,}', f'{result["patients"]:,}'))
  if rows:
    table = Table(('task', 'score', 'value', '95 % interval', '0 to 1', 'images', 'patients'), rows,
                  'Each task was fine-tuned on its own. Intervals are over the patients of its test split.',
                  text_columns=(0, 1, 4), wide_only=(4,))
    yield drop_if_empty(table, 4)  # such as of tasks in months only
    yield Words([f'{name}: {explain_score(name)}.' for name in dict.fromkeys(str(row[1]) for row in rows)
                 if explain_score(name)], tone='muted')
  if notes:
    yield Words([f'{note[:1].upper()}{note[1:]}.' for note in notes], tone='warning')


def make_stage_blocks(run: RunFiles, stages: list[RunFiles]) -> Iterator[Block]:
  """A row for each stage, with a link to its page."""
  rows: list[tuple[Cell, ...]] = []
  for stage in stages:
    name = stage.folder.name
    title = link(name, f'{name}/{REPORT}') if stage.has(REPORT) else name
    config = stage.config
    trained = ', '.join(config.get('tasks') or (config.get('data') or {}).get('datasets') or ())
    rows.append((title, KINDS[stage.kind], trained, str(config.get('trunk', '')),
                 str(config.get('init', ''))))
  if rows:
    yield Table(('stage', 'what it does', 'tasks or datasets', 'trunk', 'started from'), rows,
                text_columns=(0, 1, 2, 3, 4))
