"""What a batch costs and what it changes.

An objective is a record of three things:
`init(rng, trunk=None) -> params, carry`, from the (params, stats) of a trunk where one is given;
`loss(task, params, carry, batch, step, rng) -> loss, (carry, measures)`;
`parts[task]`: the parts of `params` which that task moves.
"""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Objective:
  init: Callable
  loss: Callable
  parts: Mapping[str, tuple[str, ...]]
