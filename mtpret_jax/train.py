"""The one loop of all stages: evaluate, save, draw, step, log."""

import contextlib
import logging
import time

import jax
import numpy as np

from mtpret_jax import checkpoint, optim, stall
from mtpret_jax.data import pipeline
from mtpret_jax.progress import open_log
from mtpret_jax.runs import make_run
from mtpret_jax.sharding import make_mesh, place_batch
from mtpret_jax.start import read_start
from mtpret_jax.step import compile_step, init_state
from mtpret_jax.watch import make_watch

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
  """A loss or gradient that is not a number."""


def train(config, workdir):
  """Takes the run's steps, from the newest checkpoint in `workdir` if there is one. Returns the last state."""
  run, mesh = make_run(config), make_mesh()
  mark = pipeline.fingerprint(run.sources, config)
  optimiser = optim.make_optimiser(config.optimiser)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.open_checkpoints(workdir, config.keep))
    state = checkpoint.resume(
      checkpoints, init_state(run.objective, optimiser, mesh, config.seed, read_start(config)), mark)
    start = int(state.step)
    watch = make_watch(config, workdir, start)
    if start:
      log.info('resumed from step %d of %d', start, run.steps)
    steps = {}
    feed = stack.enter_context(pipeline.stream(run.batches, start, config.data))
    show = stack.enter_context(open_log(workdir, start, run.steps, config))
    pending = None  # the measures of the last step, not yet read: reading them would wait for the device

    for step in range(start, run.steps):
      if step in run.pauses:
        pending = settle(pending, show, checkpoints)
        watch(state, step)
      if step > start and step % config.save_every == 0:
        pending = settle(pending, show, checkpoints)
        checkpoint.save(checkpoints, state, step, mark)
      began = time.perf_counter()
      with stall.limit(f'the batch of step {step}'):
        task, batch = next(feed)
      batch = place_batch(batch, mesh)
      waited = time.perf_counter() - began
      if task not in steps:
        steps[task] = compile_step(run.objective, optimiser, run.schedule, task, mesh, config.seed)
      state, measures = steps[task](state, batch)
      settle(pending, show, checkpoints)
      pending = step, measures | {'waited': waited}, task

    settle(pending, show, checkpoints)
    if run.steps in run.pauses and start < run.steps:
      watch(state, run.steps)
    checkpoint.save(checkpoints, state, run.steps, mark)
    log.info('the last checkpoint is %s', checkpoint.describe_latest(checkpoints))
  return state


def settle(pending, show, checkpoints):
  """Reads and logs the measures of a step that has been dispatched; stops the run if they are not numbers."""
  if pending is not None:
    step, measures, task = pending
    with stall.limit(f'step {step}'):
      measures = {name: float(value) for name, value in jax.device_get(measures).items()}
    if not np.isfinite(measures['loss'] + measures['gradient']):
      raise Diverged(
        f'step {step} ({task}) gave loss {measures["loss"]} and gradient norm {measures["gradient"]}: the run stops '
        f'here. The last good checkpoint is {checkpoint.describe_latest(checkpoints)}. A lower '
        f'--config.optimiser.rate or more config.optimiser.warmup_steps usually helps')
    show(step, measures, task)
