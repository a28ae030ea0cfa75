"""Stage 2: how the score of each task changes from round to round."""

from collections.abc import Mapping, Sequence
from typing import Any


def compute_forgetting(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
  """Forgetting and backward transfer of each task, from the lines of `validation.jsonl`, one per round.

  After Lopez-Paz and Ranzato 2017, who compare with the score right after a task's only visit; here every round visits
  every task. The scores are negated where lower is better, so more forgetting is always worse and more transfer better.

  Returns:
    {task: {'forgetting': the best earlier score minus the last, 'transfer': the last score minus the first}}; None
    with a single round or an undefined score.
  """
  measured = {}
  for name in lines[0]['tasks']:
    scores = [score['sign'] * score['value'] for line in lines if (score := line['tasks'][name])['value'] is not None]
    defined = len(scores) == len(lines) > 1
    measured[name] = {'forgetting': max(scores[:-1]) - scores[-1] if defined else None,
                      'transfer': scores[-1] - scores[0] if defined else None}
  return measured
