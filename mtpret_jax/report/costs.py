"""What a step of a run costs, from shapes alone: parameters, arithmetic and memory. Nothing is compiled or run."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.report.abstract_run import AbstractRun, make_abstract_run
from mtpret_jax.runtime import backend
from mtpret_jax.step import make_optimiser, shape_state

UNSEEN = ('steps', 'epochs', 'min_steps', 'max_steps', 'learning_rates', 'external', 'negatives', 'among')


@dataclasses.dataclass(frozen=True)
class StepCost:
  """FLOPs of a step, and bytes that the loss keeps for its gradient. The compiler may keep fewer."""

  flops: float
  activations: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """Attributes:
    parameters: {part: number}.
    state: bytes of the train state, which are those of a checkpoint.
    best: bytes of the state without the optimiser's.
    gradients: bytes of the largest gradient.
    steps: {task: `StepCost`}.
  """

  parameters: Mapping[str, int]
  state: int
  best: int
  gradients: int
  steps: Mapping[str, StepCost]


def measure(config: ConfigDict) -> Cost:
  """Raises ConfigError if the labels of a dataset are not known before it is prepared."""
  run = make_abstract_run(config)
  state = shape_state(run.objective, make_optimiser(config.optimiser))
  with backend.default_implementations():  # those for CPUs have other arithmetic
    steps = {task: measure_task(config, run, state, task) for task in run.batches}
  weights = {part: count_bytes(tree) for part, tree in state.params.items()}
  return Cost(
    parameters={part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
                for part, tree in state.params.items()},
    state=count_bytes(state),
    best=count_bytes(state) - count_bytes(state.opt),
    gradients=max(sum(weights[part] for part in parts) for parts in run.objective.parts.values()),
    steps=steps)


def measure_task(config: ConfigDict, run: AbstractRun, state: Any, task: str) -> StepCost:
  """The cost of a step on `task`. The stages of a recipe have the same ones, and tracing a step takes seconds."""
  if config.objective == 'moco' or task == JOINT:
    return trace(run, state, task)
  fields = {name: value for name, value in config.tasks[task].to_dict().items() if name not in UNSEEN}
  key = json.dumps([task, config.trunk, config.dtype, config.train, config.statistics, fields], default=str)
  if key not in traced:
    traced[key] = trace(run, state, task)
  return traced[key]


traced: dict[str, StepCost] = {}


def trace(run: AbstractRun, state: Any, task: str) -> StepCost:
  live = run.objective.parts[task]

  def compute(trained: dict, frozen: dict, carry: dict, batch: dict, step: jax.Array, seed: jax.Array) -> Any:
    loss = functools.partial(run.objective.loss, task)
    value, pull_back = jax.vjp(lambda own: loss(frozen | own, carry, batch, step, jax.random.key(seed))[0], trained)
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    return kept, pull_back(jax.numpy.ones_like(value))
  number = jax.ShapeDtypeStruct((), np.int32)
  arguments = ({part: state.params[part] for part in live},
               {part: weights for part, weights in state.params.items() if part not in live}, state.carry,
               run.batches[task], number, number)
  jaxpr, (kept, _) = jax.make_jaxpr(compute, return_shape=True)(*arguments)
  variables = {id(variable): shape for variable, shape in zip(jaxpr.jaxpr.outvars[:len(kept)], kept, strict=True)}
  for variable in jaxpr.jaxpr.invars:
    variables.pop(id(variable), None)  # the weights and the batch are in memory anyway
  return StepCost(count_flops(jaxpr.jaxpr), count_bytes(list(variables.values())))


def count_bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count_flops(jaxpr: Any) -> float:
  """Of the convolutions and matrix products, a multiplication and an addition as two. Operations whose results are not
  used do not count: the compiler drops them."""
  total, used = 0.0, set(map(id, jaxpr.outvars))
  for equation in reversed(jaxpr.eqns):
    if not used.intersection(map(id, equation.outvars)):
      continue
    used.update(map(id, equation.invars))
    total += count_own_flops(equation)
    total += equation.params.get('length', 1) * sum(map(count_flops, list_inner(equation.params)))
  return total


def count_own_flops(equation: Any) -> float:
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    sides = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(sides[axis] for axis in contracted)
  if equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    out_features = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
    # In the gradient of a strided convolution, the pixels between the strides are zeros that are not multiplied.
    zeros = math.prod(equation.params['lhs_dilation'])
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / out_features / zeros
  return 0.0


def list_inner(params: Mapping[str, Any]) -> Iterator[Any]:
  """The jaxprs inside an operation, such as a loop or a jitted function."""
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      inner = getattr(item, 'jaxpr', item)
      if hasattr(inner, 'eqns'):
        yield inner
