"""The one loop of all stages: evaluate, save, draw, step, log."""

import contextlib
import logging
import time

import jax

from mtpret_jax import checkpoint, hosts, optim, stall, stopping
from mtpret_jax.bad_steps import Diverged, make_judge
from mtpret_jax.check import ConfigError
from mtpret_jax.data import pipeline
from mtpret_jax.guard import make_guard, remember
from mtpret_jax.progress import open_log
from mtpret_jax.runs import make_run
from mtpret_jax.sharding import gather_state, make_mesh, place_batch
from mtpret_jax.start import read_start
from mtpret_jax.step import compile_step, init_state, place_state
from mtpret_jax.watch import make_watch

log = logging.getLogger(__name__)


def train(config, workdir, ready=None):
  """Takes the run's steps, from the newest checkpoint in `workdir` if there is one. Returns the last state. `ready`:
  {task: step} of `rehearsal.compiling`. Raises `bad_steps.Diverged`, `checkpoint.SaveFailed`, and `stopping.Stopped`
  where it is asked to stop."""
  run, mesh = make_run(config), make_mesh()
  mark = pipeline.fingerprint(run.sources, config)
  objective, guard = remember(run.objective, config), make_guard(config)
  optimiser = optim.make_optimiser(config.optimiser)
  placement = place_state(objective, optimiser, mesh, config.sharding)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.open_checkpoints(workdir, config.keep, retries=config.save_retries))
    state = checkpoint.resume(
      checkpoints, init_state(objective, optimiser, mesh, config.seed, read_start(config), placement), mark)
    start = int(state.step)
    watch = make_watch(config, workdir, start)
    if start:
      log.info('resumed from step %d of %d', start, run.steps)
    judge = make_judge(config, workdir, run.name_images, lambda: checkpoint.describe_latest(checkpoints))
    steps = {}
    feed = stack.enter_context(pipeline.stream(run.batches, start, config.data))
    show = stack.enter_context(open_log(workdir, start, run.steps, config))
    stack.enter_context(hosts.alarm((ConfigError, Diverged, checkpoint.SaveFailed)))
    pending = None  # the measures of the last step, not yet read: reading them would wait for the device

    for step in range(start, run.steps):
      stops = stopping.is_asked(step)
      if stops or step > start and (step % config.save_every == 0 or step in run.pauses
                                    or checkpoint.has_failed(checkpoints)):
        pending = settle(pending, judge, show)
        checkpoint.save(checkpoints, state, step, mark, wait=stops)
      if stops:
        raise stopping.Stopped(stopping.describe(step, run.steps))
      if step in run.pauses:
        with stopping.free():
          watch(gather_state(state), step)
      began = time.perf_counter()
      with stall.limit(f'the batch of step {step}'):
        task, batch = next(feed)
      batch = place_batch(batch, mesh)
      waited = 0.0 if is_busy(pending) else time.perf_counter() - began
      if task not in steps:
        steps[task] = (ready or {}).get(task) or compile_step(
          objective, optimiser, run.schedule, task, mesh, config.seed, guard, placement)
        state, measures = jax.block_until_ready(steps[task](state, batch))  # compiles; other hosts may take longer
      else:
        with stall.limit(f'step {step}'):
          state, measures = steps[task](state, batch)
      if step == start:
        stack.enter_context(stopping.deferred())  # from here on there is something to save
      settle(pending, judge, show)
      pending = step, measures | {'waited': waited}, task

    settle(pending, judge, show)
    checkpoint.save(checkpoints, state, run.steps, mark, wait=True)
    if run.steps in run.pauses:
      with stopping.free():
        watch(gather_state(state), run.steps)
    log.info('the last checkpoint is %s', checkpoint.describe_latest(checkpoints))
  return gather_state(state)


def is_busy(pending):
  """Whether the device still works on the last step: what the host did meanwhile has kept nobody waiting."""
  return pending is not None and not pending[1]['loss'].is_ready()


def settle(pending, judge, show):
  """Reads the measures of a step that has been dispatched, judges and logs them."""
  if pending is not None:
    step, measures, task = pending
    with stall.limit(f'step {step}'):
      measures = {name: float(value) for name, value in jax.device_get(measures).items()}
    show(step, measures if judge(step, task, measures) else None, task)
