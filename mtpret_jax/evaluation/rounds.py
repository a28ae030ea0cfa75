"""Stage 2: how the score of each task changes from round to round, and how strong the memory's pull was."""

from collections.abc import Mapping, Sequence
from typing import Any


def compute_forgetting(lines: Sequence[Mapping[str, Any]], tasks: Sequence[str],
                       order: str) -> dict[str, dict[str, float | None]]:
  """Forgetting and backward transfer of each task.

  Follows Lopez-Paz and Ranzato 2017, who compare with the score right after a task's only visit. In the order
  `sequential`, this is the first score that counts: before it the head of the task is untrained. In the other orders
  every round visits every task, and all rounds count. Scores are negated where lower is better, so more forgetting is
  always worse and more transfer better.

  Args:
    lines: the lines of `validation.jsonl`, one per round.
    tasks: the tasks in the order of the config, which is the order of the visits if `order` is `sequential`.
    order: the config's order of the visits.

  Returns:
    {task: {'forgetting': the best earlier score minus the last, 'transfer': the last score minus the first}}; None
    if fewer than two rounds count or one of their scores is undefined, and in the order `sequential` unless there is a
    line for each task: only then is it known after which visit a line was written.
  """
  measured: dict[str, dict[str, float | None]] = {}
  for index, name in enumerate(tasks):
    counted = lines
    if order == 'sequential':
      counted = lines[index:] if len(lines) == len(tasks) else []
    scores = [score['sign'] * score['value'] for line in counted
              if (score := line['tasks'][name])['value'] is not None]
    defined = len(scores) == len(counted) > 1
    measured[name] = {'forgetting': max(scores[:-1]) - scores[-1] if defined else None,
                      'transfer': scores[-1] - scores[0] if defined else None}
  return measured


def compute_forgetting_by_round(lines: Sequence[Mapping[str, Any]], tasks: Sequence[str],
                                order: str) -> dict[str, list[float | None]]:
  """{task: after each round, its best earlier score minus the present one}, as `compute_forgetting` counts for the last
  round. In the order `sequential` a line belongs to the visit of one task.

  None before a second score counts, where one of the scores is undefined, and where `compute_forgetting` has None
  because visits have no line.
  """
  if order == 'sequential' and len(lines) != len(tasks):
    return {name: [None] * len(lines) for name in tasks}
  forgetting: dict[str, list[float | None]] = {}
  for index, name in enumerate(tasks):
    first = index if order == 'sequential' else 0
    scores = [line['tasks'][name]['sign'] * line['tasks'][name]['value']
              if line['tasks'][name]['value'] is not None else None for line in lines]
    forgetting[name] = []
    for end, score in enumerate(scores):
      earlier = [value for value in scores[first:end] if value is not None]
      defined = score is not None and earlier and len(earlier) == end - first
      forgetting[name].append(max(earlier) - score if defined and score is not None else None)
  return forgetting


def summarise_memory(metrics: Sequence[Mapping[str, Any]],
                     round_ends: Sequence[int]) -> dict[str, list[dict[str, float | None]]]:
  """How far each task's visits moved the trunk from its anchor, and how strong the pull back was.

  A line of the log has the means over a few steps (`log_every`). It counts for the round in which it was written, so a
  line that spans the end of a round counts for the next one.

  Args:
    metrics: the lines of `metrics.jsonl`.
    round_ends: for each round, the number of steps taken when it was over.

  Returns:
    {task: for each round {'drift': in the last line, 'pull_ratio': the mean over all lines}}, None where a round has no
    line of the task. The task of a joint step is 'joint'. {} for a run without memory.
  """
  metrics = [line for line in metrics if 'drift' in line]
  summary: dict[str, list[dict[str, float | None]]] = {line['task']: [] for line in metrics}
  for start, end in zip([0, *round_ends], round_ends, strict=False):
    for task, rounds in summary.items():
      lines = [line for line in metrics if line['task'] == task and start < line['step'] <= end]
      # A run that freezes the trunk has a drift of 0 and no pull.
      ratios = [line.get('pull_ratio', 0.0) for line in lines]
      rounds.append({'drift': lines[-1]['drift'] if lines else None,
                     'pull_ratio': sum(ratios) / len(ratios) if ratios else None})
  return summary
