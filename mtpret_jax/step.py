"""The train state, the learning-rate schedule, the optimiser and the compiled step."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mtpret_jax.data.task_schedule import JOINT, Plan
from mtpret_jax.objectives import Measures, Objective, Params, Weights
from mtpret_jax.runtime import backend
from mtpret_jax.runtime.sharding import all_gather, by_batch, fsdp_shardings, replicated

Schedule = Callable[[jax.Array | np.ndarray], jax.Array]  # step -> learning rate
# Tables of learning rates are padded to multiples of this many steps, so that runs of similar length share a compiled
# step.
TABLE_STEPS = 1024


@struct.dataclass
class TrainState:
  """Everything that a step changes. `params` and `carry` are plain dicts of arrays.

  Attributes:
    step: () int32, the number of steps taken.
    params: {part: weights}; the parts are `trunk` and `projector` in stage 1, `trunk` and one for each head later.
    carry: what else a step changes, without the optimiser: running statistics, key encoder, queue, anchor.
    opt: {part: the optimiser's state}.
  """

  step: jax.Array
  params: dict
  carry: dict
  opt: dict


def make_schedule(config: ConfigDict, steps: int, learning_rates: Sequence[float] = ()) -> Schedule:
  """Linear warm-up, then half a cosine from the peak to the final learning rate at `steps` (Loshchilov and Hutter
  2017). MoCo v2's code has no warm-up (`warmup=0`) and ends at 0.

  Args:
    config: `config.optimiser`.
    learning_rates: (peak, final); () takes those of `config`.
  """
  peak, final = learning_rates or (config.learning_rate, config.final_learning_rate)
  warmup = count_warmup_steps(config, steps)

  def learning_rate(step: jax.Array | np.ndarray) -> jax.Array:
    warm = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
    done = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
    return final * warm + (peak - final) * warm * 0.5 * (1 + jnp.cos(jnp.pi * done))
  return learning_rate


def count_warmup_steps(config: ConfigDict, steps: int) -> int:
  """The steps of linear warm-up among `steps`; `config` is `config.optimiser`. A share rather than a number, so that no
  short visit ends before its warm-up does."""
  return round(config.warmup * steps)


def make_visit_schedule(config: ConfigDict, plan: Plan) -> Schedule:
  """Restarts `make_schedule` at each visit of the plan, so that every visit gets the full learning rate. `config` is
  that of the run.

  We recall a cyclic cosine with a range for each task from MUSCLE: eta_t = eta_min + (eta_max - eta_min) / 2 *
  (1 + cos(2 pi t / T)). One half cosine per visit, with a warm-up, is our choice.
  """
  learning_rates = np.zeros(plan.steps, np.float32)
  curves: dict[tuple[str, int], np.ndarray] = {}  # (task, steps of the visit) -> learning rate of each step
  for visit in plan.visits:
    key = visit.task, visit.length
    if key not in curves:
      schedule = make_schedule(config.optimiser, visit.length, find_learning_rates(config, visit.task))
      curves[key] = np.asarray(schedule(np.arange(visit.length)))
    learning_rates[visit.start:visit.start + visit.length] = curves[key]
  table = np.pad(learning_rates, (0, -plan.steps % TABLE_STEPS), mode='edge')
  return jax.tree_util.Partial(look_up, table)


def look_up(learning_rates: jax.Array | np.ndarray, step: jax.Array | np.ndarray) -> jax.Array:
  return jnp.asarray(learning_rates)[step]


def find_learning_rates(config: ConfigDict, task: str) -> tuple[float, float]:
  """(peak, final) learning rate of the visits to `task`: its own or, in a joint step as well, the optimiser's."""
  own = config.tasks[task].learning_rates if task != JOINT else ()
  peak, final = own or (config.optimiser.learning_rate, config.optimiser.final_learning_rate)
  return peak, final


def make_optimiser(config: ConfigDict) -> optax.GradientTransformation:
  """Gradients -> updates, which the step multiplies by the learning rate and subtracts. `config.kind`:

  sgd     as in PyTorch: weight decay is added to the gradient, then momentum is applied. All weights decay, batch norm
          and biases included, as in the reference implementation (facebookresearch/moco main_moco.py).
  adamw   Loshchilov and Hutter 2019; `momentum` is beta 1.
  """
  if config.kind == 'adamw':
    return optax.chain(optax.scale_by_adam(b1=config.momentum), optax.add_decayed_weights(config.weight_decay))
  return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.trace(config.momentum))


def make_state(objective: Objective, optimiser: optax.GradientTransformation, rng: jax.Array,
               weights: Weights | None = None) -> TrainState:
  """The state at step 0, from `weights` if given, otherwise from random ones."""
  params, carry = objective.init(rng, weights)
  opt = {part: optimiser.init(weights) for part, weights in params.items()}
  return TrainState(jnp.int32(0), params, carry, opt)


def shape_state(objective: Objective, optimiser: optax.GradientTransformation) -> TrainState:
  """The shapes and dtypes of the state, without computing it."""
  return jax.eval_shape(functools.partial(make_state, objective, optimiser), jax.random.key(0))


def place_state(objective: Objective, optimiser: optax.GradientTransformation, mesh: Mesh,
                how: str = 'replicated') -> TrainState:
  """The sharding of each part of the state. 'replicated': a full copy on every device. 'fsdp': whatever has
  the shapes of the weights is sharded (`sharding.fsdp_shardings`)."""
  if how == 'replicated':
    everywhere: Any = replicated(mesh)  # one sharding for a whole branch
    return TrainState(step=everywhere, params=everywhere, carry=everywhere, opt=everywhere)
  return fsdp_shardings(shape_state(objective, optimiser), mesh)


def init_state(objective: Objective, optimiser: optax.GradientTransformation, mesh: Mesh, seed: int,
               weights: Weights | None = None, placement: TrainState | None = None) -> TrainState:
  """`make_state` on the devices, sharded as `placement` says (`place_state`); None is a full copy on every device."""
  # Inside jit every array gets a buffer of its own. Outside, key encoder and params would share theirs, and the first
  # step could not donate them.
  make = functools.partial(make_state, objective, optimiser)
  options = choose_options(mesh.local_devices[0], runs_once=True)
  return jax.jit(make, out_shardings=placement or replicated(mesh), compiler_options=options)(
    jax.random.key(seed), weights)


# XLA for TPUs sums at most 256 arrays in one all-reduce by default. ResNet-50 has more scales, biases and statistics
# than that, and a second all-reduce would add its latency to every step.
TPU_OPTIONS = {'xla_jf_crs_combiner_threshold_count': 1024}


@functools.cache
def choose_options(device: jax.Device, runs_once: bool = False) -> dict[str, str | int]:
  """The compiler options for `device`, which may be one of a pod that is not attached, and for a program that runs in
  every step or only once. Leaves out options that this version of XLA does not know."""
  options = TPU_OPTIONS if device.platform == 'tpu' and not runs_once else {}  # the initial state has no all-reduce
  if device.platform == 'cpu':
    choose = backend.find('compiler_options', lambda **_: {})
    options = choose(runs_once=True) if runs_once else choose()
  return {name: value for name, value in options.items() if is_known({name: value}, device)}


def is_known(option: Mapping[str, str | int], device: jax.Device) -> bool:
  """Whether XLA accepts this compiler option. It offers no list, so this compiles an empty program."""
  sharding = jax.sharding.SingleDeviceSharding(device)
  try:
    jax.jit(lambda: 0, out_shardings=sharding, compiler_options=dict(option)).lower().compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """step(state, batch) -> (state, measures). The seed and the table of learning rates are arguments of the jitted
  function: as constants, they would make a different program for every run, and no cache could help."""

  jitted: Callable
  constants: tuple

  def __call__(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, dict[str, jax.Array]]:
    return self.jitted(state, batch, *self.constants)

  def lower(self, state: TrainState, batch: dict[str, jax.Array]) -> Any:
    """As `jax.jit(...).lower`."""
    return self.jitted.lower(state, batch, *self.constants)  # type: ignore[attr-defined]


def compile_step(objective: Objective, optimiser: optax.GradientTransformation, schedule: Schedule, task: str,
                 mesh: Mesh, seed: int, guard: Callable | None = None, placement: TrainState | None = None,
                 clip: float = 0.0) -> CompiledStep:
  """step(state, batch) -> (state, measures) for batches of `task`; jax compiles it at the first call.

  The old state is donated: its memory holds the new one, so do not use it after the call.

  Args:
    schedule: step -> learning rate.
    seed: of the random numbers in a step. They depend only on the seed and on the step number, so that an interrupted
      run resumes bit for bit.
    guard: guard(old state, new state, measures) -> the state to keep (`runtime/loss_guard.py`).
    placement: shardings of the state, from `place_state`; None is a full copy on every device.
    clip: gradients of a larger norm, over all parts that the task trains, are scaled down to it; 0 leaves them alone.
  """
  live = objective.parts[task]
  placement = placement or place_state(objective, optimiser, mesh)

  @functools.partial(jax.jit, donate_argnums=0,
                     in_shardings=(placement, by_batch(mesh), replicated(mesh), replicated(mesh)),
                     out_shardings=(placement, replicated(mesh)),
                     compiler_options=choose_options(mesh.local_devices[0]))
  def step(state: TrainState, batch: dict[str, jax.Array], seed: jax.Array,
           schedule: Schedule) -> tuple[TrainState, dict[str, jax.Array]]:
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    # Only the parts that the task uses get gradients and updates. A zero gradient would not leave the others alone:
    # momentum and weight decay would still move them.
    trained = {part: state.params[part] for part in live}
    frozen = {part: weights for part, weights in state.params.items() if part not in live}
    carry = all_gather(state.carry, placement.carry)  # does nothing unless the state is sharded

    def compute_loss(trained: dict) -> tuple[jax.Array, tuple]:
      params = all_gather(frozen | trained, placement.params)
      return objective.loss(task, params, carry, batch, state.step, rng)

    # With the mesh set, a model can run an operation on each device separately (shard_map). XLA inserts the all-reduce
    # of the gradients.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      (_, (carry, measures)), grads = jax.value_and_grad(compute_loss, has_aux=True)(trained)

    grads, ratio = add_pull(grads, objective.pull(trained, carry))

    # Measured before clipping, so that the log shows how often a gradient is clipped.
    norm = optax.global_norm(grads)
    if clip:
      # Here and not in the optimiser, which sees one part at a time: a norm per part would change the direction.
      grads, _ = optax.clip_by_global_norm(clip).update(grads, optax.EmptyState())

    params, opt, learning_rate = dict(state.params), dict(state.opt), schedule(state.step)
    for part in live:
      updates, opt[part] = optimiser.update(grads[part], state.opt[part], trained[part])
      params[part] = descend(trained[part], updates, learning_rate * objective.learning_rate_scales.get(part, 1.0))
    if objective.average:
      # The state's own average: with a sharded state, the one in `carry` is a gathered copy, which nothing needs.
      carry = objective.average(task, params, carry | {'average': state.carry['average']})
    measures = measures | ratio | {'gradient': norm, 'learning_rate': learning_rate}
    new = TrainState(state.step + 1, params, carry, opt)
    return (guard(state, new, measures) if guard else new), measures

  as_tree = schedule if isinstance(schedule, jax.tree_util.Partial) else jax.tree_util.Partial(schedule)
  return CompiledStep(step, (np.int32(seed), as_tree))


def descend(params: Params, updates: Params, learning_rate: jax.Array) -> Params:
  return jax.tree.map(lambda weight, update: weight - learning_rate * update, params, updates)


def add_pull(grads: Params, pull: Params) -> tuple[Params, Measures]:
  """The loss's gradients plus the pull of a penalty (`Objective.pull`), and the measure of how much the pull matters.

  `pull_ratio` is |pull| / |gradient of the loss|, over the parts that are pulled. Far below 1, the penalty hardly
  changes a step. It is 0 where the loss has no gradient, as in a batch without labels: a huge number would spoil the
  means of the log.
  """
  if not pull:
    return grads, {}
  pull_norm, loss_norm = optax.global_norm(pull), optax.global_norm({part: grads[part] for part in pull})
  ratio = jnp.where(loss_norm > 0, pull_norm / loss_norm, 0.0)
  return grads | {part: jax.tree.map(jnp.add, grads[part], pull[part]) for part in pull}, {'pull_ratio': ratio}
