"""Bootstrap intervals without width, such as 1.000 to 1.000: a bootstrap never draws what was not seen, so they do not
show how uncertain a score is."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_LISTED = 5


def is_flat(interval: Sequence[float] | None) -> bool:
  return interval is not None and interval[0] == interval[1]


def note_flat(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A sentence for each task with such intervals. `results`: {task: what `score` returns}."""
  return [f'task {name}: every resample of the {result["patients"]:,} patients gives the same {flat}, so these '
          f'intervals have no width. That does not mean that the scores are certain'
          for name, result in results.items() if (flat := list_flat(result))]


def list_flat(result: Mapping[str, Any]) -> str:
  """'AUC, accuracy; AUC in 2 subgroups': the scores whose intervals have no width; '' if there are none."""
  names = [name for name, score in result['scores'].items() if is_flat(score['interval'])]
  groups = sum(is_flat(group['interval']) for group in result['groups'])
  rest = f' and {len(names) - MAX_LISTED} more' if len(names) > MAX_LISTED else ''
  parts = [', '.join(names[:MAX_LISTED]) + rest] if names else []
  return '; '.join([*parts, f'{result["headline"]} in {groups} subgroup{"s" * (groups > 1)}'] if groups else parts)
