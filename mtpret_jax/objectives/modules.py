"""Flax modules as pure functions: the static half of each module apart from its arrays.

Params and running statistics are plain dicts of arrays, so checkpoints and shardings need not know Flax.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from mtpret_jax.objectives import Params

Build = Callable[[jax.Array], Mapping[str, Any]]  # rng -> {part: module with random weights}
Graphs = Mapping[str, nnx.GraphDef]  # the static half of each part


def split_graphs(build: Build) -> Graphs:
  """The static half of each module, from shapes alone."""
  return {name: nnx.split(module)[0] for name, module in nnx.eval_shape(lambda: build(jax.random.key(0))).items()}


def split_weights(modules: Mapping[str, Any]) -> tuple[Params, dict[str, Any]]:
  """(params, running statistics) of all modules, each as {part: nested dict of arrays}."""
  params, stats = {}, {}
  for name, module in modules.items():
    # Raises an error for a module with arrays of any other type, which would be lost.
    params[name], stats[name] = map(nnx.to_pure_dict, nnx.split(module, nnx.Param, nnx.BatchStat)[1:])
  return params, stats


def take_stats(module: Any) -> dict[str, Any]:
  """The running statistics of a module, as updated by its call."""
  return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
