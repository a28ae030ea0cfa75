"""An objective: the loss of a batch, and what a step changes besides the weights.

    moco.py       stage 1: MD-MoCo
    multitask.py  stages 2 and 3: one trunk, a head per task, cross-task memory
    modules.py    what both share: Flax modules as pure functions

`step.py` differentiates the loss, applies the optimiser and compiles both into one step per task.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

Params = dict[str, Any]  # {part: nested dict of arrays}; parts are 'trunk' and one per head
Carry = dict[str, Any]  # state that is not learned by gradient: running statistics, key encoder, queue, anchor
Batch = Mapping[str, jax.Array]  # every array has the leading axis B
Measures = dict[str, jax.Array]  # scalars for the log; has 'loss'
Trunk = tuple[dict[str, Any], dict[str, Any]]  # (params, running statistics) of a trunk
# {part: the same of a part} to start from. What is not in it starts at random: parts, or arrays of a part.
Weights = Mapping[str, Trunk]


def apply_no_pull(params: Params, carry: Carry) -> Params:
  """The `pull` of an objective whose loss has no penalty on the weights."""
  return {}


@dataclasses.dataclass(frozen=True)
class Objective:
  """What `step.py` needs to know about a stage.

  Attributes:
    init: (rng, weights=None) -> (params, carry), with the `Weights` that are given.
    loss: (task, params, carry, batch, step, rng) -> (loss, (carry, measures)). A pure function. `rng` is new in each
      step; the returned carry is the input of the next step.
    parts: {task: the parts of `params` that a step on this task updates}.
    pull: (params, carry) -> {part: gradient of a penalty on the weights of this part}. The step adds it to the gradient
      of the loss, which leaves the penalty out. It is apart because its size beside that of the loss's gradient shows
      whether the penalty matters. `carry` is the one that the loss returns; parts without a penalty are left out.
    learning_rate_scales: {part: its learning rate, as a share of the schedule's}; 1 for parts that are left out.
    average: (task, params after the step, carry) -> carry with a new `average` of the weights; None without one.
  """

  init: Callable[..., tuple[Params, Carry]]
  loss: Callable[..., tuple[jax.Array, tuple[Carry, Measures]]]
  parts: Mapping[str, tuple[str, ...]]
  pull: Callable[[Params, Carry], Params] = apply_no_pull
  learning_rate_scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
  average: Callable[[str, Params, Carry], Carry] | None = None
