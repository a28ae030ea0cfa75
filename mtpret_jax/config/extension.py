"""Which fields make a run longer. With `extend=True` a run may resume with larger values of these, but of no others."""

from collections.abc import Mapping
from typing import Any

from mtpret_jax.config.rules import is_number

VISIT = ('steps', 'epochs', 'min_steps')  # fields of a task that set the length of its visits


def list_lengths(fields: Mapping[str, Any]) -> list[str]:
  """The fields of a run that may grow. `fields`: its flat config, as in a fingerprint.

  More rounds leave the earlier ones as they are, except in the order `sequential`, which has no rounds in this sense. A
  longer visit is possible only where it is the only one: otherwise it would move the later visits.
  """
  if fields.get('objective') == 'moco':
    return ['steps']
  tasks = fields.get('tasks', ())
  names = [] if fields.get('order') == 'sequential' else ['rounds']
  return names + ([f'tasks.{tasks[0]}.{field}' for field in VISIT]
                  if len(tasks) == 1 and fields.get('rounds') == 1 else [])


def find_growth(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
  """{field: (before, now)} of the fields that have grown and may do so. `before` and `now` are fingerprints."""
  values: dict[str, tuple[Any, Any]] = {field: (before.get(field), now.get(field)) for field in list_lengths(now)}
  # Steps of 0 stand for epochs, so that a change from 0 does not say that the run gets longer.
  return {field: (old, new) for field, (old, new) in values.items()
          if is_number(old) and is_number(new) and 0 < old < new}


def describe_growth(growth: Mapping[str, tuple[float, float]], step: int) -> str:
  """What changes in a run that goes on at `step`."""
  changes = ', '.join(f'{field} from {old:g} to {new:g}' for field, (old, new) in growth.items())
  if growth.keys() == {'rounds'}:
    return (f'the run is extended: {changes}. The visits before are the same, so the result is that of a run with this '
            f'many rounds from the start')
  return (f'the run is extended: {changes}. From step {step} on, the learning rate follows the schedule of the new '
          f'length, so the result is not that of a run of this length from the start')
