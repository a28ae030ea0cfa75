"""TrainState: everything that a run must remember. What is not in it can be computed from `step` and the config."""

import jax
from flax import struct


@struct.dataclass
class TrainState:
  """`params` and `opt` are keyed by part (`trunk`, one per head); `carry` is what changes each step but the optimiser
  does not own: running statistics, slow encoder, queue. Plain dicts of arrays throughout."""

  step: jax.Array  # () int32, the number of steps taken
  params: dict
  carry: dict
  opt: dict
