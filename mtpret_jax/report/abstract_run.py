"""A run reduced to shapes: what the compiler needs to know about its state and batches. No data is prepared or read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.task_schedule import JOINT, count_visit_steps, make_plan
from mtpret_jax.objectives import Objective
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.objectives.multitask import make_multitask
from mtpret_jax.runtime import image_counts, own_task
from mtpret_jax.runtime.loss_guard import make_guard
from mtpret_jax.runtime.sharding import by_batch
from mtpret_jax.step import (
  Schedule,
  compile_step,
  make_optimiser,
  make_schedule,
  make_visit_schedule,
  place_state,
  shape_state,
)
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.task import About, TaskModel
from tfds_builders import build
from tfds_builders.common import build_command

BatchShapes = dict[str, jax.ShapeDtypeStruct]  # field -> shape and dtype, of the batch on all devices together


@dataclasses.dataclass(frozen=True)
class AbstractRun:
  """Attributes:
    objective: as in training.
    batches: {task: the shapes of its batch}, for each task that has a step of its own.
    schedule: step -> learning rate.
  """

  objective: Objective
  batches: dict[str, BatchShapes]
  schedule: Schedule


def make_abstract_run(config: ConfigDict) -> AbstractRun:
  """The run of one stage.

  Raises:
    ConfigError: the labels of a dataset are unknown, see `describe_dataset`.
  """
  if config.objective == 'moco':
    return AbstractRun(make_moco(config), {'moco': shape_moco_batch(config)},
                       make_schedule(config.optimiser, config.steps))
  abouts = {name: describe_dataset(config, task_config.dataset) for name, task_config in config.tasks.items()}
  models = {name: make_model(task_config, abouts[name]) for name, task_config in config.tasks.items()}
  batches = {name: shape_labelled_batch(task_config, abouts[name]) for name, task_config in config.tasks.items()}
  if config.order == JOINT:
    batches = {JOINT: {f'{name}/{field}': shape for name, batch in batches.items() for field, shape in batch.items()}}
  # A visit of one epoch has as many steps as the data has batches. Without data, 0 images give it the fewest steps; the
  # number of steps changes no shape.
  lengths = {name: count_visit_steps(task_config, 0) for name, task_config in config.tasks.items()}
  plan = make_plan(lengths, config.rounds, config.order, config.seed)
  return AbstractRun(make_multitask(config, models, plan.begins), batches,
                     make_visit_schedule(config, plan))


def describe_dataset(config: ConfigDict, name: str) -> About:
  """The metadata of a dataset: from its builder if it is a public one, else from the prepared data or the archive.

  Raises:
    ConfigError: it is a dataset of your own, and neither is there.
  """
  path = build.locate(name, config.data.dir, config.data.stored_size)
  if name not in build.NAMES and not build.is_prepared(path) and not image_counts.has_archive(name, config):
    raise ConfigError(f'the labels of {name!r} are not known before it is prepared: run {build_command.show(path)} '
                      f'first')
  return own_task.describe_dataset(name, config.data)


def make_model(task_config: ConfigDict, about: About) -> TaskModel:
  """The model of a task. Numbers that training takes from the data, such as the mean of a value, are placeholders:
  shapes do not depend on them."""
  kind = find_kind(task_config.kind)
  return kind.make_model(kind.select(about, task_config), kind.fit_head(task_config, None))


def shape_moco_batch(config: ConfigDict) -> BatchShapes:
  """The batch of stage 1, as `pipeline.make_moco_batches` reads it."""
  images = jax.ShapeDtypeStruct((config.batch, config.data.size, config.data.size, 1), np.uint8)
  owner = jax.ShapeDtypeStruct((config.batch,), np.int32)
  batch = {'query': images, 'key': images, 'source': owner}
  return batch | {'patient': owner} if config.data.patient_positives else batch


def shape_labelled_batch(task_config: ConfigDict, about: About) -> BatchShapes:
  """The batch of a task of stage 2 or 3, as `pipeline.make_visit_batches` reads it."""
  row: Mapping[str, tuple[tuple[int, ...], Any]] = {
    'image': ((task_config.size, task_config.size, 1), np.uint8),
    **find_kind(task_config.kind).label_shapes(about, task_config)}
  return {field: jax.ShapeDtypeStruct((task_config.batch, *shape), dtype) for field, (shape, dtype) in row.items()}


def lower_step(config: ConfigDict, run: AbstractRun, task: str, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
  """The step of `task`, lowered for the devices of `mesh`: the same step, with the same shardings, as in training."""
  optimiser = make_optimiser(config.optimiser)
  placement = place_state(run.objective, optimiser, mesh, config.sharding)
  step: Any = compile_step(  # jitted, so it can be lowered
    run.objective, optimiser, run.schedule, task, mesh, config.seed, make_guard(config), placement,
    config.optimiser.clip)

  def place(sharding: jax.sharding.Sharding, shapes: Any) -> Any:
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes)

  state = jax.tree.map(place, placement, shape_state(run.objective, optimiser))
  return step.lower(state, place(by_batch(mesh), run.batches[task]))
