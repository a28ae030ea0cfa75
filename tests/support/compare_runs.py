"""How two finished runs differ that should agree within rounding."""

import json
import math
import pathlib

import numpy as np

TOLERANCE = 1e-5


def compare_runs(workdir: pathlib.Path, reference: pathlib.Path) -> str:
  """What differs between the last states, losses, validations and results of two runs, in words; '' if nothing does.

  Prints the largest differences of states and losses."""
  state, loss = measure_difference(workdir, reference)
  print(f'  {workdir.name}: states within {state:.1e}, losses within {loss:.1e}', flush=True)
  words = [f'states differ by {state}'] * (state > TOLERANCE) + [f'losses differ by {loss}'] * (loss > TOLERANCE)
  words += ['no results.json'] * ((reference / 'results.json').exists() and not (workdir / 'results.json').exists())
  found, expected = read_validation(workdir), read_validation(reference)
  words += [f'validation {found}, expected {expected}'] * (found.keys() != expected.keys() or not all(
    math.isclose(found[at], expected[at], rel_tol=TOLERANCE) for at in expected))
  return '; '.join(words)


def measure_difference(workdir: pathlib.Path, reference: pathlib.Path) -> tuple[float, float]:
  """The largest absolute difference of any number of the last states, and of any loss."""
  from jax import tree

  from mtpret_jax.runtime import checkpoint
  (one, _), (two, _) = checkpoint.read_state(workdir), checkpoint.read_state(reference)
  if one['step'] != two['step']:
    raise ValueError(f'step {one["step"]} in {workdir}, step {two["step"]} in {reference}')
  state = max(tree.leaves(tree.map(lambda a, b: float(np.abs(np.asarray(a, float) - b).max()), one, two)))
  losses, others = read_losses(workdir), read_losses(reference)
  return state, max(abs(losses[step] - others[step]) for step in losses | others)


def read_losses(workdir: pathlib.Path) -> dict[tuple[int, str], float]:
  """{(step, task): loss}. Raises ValueError if a step was logged twice."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = {(line['step'], line['task']): line['loss'] for line in lines}
  if len(losses) != len(lines):
    raise ValueError(f'{len(lines)} lines for {len(losses)} steps in {workdir}')
  return losses


def read_validation(workdir: pathlib.Path) -> dict[tuple[int, str], float]:
  """{(step, task): headline score}; {} if nothing was validated."""
  path = workdir / 'validation.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
  return {(line['step'], task): score['value'] for line in lines for task, score in line['tasks'].items()}
