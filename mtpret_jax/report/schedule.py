"""The length and the learning rates of a run in words, for the log and for a dry run."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from mtpret_jax.data.task_schedule import JOINT, count_epoch_steps, count_visit_steps, make_plan
from mtpret_jax.step import count_warmup_steps, find_learning_rates


def describe_schedule(config: ConfigDict, images: Mapping[str, int]) -> list[str]:
  """One line for stage 1, or one for each task of stage 2 or 3.

  Args:
    images: the number of training images of each dataset in stage 1, of each task in stages 2 and 3.
  """
  if config.objective == 'moco':
    return [describe_pretraining(config, images)]
  lengths = {name: count_visit_steps(task_config, images[name]) for name, task_config in config.tasks.items()}
  plan = make_plan(lengths, config.rounds, config.order, config.seed)
  lines = []
  for name, task_config in config.tasks.items():
    owner = JOINT if config.order == JOINT else name
    visits = [visit for visit in plan.visits if visit.task == owner]
    steps = sum(visit.length for visit in visits)
    limit = '' if owner == JOINT else describe_limit(task_config, images[name])
    shared = ' shared by all tasks' if owner == JOINT else ''
    lines.append(
      f'{name}: {images[name]:,} training images, batch {task_config.batch}, {count_visits(len(visits))} of '
      f'{describe_steps(config, visits[0].length)}{shared}{limit}, '
      f'{describe_epochs(steps * task_config.batch, images[name])} in all, learning rate '
      f'{describe_range(*find_learning_rates(config, owner))}')
  if config.patience:
    lines = [f'{line}; up to {config.rounds * config.validations} validations, ends after {config.patience} in a row '
             f'without a better score' for line in lines]
  return lines


def describe_pretraining(config: ConfigDict, images: Mapping[str, int]) -> str:
  total = sum(images.values())
  return (f'{config.name}: {total:,} training images of {len(images)} datasets, batch {config.batch}, '
          f'{describe_steps(config, config.steps)}, {describe_epochs(config.steps * config.batch, total)}, learning '
          f'rate {describe_range(config.optimiser.learning_rate, config.optimiser.final_learning_rate)}')


def describe_steps(config: ConfigDict, steps: int) -> str:
  return f'{steps:,} steps ({count_warmup_steps(config.optimiser, steps):,} of warm-up)'


def describe_limit(task_config: ConfigDict, images: int) -> str:
  """', at least min_steps=100 (epochs=3 has 32)' where that, or max_steps, sets the length of a visit; else ''."""
  steps = count_epoch_steps(task_config, images)
  if task_config.steps or task_config.min_steps <= steps <= (task_config.max_steps or steps):
    return ''
  limit = 'at least min_steps' if steps < task_config.min_steps else 'at most max_steps'
  value = task_config.min_steps if steps < task_config.min_steps else task_config.max_steps
  return f', {limit}={value:,} (epochs={task_config.epochs:g} has {steps:,})'


def count_visits(visits: int) -> str:
  return '1 visit' if visits == 1 else f'{visits:,} visits'


def describe_epochs(drawn: int, images: int) -> str:
  """The epochs after which `drawn` images have been drawn from `images`."""
  return f'{drawn / images:,.1f} epochs' if images else 'no images'


def describe_range(peak: float, final: float) -> str:
  return f'{peak:g} to {final:g}'
