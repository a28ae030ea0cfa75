"""The steps of a run as a compiler needs them: shapes in place of state and batches. No data is prepared or read."""

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data import pipeline
from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.objectives import Objective
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.objectives.multitask import make_multitask
from mtpret_jax.runtime.loss_guard import make_guard
from mtpret_jax.runtime.sharding import by_batch
from mtpret_jax.stages import make_plan
from mtpret_jax.step import compile_step, make_optimiser, make_schedule, make_visit_schedule, place_state, shape_state
from mtpret_jax.tasks import make_task
from tfds_builders import build


@dataclasses.dataclass(frozen=True)
class Rehearsal:
  """`batches`: {task: {field: ShapeDtypeStruct}}, the whole batch of all devices, for each task that has a step."""

  objective: Objective
  batches: dict
  schedule: object


def rehearse(config):
  """The `Rehearsal` of one stage. Raises ConfigError where a dataset's findings, classes or kinds are not known."""
  if config.objective == 'moco':
    return Rehearsal(make_moco(config), {'moco': shape_pairs(config)},
                     make_schedule(config.optimiser, config.steps))
  abouts = {name: describe_dataset(config, task_config.dataset) for name, task_config in config.tasks.items()}
  tasks = {name: make_task(task_config.kind, pipeline.choose_findings(abouts[name], task_config), choose_head(task_config))
           for name, task_config in config.tasks.items()}
  batches = {name: shape_labelled(task_config, pipeline.choose_findings(abouts[name], task_config))
             for name, task_config in config.tasks.items()}
  if config.order == JOINT:
    batches = {JOINT: {f'{name}/{field}': rows for name, batch in batches.items() for field, rows in batch.items()}}
  plan = make_plan(config, dict.fromkeys(config.tasks, 0))  # a visit of an epoch: its length changes nothing here
  return Rehearsal(make_multitask(config, tasks, plan.begins), batches,
                   make_visit_schedule(config.optimiser, plan))


def describe_dataset(config, name):
  """What the dataset says of itself, without its archive; of one of your own, once it is prepared."""
  if name in build.NAMES:
    return build.describe(name)
  path = build.locate(name, config.data.dir, config.data.stored_size)
  if not build.is_prepared(path):
    raise ConfigError(f'what {name!r} is labelled with is not known before it is prepared: run python -m '
                      f'tfds_builders.build {name} --archives <folder> --data_dir {config.data.dir} first')
  return dict(build.read_metadata(path))


def choose_head(task_config):
  """For a regression the mean and deviation of values that nobody has read: any numbers compile to the same."""
  return ConfigDict(dict(mean=0.0, deviation=1.0)) if task_config.kind == 'regression' else task_config.get('head')


def shape_pairs(config):
  """The batch of `pipeline.make_moco_batches`."""
  images = jax.ShapeDtypeStruct((config.batch, config.data.size, config.data.size, 1), np.uint8)
  return {'query': images, 'key': images, 'source': jax.ShapeDtypeStruct((config.batch,), np.int32)}


def shape_labelled(task_config, about):
  """The batch of `pipeline.make_visit_batches`, see `records.read_labelled`."""
  def rows(*shape, of):
    return jax.ShapeDtypeStruct((task_config.batch, *shape), of)

  findings = len(about['findings'])
  taught = {
    'classification': lambda: {'present': rows(findings, of=np.float32), 'label_mask': rows(findings, of=np.bool_)},
    'regression': lambda: {'value': rows(1, of=np.float32)},
    'segmentation': lambda: {'mask': rows(task_config.size, task_config.size, of=np.int8)},
    'detection': lambda: {'boxes': rows(task_config.objects, 4, of=np.float32), 'class_id': rows(task_config.objects, of=np.int32)},
  }
  return {'image': rows(task_config.size, task_config.size, 1, of=np.uint8)} | taught[task_config.kind]()


def lower(config, rehearsal, task, mesh):
  """(the step of `task` for the devices of `mesh`, the same lowered: `jax.stages.Lowered`). What is lowered is what
  training calls, to the shardings of the arrays; otherwise jax would trace it anew, under other names."""
  objective, optimiser = rehearsal.objective, make_optimiser(config.optimiser)
  placement = place_state(objective, optimiser, mesh, config.sharding)
  step = compile_step(objective, optimiser, rehearsal.schedule, task, mesh, config.seed, make_guard(config), placement)

  def place(sharding, shapes):
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes)

  state = jax.tree.map(place, placement, shape_state(objective, optimiser))
  return step, step.lower(state, place(by_batch(mesh), rehearsal.batches[task]))
