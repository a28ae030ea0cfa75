"""A config -> what the loop needs to run it, whichever stage it is."""

import dataclasses
import functools
import logging
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax import optim
from mtpret_jax.check import ConfigError, check_length
from mtpret_jax.data import order, pipeline
from mtpret_jax.data.sources import open_source
from mtpret_jax.data.suitable import keep_suitable
from mtpret_jax.objectives import Objective
from mtpret_jax.objectives.contrast import make_contrast
from mtpret_jax.objectives.multitask import make_multitask
from mtpret_jax.tasks import make_task

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
    pauses: steps before which the state is evaluated, and the last.
  """

  objective: Objective
  sources: list
  batches: object
  schedule: Callable
  steps: int
  name_images: Callable
  pauses: frozenset = frozenset()


def make_run(config):
  return {'contrast': make_contrast_run, 'multitask': make_multitask_run}[config.objective](config)


def processes():
  return {'process': jax.process_index(), 'processes': jax.process_count()}


def make_contrast_run(config):
  sources = [open_source(name, config.data.dir, config.data.stored, 'train', config.data.rule, images_only=True)
             for name in config.data.datasets]
  return Run(
    objective=make_contrast(config),
    sources=sources,
    batches=pipeline.make_contrast_batches(sources, config, **processes()),
    schedule=optim.make_schedule(config.optimiser, config.steps),
    steps=config.steps,
    name_images=functools.partial(pipeline.name_contrast_images, sources, config))


def make_multitask_run(config):
  sources = open_sources(config, 'train', config.data.fraction)
  plan = make_plan(config, {name: len(source) for name, source in sources.items()})
  tasks = {name: make_labelled_task(config, name, source) for name, source in sources.items()}
  every = config.evaluate_every
  return Run(
    objective=make_multitask(config, tasks, plan.begins),
    sources=list(sources.values()),
    batches=pipeline.make_visit_batches(plan, sources, config, **processes()),
    schedule=optim.make_visit_schedule(config.optimiser, plan),
    steps=plan.steps,
    name_images=functools.partial(pipeline.name_visit_images, plan, sources, config),
    pauses=frozenset(range(every, plan.steps, every) if every else plan.round_ends) | {plan.steps})


def make_plan(config, images):
  """The visits of the run, on tasks with so many `images` each. A visit has its card's steps; 0 of them is an epoch, as
  many whole batches as there are. A config keeps its keys sorted, so the order given is that of the tasks' names."""
  lengths = {name: card.steps or max(images[name] // card.batch, 1) for name, card in config.tasks.items()}
  check_length(config, lengths)
  return order.make_plan(lengths, config.rounds, config.order, config.seed)


def open_sources(config, split, fraction=1.0):
  """{task: Source} of one split of the tasks' datasets: the records that can teach their task. For detection these are
  the images with boxes unless the card says that those without are `negatives`, seen and found empty."""
  return {name: open_suitable(config, name, split, fraction) for name in config.tasks}


def open_suitable(config, name, split, fraction=1.0):
  card = config.tasks[name]
  source = open_source(card.dataset, config.data.dir, config.data.stored, split, config.data.rule, fraction=fraction)
  if card.negatives:
    return source
  source, left_out = keep_suitable(card.kind, source)
  if left_out:
    log.info('%s, %s of %s: left out %s', name, split, card.dataset, ', '.join(
      f'{count} images with {reason}' for reason, count in left_out.items()))
  return source


def make_labelled_task(config, name, source):
  """The task `name` on the dataset of `source`, with the numbers that its head needs."""
  card = config.tasks[name]
  if card.kind == 'regression':
    values = np.concatenate([source.records[index]['value'] for index in range(len(source))])
    head = ConfigDict(dict(mean=float(values.mean()), deviation=float(values.std())))
  else:
    head = card.get('head')
  try:
    return make_task(card.kind, pipeline.choose_findings(source.about, card), head)
  except KeyError as error:
    raise ConfigError(f'tasks.{name}: {card.dataset} has no {error}, which {card.kind} needs') from error
