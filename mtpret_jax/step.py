"""The train state, the optimiser and its learning rate, and the step: compiled once per task, donated, sharded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from mtpret_jax.cpu import devices
from mtpret_jax.runtime.sharding import all_gather, by_batch, fsdp_shardings, replicated


@struct.dataclass
class TrainState:
  """`params` and `opt` are keyed by part (`trunk`, one per head); `carry` is what changes each step but the optimiser
  does not own: running statistics, slow encoder, queue. Plain dicts of arrays throughout."""

  step: jax.Array  # () int32, the number of steps taken
  params: dict
  carry: dict
  opt: dict


def make_schedule(config, steps):
  """step -> learning rate: linear warm-up over `warmup_steps`, then a half cosine to zero at `steps` (Loshchilov and
  Hutter 2017). MoCo v2's code has no warm-up: `warmup_steps=0`."""
  def rate(step):
    warm = jnp.minimum((step + 1) / max(config.warmup_steps, 1), 1.0)
    done = jnp.clip((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 0.0, 1.0)
    return config.learning_rate * warm * 0.5 * (1 + jnp.cos(jnp.pi * done))
  return rate


def make_visit_schedule(config, plan):
  """step -> learning rate: `make_schedule` anew in each visit of the plan, so that every task starts at the full rate.
  The papers' "cyclic" rate is known by recollection only; one half cosine a visit is our reading."""
  rates = np.zeros(plan.steps, np.float32)
  for length in {visit.length for visit in plan.visits}:
    curve = np.asarray(make_schedule(config, length)(np.arange(length)))
    for visit in plan.visits:
      if visit.length == length:
        rates[visit.start:visit.start + length] = curve
  return lambda step: jnp.asarray(rates)[step]


def make_optimiser(config):
  """Gradients -> updates that are yet to be multiplied by the rate and subtracted, `config.kind`:

  sgd     as PyTorch computes it: decay added to the gradient, then momentum. Decay is on everything, batch norm and
          biases included, as in the reference implementation (facebookresearch/moco main_moco.py).
  adamw   Loshchilov and Hutter 2019; `momentum` is the first moment's.
  """
  if config.kind == 'adamw':
    return optax.chain(optax.scale_by_adam(b1=config.momentum), optax.add_decayed_weights(config.weight_decay))
  return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.trace(config.momentum))


# For XLA, by platform. On CPUs its library YNNPACK takes every convolution unless told which operations to take; for
# products and sums it is the fastest there, for convolutions and above all for their kernel gradients it is not. On
# TPUs one all-reduce takes 256 arrays unless told otherwise, fewer than ResNet-50 has scales, biases and statistics.
COMPILER_OPTIONS = {
  'cpu': {'xla_cpu_experimental_ynn_fusion_type': ','.join(
    f'LIBRARY_FUSION_TYPE_{kind}' for kind in ('DOT', 'INDIVIDUAL_DOT', 'REDUCE'))},
  'tpu': {'xla_jf_crs_combiner_threshold_count': 1024}}
# Of a CPU whose cores are devices: an order of operations in which many could run at once only takes memory there.
ONE_CORE = {'xla_cpu_multi_thread_eigen': False, 'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


@functools.cache
def choose_options(device):
  """What XLA is told for devices like this one of our process, or of a pod that is not here, as far as this compiler
  knows the options (that of jaxlib 0.7 does not know all)."""
  options = COMPILER_OPTIONS.get(device.platform, {})
  if device.platform == 'cpu' and devices.are_devices():
    options = options | ONE_CORE
  return {name: value for name, value in options.items() if is_known({name: value}, device)}


def is_known(option, device):
  place = jax.sharding.SingleDeviceSharding(device)
  try:
    jax.jit(lambda: 0, out_shardings=place, compiler_options=option).lower().compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True


def place_state(objective, optimiser, mesh, how='replicated'):
  """A TrainState of shardings: 'replicated' is all on every device, 'fsdp' a piece of it (`sharding.fsdp_shardings`)."""
  if how == 'replicated':
    return TrainState(*[replicated(mesh)] * 4)
  return fsdp_shardings(shape_state(objective, optimiser), mesh)


def init_state(objective, optimiser, mesh, seed, trunk=None, placement=None):
  """The state at step 0, made inside `jit`: nothing in it aliases, so that it can be donated. `trunk`: the (params,
  stats) to start from, or None for random ones. `placement`: of `place_state`; None is all on every device."""
  make = functools.partial(make_state, objective, optimiser)
  return jax.jit(make, out_shardings=placement or replicated(mesh))(jax.random.key(seed), trunk)


def make_state(objective, optimiser, rng, trunk=None):
  params, carry = objective.init(rng, trunk)
  opt = {part: optimiser.init(weights) for part, weights in params.items()}
  return TrainState(jnp.int32(0), params, carry, opt)


def shape_state(objective, optimiser):
  """The state's shapes, without its numbers."""
  return jax.eval_shape(functools.partial(make_state, objective, optimiser), jax.random.key(0))


def compile_step(objective, optimiser, schedule, task, mesh, seed, guard=None, placement=None):
  """(state, batch) -> (state, measures), at the rate that `schedule` has for the step. Only the parts that `task` moves
  are differentiated and updated, so that neither momentum nor weight decay drifts a part which saw no data. The old
  state's memory is reused. `guard(old, new, measures)` returns the state to keep
  (`runtime/loss_guard.py`). `placement` as above."""
  live = objective.parts[task]
  placement = placement or place_state(objective, optimiser, mesh)

  @functools.partial(jax.jit, donate_argnums=0, in_shardings=(placement, by_batch(mesh)),
                     out_shardings=(placement, replicated(mesh)),
                     compiler_options=choose_options(mesh.local_devices[0]))
  def step(state, batch):
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    resting = {part: weights for part, weights in state.params.items() if part not in live}
    carry = all_gather(state.carry, placement.carry)

    def compute_loss(moving):
      return objective.loss(task, all_gather(resting | moving, placement.params), carry, batch, state.step, rng)

    moving = {part: state.params[part] for part in live}
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      (_, (carry, measures)), grads = jax.value_and_grad(compute_loss, has_aux=True)(moving)
    params, opt, learning_rate = dict(state.params), dict(state.opt), schedule(state.step)
    for part in live:
      updates, opt[part] = optimiser.update(grads[part], state.opt[part], moving[part])
      params[part] = jax.tree.map(lambda weight, update: weight - learning_rate * update, moving[part], updates)
    measures = measures | {'gradient': optax.global_norm(grads), 'learning_rate': learning_rate}
    new = TrainState(state.step + 1, params, carry, opt)
    return (guard(state, new, measures) if guard else new), measures

  return step
