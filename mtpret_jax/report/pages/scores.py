"""The page of stage 3 and of an evaluation: scores of each task, and plots of its predictions."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtpret_jax.report.blocks import (
  Block,
  Headline,
  Page,
  Section,
  Table,
  Words,
  bar,
  bar_of_share,
  drop_if_empty,
  explain,
  find_scale,
)
from mtpret_jax.report.pages import classification, detection, regression, segmentation
from mtpret_jax.report.pages.about import make_config_blocks, make_facts, uses_phantoms
from mtpret_jax.report.pages.guard import attempt, make_sections
from mtpret_jax.report.pages.pictures import make_picture_blocks
from mtpret_jax.report.pages.training import METRICS, VALIDATION, make_training_blocks, make_validation_blocks
from mtpret_jax.report.run_files import SCORES_FILE, RunFiles
from mtpret_jax.report.words import (
  explain_findings,
  explain_interval,
  explain_score,
  format_number,
  format_range,
  say_count,
)

Result = Mapping[str, Any]  # of `metrics.score`
# kind of task -> the sections with plots of its predictions
DETAILS: dict[str, Callable[[RunFiles, str, Result, Mapping[str, Any], Any], list[Section]]] = {
  'classification': classification.make_sections, 'regression': regression.make_sections,
  'segmentation': segmentation.make_sections, 'detection': detection.make_sections}
MOST_ROWS = 8  # of a table of scores; more are folded


def make_page(run: RunFiles) -> Page:
  scores = run.read_json(SCORES_FILE)
  tasks: Mapping[str, Any] = scores['tasks'] if isinstance(scores.get('tasks'), dict) else {}
  if not tasks:
    run.problems.append(f'{SCORES_FILE} is not there yet: the run has not finished, so its test scores are missing.')
  names = list(tasks or run.config.get('tasks') or ())
  sections = make_sections(run, ('What was run', lambda run: [make_facts(run, *list_more_facts(scores))]))
  for name, result in tasks.items():
    made = attempt(run, name, functools.partial(make_task_sections, run, name, result, scores), [])
    sections += [Section(f'{name}: {section.title.lower()}', section.blocks) if len(tasks) > 1 else section
                 for section in made]
  sections += make_sections(run, ('Notes', lambda run: make_note_blocks(scores)))
  sections += make_sections(run, ('Pictures', make_picture_blocks))
  if run.has(METRICS) or run.has(VALIDATION):
    step = scores.get('step')
    sections += make_sections(run, ('Training', lambda run: [
      *attempt(run, 'Validation scores', lambda: list(make_validation_blocks(run, step)), []),
      *make_training_blocks(run)]))
  sections += make_sections(run, ('Config', make_config_blocks))
  split = scores.get('split', 'test')
  return Page(', '.join(names) or run.folder.name,
              f'{f"Scores on the {split} split" if tasks else "Not finished"}: {run.folder}',
              order_sections(sections), run.problems, uses_phantoms(run.config))


def order_sections(sections: Sequence[Section]) -> list[Section]:
  """Scores first, then what was run, then the rest."""
  first = [section for section in sections if section.title.lower().endswith('scores')]
  notes = [section for section in sections if section.title == 'Notes']
  rest = [section for section in sections if section not in first and section not in notes]
  return [*first, *notes, *rest]


def list_more_facts(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Training images and steps, and which state is scored."""
  if scores.get('training_images'):
    yield 'Training images', ', '.join(f'{count:,}' for count in scores['training_images'].values())
  if scores.get('step') is not None:
    of_all = f' of {scores["steps"]:,}' if scores.get('steps') else ''
    yield 'State', f'after step {scores["step"]:,}{of_all}' + (', the best by validation' if of_all else '')
  runs = (scores.get('pretraining') or {}).get('runs') or ()
  if runs:
    yield 'Pretrained on', '; then '.join(', '.join(run['datasets']) for run in runs)


def make_note_blocks(scores: Mapping[str, Any]) -> list[Block]:
  """What a reader of the scores has to know."""
  chosen_here = scores.get('split') == 'validation' and any(
    (result.get('operating_points') or {}).get('classes') for result in (scores.get('tasks') or {}).values())
  notes = [*(scores.get('notes') or ()), *((scores.get('pretraining') or {}).get('notes') or ())]
  if chosen_here:
    notes.insert(0, 'the operating points were chosen on these images, so the scores at them are better than on others')
  return [Words([f'{note[:1].upper()}{note[1:]}.' for note in notes], tone='warning')] if notes else []


def make_task_sections(run: RunFiles, name: str, result: Result, scores: Mapping[str, Any]) -> list[Section]:
  """Everything about one task."""
  sections = [Section('Scores', list(make_score_blocks(result)))]
  make_details = DETAILS.get(result['task'])
  about = (scores.get('about') or {}).get(name)
  rows = run.read_rows(name, result, about) if make_details and about else None
  if make_details and about and rows is not None and len(rows['patient']):
    sections += attempt(run, f'plots of {name}', functools.partial(make_details, run, name, result, about, rows), [])
  groups = result.get('groups') or []
  if groups:
    sections.append(Section('Subgroups', [make_subgroups(result)]))
  return sections


def make_score_blocks(result: Result) -> Iterator[Block]:
  """The headline score in words, then all scores."""
  headline = result['headline']
  score = result['scores'][headline]
  left_out = f' ({result["left_out"]:,} left out, without a label)' if result['left_out'] else ''
  meaning = explain_score(headline)
  yield Headline(headline, format_number(score['value']), format_range(score['interval']),
                 f'{headline}: {meaning}' if meaning else '')
  yield Words([f'{say_count(result["images"], "image")}{left_out} of {say_count(result["patients"], "patient")}. '
               + (explain_interval(result) if score['interval'] else '')], tone='muted')
  overall = {name: score for name, score in result['scores'].items() if ': ' not in name}
  parts = {name: score for name, score in result['scores'].items() if ': ' in name}
  yield make_score_table(overall, 'Every score', explained=True)
  if parts:
    yield make_score_table(parts, 'Scores of each class or finding', folded=len(parts) > MOST_ROWS)
  if meaning := explain_findings(result):
    yield Words([meaning], tone='muted')


def make_score_table(scores: Mapping[str, Any], caption: str, explained: bool = False, folded: bool = False) -> Table:
  """A row for each score. Only those between 0 and 1 are drawn, since the others have other units."""
  rows = []
  for name, score in scores.items():
    rows.append((explain(name, explain_score(name)) if explained else name, format_number(score['value']),
                 format_range(score['interval']), bar_of_share(score)))
  table = Table(('score', 'value', '95 % interval', '0 to 1'), rows, caption, text_columns=(0, 3), wide_only=(3,),
                folded=folded)
  return drop_if_empty(table, 3)


def make_subgroups(result: Result) -> Table:
  """A forest plot as a table: the headline score of each subgroup with its interval, and that of all images as a line.
  """
  groups, headline = result['groups'], result['headline']
  everyone = result['scores'][headline]
  scale = find_scale([*(end for group in groups for end in (group['interval'] or (group['value'],))),
                      everyone['value']])
  rows = [('all', '', f'{result["images"]:,}', f'{result["patients"]:,}', format_number(everyone['value']),
           format_range(everyone['interval']), bar(everyone['value'], everyone['interval'], scale, everyone['value']))]
  rows += [(group['by'], group['group'], f'{group["images"]:,}', f'{group["patients"]:,}',
            format_number(group['value']), format_range(group['interval']),
            bar(group['value'], group['interval'], scale, everyone['value'])) for group in groups]
  axis = f'{format_number(scale[0])} to {format_number(scale[1])}'
  return Table(('by', 'group', 'images', 'patients', headline, '95 % interval', axis), rows,
               'Groups with few images have wide intervals. The thin line is the score of all images.',
               text_columns=(0, 1, 6))
