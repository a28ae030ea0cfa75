"""Averaged weights (`optimiser.ema`): predictions and later stages use them instead of the last step's weights."""

from typing import Any


def use_average(params: dict[str, Any], carry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """(params, carry) with the average of weights and running statistics in their place, if the carry has one. The carry
  that is returned has none."""
  if 'average' not in carry:
    return params, carry
  average = carry['average']
  return average['params'], {name: branch for name, branch in carry.items() if name != 'average'} | {
    'stats': average['stats']}
