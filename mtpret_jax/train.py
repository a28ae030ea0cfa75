"""The one loop of all stages: evaluate, save, draw, step, log."""

import contextlib
import logging
import time

import jax

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data import pipeline
from mtpret_jax.evaluation.validation import make_watch
from mtpret_jax.runtime import checkpoint, distributed, preemption, watchdog
from mtpret_jax.runtime.initial_weights import read_initial_weights
from mtpret_jax.runtime.logging import open_log
from mtpret_jax.runtime.loss_guard import Diverged, make_guard, make_step_check
from mtpret_jax.runtime.sharding import gather_state, make_mesh, place_batch
from mtpret_jax.step import compile_step, init_state, make_optimiser, place_state

log = logging.getLogger(__name__)


def train(run, config, workdir):
  """Takes the steps of a `stages.Run`, from the newest checkpoint in `workdir` if there is one. Returns the last state.

  Raises `loss_guard.Diverged`, `checkpoint.SaveFailed`, and `preemption.Stopped` where it is asked to stop."""
  mesh = make_mesh()
  mark = pipeline.fingerprint(run.sources, config)
  objective, guard = run.objective, make_guard(config)
  optimiser = make_optimiser(config.optimiser)
  placement = place_state(objective, optimiser, mesh, config.sharding)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.open_checkpoints(workdir, config.keep, retries=config.save_retries))
    state = checkpoint.restore(
      checkpoints, init_state(objective, optimiser, mesh, config.seed, read_initial_weights(config), placement), mark)
    start = int(state.step)
    watch = make_watch(config, workdir, start)
    if start:
      log.info('resumed from step %d of %d', start, run.steps)
    check_step = make_step_check(config, workdir, run.name_images, lambda: checkpoint.describe_latest(checkpoints))
    steps = {}
    feed = stack.enter_context(pipeline.stream(run.batches, start, config.data))
    show = stack.enter_context(open_log(workdir, start, run.steps, config))
    stack.enter_context(distributed.exit_on_error((ConfigError, Diverged, checkpoint.SaveFailed)))
    pending = None  # the measures of the last step, not yet read: reading them would wait for the device

    for step in range(start, run.steps):
      stops = preemption.should_stop(step)
      if stops or step > start and (step % config.save_every == 0 or step in run.evaluation_steps
                                    or checkpoint.save_has_failed(checkpoints)):
        pending = flush(pending, check_step, show)
        checkpoint.save(checkpoints, state, step, mark, wait=stops)
      if stops:
        raise preemption.Stopped(preemption.describe_stop(step, run.steps))
      if step in run.evaluation_steps:
        with preemption.interruptible():
          watch(gather_state(state), step)
      began = time.perf_counter()
      with watchdog.time_limit(f'the batch of step {step}'):
        task, batch = next(feed)
      batch = place_batch(batch, mesh)
      waited = 0.0 if is_busy(pending) else time.perf_counter() - began
      if task not in steps:
        steps[task] = compile_step(
          objective, optimiser, run.schedule, task, mesh, config.seed, guard, placement)
        state, measures = jax.block_until_ready(steps[task](state, batch))  # compiles; other hosts may take longer
      else:
        with watchdog.time_limit(f'step {step}'):
          state, measures = steps[task](state, batch)
      if step == start:
        stack.enter_context(preemption.defer_signals())  # from here on there is something to save
      flush(pending, check_step, show)
      pending = step, measures | {'waited': waited}, task

    flush(pending, check_step, show)
    checkpoint.save(checkpoints, state, run.steps, mark, wait=True)
    if run.steps in run.evaluation_steps:
      with preemption.interruptible():
        watch(gather_state(state), run.steps)
    log.info('the last checkpoint is %s', checkpoint.describe_latest(checkpoints))
  return gather_state(state)


def is_busy(pending):
  """Whether the device still works on the last step: what the host did meanwhile has kept nobody waiting."""
  return pending is not None and not pending[1]['loss'].is_ready()


def flush(pending, check_step, show):
  """Reads the measures of a step that has been dispatched, checks and logs them."""
  if pending is not None:
    step, measures, task = pending
    with watchdog.time_limit(f'step {step}'):
      measures = {name: float(value) for name, value in jax.device_get(measures).items()}
    show(step, measures if check_step(step, task, measures) else None, task)
