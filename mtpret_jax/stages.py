"""The stages: what a config means, from the checks before it to the scores after it.

    config -> check -> prepare data -> Run (objective, batches, schedule) -> train -> report
"""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable

import jax

from mtpret_jax import train
from mtpret_jax.config.validate import (
  check_config,
  check_fields,
  check_folder,
  check_length,
  check_objective,
  check_workdir,
  in_stage,
)
from mtpret_jax.data import pipeline, task_schedule
from mtpret_jax.data.pipeline import flatten
from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation import test_scores
from mtpret_jax.objectives import Objective
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.objectives.multitask import make_multitask
from mtpret_jax.report import pretrain
from mtpret_jax.runtime import distributed, preemption, prepare_data, workdir_lock
from mtpret_jax.runtime.initial_weights import check_init, list_pretraining_datasets
from mtpret_jax.runtime.logging import list_libraries
from mtpret_jax.runtime.shared_memory import check_shared_memory
from mtpret_jax.step import make_schedule, make_visit_schedule
from mtpret_jax.tasks.dataset import make_labelled_task, open_sources

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """Attributes:
    objective: what a batch costs and what it changes.
    sources: that it learns from.
    batches: `grain.MapDataset` of (task, batch), one for each step.
    schedule: step -> learning rate.
    steps: how many there are.
    name_images: step -> [(dataset, image_id)] of its batch.
    evaluation_steps: steps before which the state is evaluated, and the last.
  """

  objective: Objective
  sources: list
  batches: object
  schedule: Callable
  steps: int
  name_images: Callable
  evaluation_steps: frozenset = frozenset()


def make_run(config):
  return {'moco': make_moco_run, 'multitask': make_multitask_run}[config.objective](config)


def processes():
  return {'process': jax.process_index(), 'processes': jax.process_count()}


def make_moco_run(config):
  sources = [open_source(name, config.data.dir, config.data.stored_size, 'train', config.data.split, images_only=True)
             for name in config.data.datasets]
  return Run(
    objective=make_moco(config),
    sources=sources,
    batches=pipeline.make_moco_batches(sources, config, **processes()),
    schedule=make_schedule(config.optimiser, config.steps),
    steps=config.steps,
    name_images=functools.partial(pipeline.name_moco_images, sources, config))


def make_multitask_run(config):
  sources = open_sources(config, 'train', config.data.fraction)
  plan = make_plan(config, {name: len(source) for name, source in sources.items()})
  tasks = {name: make_labelled_task(config, name, source) for name, source in sources.items()}
  every = config.evaluate_every
  return Run(
    objective=make_multitask(config, tasks, plan.begins),
    sources=list(sources.values()),
    batches=pipeline.make_visit_batches(plan, sources, config, **processes()),
    schedule=make_visit_schedule(config.optimiser, plan),
    steps=plan.steps,
    name_images=functools.partial(pipeline.name_visit_images, plan, sources, config),
    evaluation_steps=frozenset(range(every, plan.steps, every) if every else plan.round_ends) | {plan.steps})


def make_plan(config, images):
  """The visits of the run, on tasks with so many `images` each. A visit has its task_config's steps; 0 of them is an epoch, as
  many whole batches as there are."""
  lengths = {name: task_config.steps or max(images[name] // task_config.batch, 1) for name, task_config in config.tasks.items()}
  check_length(config, lengths)
  return task_schedule.make_plan(lengths, config.rounds, config.order, config.seed)


def train_stage(config, workdir):
  """Takes the steps of stage 1, 2 or 3, whose data is prepared; returns the last state, see `train.train`."""
  return train.train(make_run(config), config, workdir)


def run(config):
  """Runs whatever the config is of: a stage, an evaluation or a recipe of stages."""
  RUNS[check_objective(config)](config)


def run_stage(config):
  """Prepares, trains and reports one stage."""
  distributed.run_on_all(lambda: check_run(config), prepare_data.USER_ERRORS)
  distributed.check_same(flatten(config.to_dict()) | list_libraries())
  distributed.check_shared_folder(config.workdir, 'workdir')
  with contextlib.ExitStack() as stack:
    distributed.run_on_first(lambda: stack.enter_context(workdir_lock.lock(config.workdir)))
    prepare_data.prepare_data(config)
    state = train_stage(config, config.workdir)
    with preemption.interruptible():
      (pretrain if config.objective == 'moco' else test_scores).finish(state, config)


def run_evaluation(config):
  check_run(config)
  test_scores.evaluate_run(config)


def run_recipe(config):
  """Runs the stages one after another; those that have reported with the same config are passed by."""
  distributed.run_on_all(lambda: check_run(config), prepare_data.USER_ERRORS)
  for name, stage in config.stages.items():
    if test_scores.is_finished(stage):
      log.info('%s: finished before, see %s', name, stage.workdir)
    else:
      log.info('%s', name)
      run_stage(stage)
  distributed.run_on_first(lambda: test_scores.finish_recipe(config))


RUNS = {'moco': run_stage, 'multitask': run_stage, 'evaluate': run_evaluation, 'recipe': run_recipe}


def check_run(config):
  """Everything that is checked before data is prepared; of a recipe, in all of its stages."""
  objective = check_objective(config)
  if objective == 'evaluate':
    return check_fields(config)
  if objective != 'recipe':
    return check_stage(config)
  check_fields(config)
  check_workdir(config.workdir)
  made = {stage.get('workdir') for stage in config.stages.values()}
  for name, stage in config.stages.items():
    try:
      check_stage(stage.copy_and_resolve_references(), made)
    except prepare_data.USER_ERRORS as error:
      raise in_stage(name, error) from error


def check_stage(config, made=()):
  """`made`: workdirs that are still to be filled, which the stage may start from."""
  devices, processes = jax.device_count(), jax.process_count()
  check_fields(config, devices, processes)
  check_workdir(config.workdir)
  check_folder('data.dir', config.data.dir)
  prepare_data.choose_datasets(config)
  check_config(config, devices=devices, processes=processes)
  check_shared_memory(config, processes)
  prepare_data.check_annotations(config)
  if config.init_from not in made:
    check_init(config)
    prepare_data.check_external(config, list_pretraining_datasets(config))
