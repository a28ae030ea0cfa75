"""The page of stage 2: the score of each task after each round, what was forgotten, and the memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtpret_jax.evaluation.rounds import compute_forgetting
from mtpret_jax.report.blocks import Block, Page, Plots, Table, Words
from mtpret_jax.report.pages.about import make_config_blocks, make_facts, uses_phantoms
from mtpret_jax.report.pages.guard import attempt, make_sections
from mtpret_jax.report.pages.pictures import make_picture_blocks
from mtpret_jax.report.pages.training import make_training_blocks, make_validation_blocks
from mtpret_jax.report.plots.lines import Line, draw_lines
from mtpret_jax.report.run_files import ROUNDS, RunFiles
from mtpret_jax.report.words import describe_forgetting, explain_score, format_change, format_number, say_count

ORDERS = {'cyclic': 'the same order in every round', 'cyclic_reshuffled': 'a new random order in every round',
          'sequential': 'all visits to a task in a row', 'joint': 'all tasks in every step'}
MEMORY = {'drift': ('Drift of the trunk', 'distance from the anchor',
                    'How far a visit moved the trunk from where it was pulled to.'),
          'pull_ratio': ('Strength of the memory', 'pull / gradient',
                         'How strong the pull toward the anchor was, compared with the gradient of the loss.')}


def make_page(run: RunFiles) -> Page:
  rounds = run.read_json(ROUNDS)
  if not rounds:
    run.problems.append(f'{ROUNDS} is not there yet: the run has not finished, so the rounds are missing.')
  sections = make_sections(
    run, ('Score of each task by round', lambda run: [
      *make_round_blocks(rounds), *attempt(run, 'Validation scores', lambda: list(make_validation_blocks(run)), [])]),
    ('What was run', lambda run: [make_facts(run, *list_more_facts(run))]),
    ('Cross-task memory', lambda run: make_memory_blocks(rounds)),
    ('Pictures', make_picture_blocks), ('Training', make_training_blocks), ('Config', make_config_blocks))
  tasks = ', '.join(run.config.get('tasks') or rounds.get('tasks') or ())
  return Page(f'Continual learning: {tasks}', f'Stage 2{"" if rounds else ", not finished"}: {run.folder}', sections,
              run.problems, uses_phantoms(run.config))


def list_more_facts(run: RunFiles) -> Iterator[tuple[str, str]]:
  config = run.config
  if config:
    yield 'Tasks', ', '.join(config['tasks'])
    yield 'Visits', f'{say_count(config["rounds"], "round")}, {ORDERS.get(config["order"], config["order"])}'
    memory = config['memory']
    yield 'Memory', 'none' if memory['anchor'] == 'none' else (
      f'L2-SP {memory["l2_sp"]:g} toward the weights of the {memory["anchor"].replace("_", " ")}')


def make_round_blocks(rounds: Mapping[str, Any]) -> Iterator[Block]:
  """A row for each task: its validation score after each round, and whether it forgot or improved."""
  if not rounds:
    return
  lines, order = rounds['rounds'], rounds['order']
  measured = rounds['tasks'] or compute_forgetting(lines, list(lines[-1]['tasks']), order)
  several = len(lines) > 1  # after one round, nothing can have been forgotten
  table = []
  for name, changes in measured.items():
    scores = [line['tasks'][name] for line in lines]
    row = [name, scores[-1]['headline'], *(format_number(score['value']) for score in scores)]
    table.append([*row, describe_forgetting(changes['forgetting']), format_transfer(changes['transfer'])]
                 if several else row)
  yield Table(('task', 'score', *(f'step {line["step"]:,}' for line in lines),
               *(('since its best round', 'since its first round') if several else ())), table,
              'Validation scores. The test splits are left for stage 3.', text_columns=(0, 1))
  yield Words(list_explanations(lines, order), tone='muted')


def list_explanations(lines: Sequence[Mapping[str, Any]], order: str) -> list[str]:
  words = [] if len(lines) < 2 else [
    '"Forgot 0.012" means that the last score is 0.012 worse than the best one of an earlier round. "Improved '
    'by 0.286" means that the task ended better than in any earlier round. The papers call these a forgetting '
    'of 0.012 and of -0.286. Their backward transfer is the change since the first round; + is better.']
  if order == 'sequential':
    words.append('A task counts from its own visit on; before it, its head is untrained.')
  scores = dict.fromkeys(score['headline'] for score in lines[-1]['tasks'].values())
  return words + [f'{name}: {explain_score(name)}.' for name in scores if explain_score(name)]


def format_transfer(value: float | None) -> str:
  return 'not known' if value is None else format_change(value)


def make_memory_blocks(rounds: Mapping[str, Any]) -> Iterator[Block]:
  """Drift and pull of each task's visits, round by round."""
  memory = rounds.get('memory') or {}
  if not memory:
    return
  steps = [line['step'] for line in rounds['rounds']]
  plots = []
  for measure, (title, label, caption) in MEMORY.items():
    curves = {task: Line(steps[:len(visits)], [visit[measure] for visit in visits]) for task, visits in memory.items()}
    plots.append(draw_lines(curves, title, 'step at the end of the round', label, caption=caption, markers=True))
  yield Plots(plots)
