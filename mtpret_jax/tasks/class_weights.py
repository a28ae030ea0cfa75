"""Weights of classes in a loss, for classes of unequal size: the config field `loss.class_weights` of a task."""

from collections.abc import Sequence

from mtpret_jax.config.errors import ConfigError

NONE, BALANCED = 'none', 'balanced'  # the words that the field may hold; else it holds numbers from MIN to MAX
MIN, MAX = 0.001, 1000.0


def balance(counts: Sequence[int]) -> list[float]:
  """total / (classes * count) for each class, as scikit-learn's 'balanced'; 1 for a class without examples. All are at
  most MAX."""
  total = sum(counts)
  return [min(total / (len(counts) * count), MAX) if count else 1.0 for count in counts]


def weigh_positives(present: int, absent: int) -> float:
  """absent / present, which makes both classes of a finding weigh the same; 1 if either is missing."""
  return min(max(absent / present, MIN), MAX) if present and absent else 1.0


def read_weights(setting: str, names: Sequence[str]) -> list[float]:
  """The numbers that the field gives for these classes; all 1 for NONE.

  Raises:
    ConfigError: there are more or fewer numbers than classes.
  """
  if setting == NONE:
    return [1.0] * len(names)
  weights = [float(number) for number in setting.split(',')]
  if len(weights) != len(names):
    raise ConfigError(f'loss.class_weights={setting!r} has {len(weights)} numbers, but the task has {len(names)} '
                      f'classes: give one for each of {", ".join(names)}')
  return weights
