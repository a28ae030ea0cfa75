"""The one training loop of all stages: validate, save, fetch a batch, step, log."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data import pipeline
from mtpret_jax.data.fingerprint import make_fingerprint
from mtpret_jax.objectives import Objective
from mtpret_jax.runtime import checkpoint, distributed, model_file, preemption, watchdog
from mtpret_jax.runtime.initial_weights import read_initial_weights
from mtpret_jax.runtime.logging import RunLog, SilentLog, open_log
from mtpret_jax.runtime.loss_guard import Diverged, make_guard, make_step_check
from mtpret_jax.runtime.progress import announce
from mtpret_jax.runtime.sharding import gather_state, make_mesh, place_batch
from mtpret_jax.step import TrainState, compile_step, init_state, make_optimiser, place_state
from mtpret_jax.tasks.fitted import FittedTask

log = logging.getLogger(__name__)

Pending = tuple[int, str, dict[str, Any]]  # step, task and measures that are still on the device


@dataclasses.dataclass(frozen=True)
class Run:
  """What the loop needs to know about a stage; `stages.make_run` makes it from a config.

  Attributes:
    objective: the loss of a batch, and what a step changes besides the weights.
    sources: the datasets it learns from.
    batches: a `grain.MapDataset` of (task, batch), one for each step.
    schedule: step -> learning rate.
    steps: the number of steps in the run.
    name_images: step -> [(dataset, image_id), ...] of its batch.
    count_left: step -> {task: steps left}.
    draw_views: (task, the rows of a batch) -> a picture (H, W, 3) uint8 of some images and their random views.
    validation_steps: the numbers of steps after which the state is validated.
    make_validate: (workdir, step at which the run starts or resumes) -> validate(state, step), which all processes
      call. It returns why the run ends early at this step, the same in all processes, or '' if the run goes on.
    tasks: {name: what its model is made of}, which the run keeps in `model.json`; {} in stage 1.
  """

  objective: Objective
  sources: Sequence
  batches: Any
  schedule: Callable
  steps: int
  name_images: Callable[[int], list[tuple[str, str]]]
  count_left: Callable[[int], dict[str, int]]
  draw_views: Callable[[str, Mapping[str, Any]], np.ndarray]
  validation_steps: frozenset[int]
  make_validate: Callable[[str | pathlib.Path, int], Callable[[TrainState, int], str]]
  tasks: Mapping[str, FittedTask] = dataclasses.field(default_factory=dict)


def train(run: Run, config: ConfigDict, workdir: str | pathlib.Path) -> TrainState:
  """Trains from the newest checkpoint in `workdir`, or from the initial weights. Returns the last state, a full copy on
  every device.

  Raises:
    ConfigError: the checkpoint is from a run with another config.
    Diverged: the loss or gradient of a step is not finite, and the config does not allow (more) skipped steps.
    SaveFailed: a checkpoint could not be written.
    Stopped: after SIGTERM or Ctrl-C, once the state is saved.
  """
  mesh = make_mesh()
  fingerprint = make_fingerprint(run.sources, config)
  optimiser, guard = make_optimiser(config.optimiser), make_guard(config)
  placement = place_state(run.objective, optimiser, mesh, config.sharding)

  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(checkpoint.open_checkpoints(workdir, config.keep, retries=config.save_retries))
    weights = read_initial_weights(config, run.tasks, quiet=checkpoints.latest is not None)
    with announce('compiling and making the initial state') if not jax.process_index() else contextlib.nullcontext():
      state = init_state(run.objective, optimiser, mesh, config.seed, weights, placement)
    state = checkpoint.restore(checkpoints, state, fingerprint, config.extend)
    start = int(state.step)
    if start:
      log.info('resumed from step %d of %d', start, run.steps)
    validate = run.make_validate(workdir, start)
    check_step = make_step_check(config, workdir, run.name_images, lambda: checkpoint.describe_latest(checkpoints))
    batches = stack.enter_context(pipeline.stream(run.batches, start, config.data))
    left = run.count_left(start)
    run_log = stack.enter_context(open_log(workdir, start, left, config, sum(
      step >= start for step in run.validation_steps)))
    model_file.write_tasks(workdir, run.tasks)
    stack.enter_context(distributed.exit_on_error((ConfigError, Diverged, checkpoint.SaveFailed)))

    compiled: dict[str, Any] = {}  # task -> its step
    # The measures (loss and so on) of a step are read one step later. Reading them immediately would leave the device
    # idle.
    pending: Pending | None = None
    end = run.steps

    for step in range(start, run.steps):
      stops = preemption.should_stop(step)
      is_save_due = step % config.save_every == 0 or step in run.validation_steps
      if stops or step > start and (is_save_due or checkpoint.save_has_failed(checkpoints)):
        flush(pending, check_step, run_log)  # raises before a state that is not finite is saved
        pending = None
        checkpoint.save(checkpoints, state, step, fingerprint, wait=stops)
      if stops:
        raise preemption.Stopped(preemption.describe_stop(step, run.steps))
      if step in run.validation_steps:
        with preemption.interruptible(), run_log.pause('validation'):
          reason = validate(gather_state(state), step)
        if reason:
          log.info('the run ends early, at step %d of %d: %s. To go on, repeat the command with a larger '
                   '--config.patience', step, run.steps, reason)
          run_log.finish(step)
          end = step
          break

      began = time.perf_counter()
      with watchdog.time_limit(f'the batch of step {step}'):
        task, rows = next(batches)
      batch = place_batch(rows, mesh)
      waited = 0.0 if is_busy(pending) else time.perf_counter() - began

      if task not in compiled:
        compiled[task] = compile_step(
          run.objective, optimiser, run.schedule, task, mesh, config.seed, guard, placement, config.optimiser.clip)
        try:
          with run_log.compiling(task), preemption.abandonable():
            compiled[task].lower(state, batch).compile()  # jax keeps the result for the call below
        except preemption.Stopped:
          if step == start:
            raise
          flush(pending, check_step, run_log)
          checkpoint.save(checkpoints, state, step, fingerprint, wait=True)
          raise preemption.Stopped(preemption.describe_stop(step, run.steps)) from None
        if not start:
          run_log.add_picture(f'views/{task}', functools.partial(run.draw_views, task, rows), step)
        # No time limit: the other processes may still be compiling.
        state, measures = jax.block_until_ready(compiled[task](state, batch))
      else:
        with watchdog.time_limit(f'step {step}'):
          state, measures = compiled[task](state, batch)
      if step == start:
        stack.enter_context(preemption.defer_signals())  # from now on there is something to save
      flush(pending, check_step, run_log)
      pending = step, task, measures | {'waited': waited}

    flush(pending, check_step, run_log)
    checkpoint.save(checkpoints, state, end, fingerprint, wait=True)
    if end == run.steps and end in run.validation_steps:
      with preemption.interruptible():
        validate(gather_state(state), end)
    log.info('trained %d step%s; the checkpoint is in %s', end, 's' * (end != 1), checkpoints.folder / str(end))
  return gather_state(state)


def is_busy(pending: Pending | None) -> bool:
  """Whether the device is still computing the last step. If it is, fetching a batch costs no time."""
  return pending is not None and not pending[2]['loss'].is_ready()


def flush(pending: Pending | None, check_step: Callable, run_log: RunLog | SilentLog) -> None:
  """Waits for the measures of the pending step, checks and logs them. Raises Diverged."""
  if pending is not None:
    step, task, measures = pending
    with watchdog.time_limit(f'step {step}'):
      measures = {name: float(value) for name, value in jax.device_get(measures).items()}
    run_log.add(step, task, measures if check_step(step, task, measures) else None)
