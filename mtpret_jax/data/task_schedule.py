"""The schedule of stage 2: which task at which step. It is a function of the step, so a run resumes from its step
number alone.

A visit is a number of steps on one task. A round visits every task, except in the order `sequential`, where it is one
visit. MUSCLE's "cyclic and reshuffled learning schedule" is `cyclic_reshuffled`; its ablation MUSCLE-- has neither the
schedule nor cross-task memory, and is `sequential` here. A visit of one epoch is recalled of the papers; other lengths,
and the least number of steps, are our choice.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

import numpy as np
from ml_collections import ConfigDict

JOINT = 'joint'  # an order, and the name of its only task: each step is on all tasks at once
ORDERS = ('cyclic_reshuffled', 'cyclic', 'sequential', JOINT)


@dataclasses.dataclass(frozen=True)
class Visit:
  """`length` steps on `task` from step `start`, in round `round`. The task has had `seen` batches before."""

  task: str
  round: int
  start: int
  length: int
  seen: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """The visits of a run, in order."""

  visits: tuple[Visit, ...]

  @property
  def steps(self) -> int:
    return self.visits[-1].start + self.visits[-1].length

  def find(self, step: int) -> Visit:
    """The visit that `step` belongs to."""
    return self.visits[self.visit_indices[step]]

  @functools.cached_property
  def visit_indices(self) -> np.ndarray:
    """(steps,): the index of each step's visit."""
    return np.repeat(np.arange(len(self.visits)), [visit.length for visit in self.visits])

  def count_left(self, step: int) -> dict[str, int]:
    """{task: how many steps it takes from `step` on}."""
    left: dict[str, int] = {}
    for visit in self.visits:
      left[visit.task] = left.get(visit.task, 0) + max(visit.start + visit.length - max(step, visit.start), 0)
    return left

  @property
  def begins(self) -> np.ndarray:
    """(steps,) bool: True for the first step of each visit."""
    begins = np.zeros(self.steps, bool)
    begins[[visit.start for visit in self.visits]] = True
    return begins

  @property
  def round_ends(self) -> list[int]:
    """For each round, the number of steps taken when it is over."""
    ends = {visit.round: visit.start + visit.length for visit in self.visits}
    return [ends[number] for number in sorted(ends)]

  def space_validations(self, count: int) -> frozenset[int]:
    """The numbers of steps after which to validate: `count` times in each round at equal distances, the last time at
    its end. A round of fewer steps is validated after each of them."""
    validated = set()
    for start, end in zip([0, *self.round_ends[:-1]], self.round_ends, strict=True):
      times = min(count, end - start)
      validated |= {start + (end - start) * number // times for number in range(1, times + 1)}
    return frozenset(validated)


def count_visit_steps(task_config: ConfigDict, images: int) -> int:
  """The steps of a visit to a task with `images` training images: `steps`, or if that is 0, `epochs` without the last
  incomplete batch, but at least `min_steps` and at most `max_steps`. One epoch of 93 images in batches of 32 would
  be two steps."""
  if task_config.steps:
    return task_config.steps
  steps = max(count_epoch_steps(task_config, images), task_config.min_steps)
  return min(steps, task_config.max_steps or steps)


def count_epoch_steps(task_config: ConfigDict, images: int) -> int:
  """The steps of `epochs`, before `min_steps` and `max_steps` apply."""
  # The small number keeps 0.29 epochs of 100 images, which is 28.999999999999996 in floating point, at 29.
  return math.floor(task_config.epochs * images / task_config.batch + 1e-6)


def make_plan(lengths: Mapping[str, int], rounds: int, order: str, seed: int) -> Plan:
  """The visits of `rounds` rounds over the tasks of `lengths`, {task: steps of a visit}.

  cyclic_reshuffled   a new order of the tasks in every round, drawn from (seed, round)
  cyclic              the order of `lengths` in every round
  sequential          one visit per task, as long as all its rounds together
  joint               every step is on all tasks; a round has as many batches in total as in the other orders

  Raises:
    ValueError: unknown order.
  """
  if order not in ORDERS:
    raise ValueError(f'unknown order {order!r}: choose one of {", ".join(ORDERS)}')
  tasks = list(lengths)
  if order == JOINT:
    steps = max(1, round(sum(lengths.values()) / len(tasks)))
    planned = [(JOINT, number, steps) for number in range(rounds)]
  elif order == 'sequential':
    planned = [(task, number, lengths[task] * rounds) for number, task in enumerate(tasks)]
  else:
    planned = [(tasks[index], number, lengths[tasks[index]]) for number in range(rounds)
               for index in order_of_round(order, len(tasks), seed, number)]
  # `seen` counts a task's batches over its visits, so that no epoch is cut short by a change of task.
  visits, start, seen = [], 0, dict.fromkeys([*tasks, JOINT], 0)
  for task, number, length in planned:
    visits.append(Visit(task, number, start, length, seen[task]))
    start, seen[task] = start + length, seen[task] + length
  return Plan(tuple(visits))


def order_of_round(order: str, tasks: int, seed: int, number: int) -> Iterable[int]:
  """The indices of the tasks in the order of round `number`."""
  if order == 'cyclic':
    return range(tasks)
  # Seeded by the round rather than drawn from a stream: round 7 is the same in a run that resumes in round 5.
  return np.random.default_rng([seed, number]).permutation(tasks)
