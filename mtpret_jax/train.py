"""The one loop: save, draw, step, log. What it runs so far is stage 1."""

import contextlib
import logging
import time

import jax
import numpy as np

from mtpret_jax import checkpoint, optim
from mtpret_jax.check import ConfigError
from mtpret_jax.data import pipeline
from mtpret_jax.data.sources import open_source
from mtpret_jax.objectives.contrast import make_contrast
from mtpret_jax.progress import open_log
from mtpret_jax.sharding import make_mesh, place_batch
from mtpret_jax.step import compile_step, init_state
from mtpret_jax.weights import import_trunk

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
  """A loss or gradient that is not a number."""


def train(config, workdir):
  """Trains to `config.steps`, from the newest checkpoint in `workdir` if there is one. Returns the last state."""
  mesh = make_mesh()
  sources = [open_source(name, config.data.dir, config.data.stored, 'train', config.data.rule, images_only=True)
             for name in config.data.datasets]
  run = pipeline.fingerprint(sources, config)
  batches = pipeline.make_contrast_batches(
    sources, config, process=jax.process_index(), processes=jax.process_count())
  objective = make_contrast(config)
  schedule = optim.make_schedule(config.optimiser, config.steps)
  optimiser = optim.make_optimiser(config.optimiser, schedule)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.open_checkpoints(workdir, config.keep))
    state = checkpoint.resume(
      checkpoints, init_state(objective, optimiser, mesh, config.seed, read_start(config)), run)
    start = int(state.step)
    if start:
      log.info('resumed from step %d of %d', start, config.steps)
    steps = {task: compile_step(objective, optimiser, task, mesh, config.seed) for task in objective.parts}
    feed = stack.enter_context(pipeline.stream(batches, start, 'contrast', config.data))
    show = stack.enter_context(open_log(workdir, start, config))
    pending = None  # the measures of the last step, not yet read: reading them would wait for the device

    for step in range(start, config.steps):
      if step > start and step % config.save_every == 0:
        pending = settle(pending, show, checkpoints)
        checkpoint.save(checkpoints, state, step, run)
      began = time.perf_counter()
      task, batch = next(feed)
      batch = place_batch(batch, mesh)
      waited = time.perf_counter() - began
      state, measures = steps[task](state, batch)
      settle(pending, show, checkpoints)
      pending = step, measures | {'rate': schedule(step), 'waited': waited}

    settle(pending, show, checkpoints)
    checkpoint.save(checkpoints, state, config.steps, run)
    log.info('the last checkpoint is %s', checkpoint.describe_latest(checkpoints))
  return state


def read_start(config):
  """The trunk that `init_from` names, or None. Raises ConfigError where the file cannot be used."""
  try:
    return import_trunk(config.init_from, config.trunk) if config.init_from else None
  except (OSError, ValueError) as error:
    raise ConfigError(f'init_from={config.init_from!r}: {error}') from error


def settle(pending, show, checkpoints):
  """Reads and logs the measures of a step that has been dispatched; stops the run if they are not numbers."""
  if pending is not None:
    step, measures = pending
    measures = {name: float(value) for name, value in jax.device_get(measures).items()}
    if not np.isfinite(measures['loss'] + measures['gradient']):
      raise Diverged(
        f'step {step} gave loss {measures["loss"]} and gradient norm {measures["gradient"]}: the run stops here. '
        f'The last good checkpoint is {checkpoint.describe_latest(checkpoints)}. A lower --config.optimiser.rate or '
        f'more config.optimiser.warmup_steps usually helps')
    show(step, measures)
