"""Which task at which step: stage 2's visits and rounds. Everything is a function of the step; nothing is remembered.

A visit is a number of steps on one task; a round visits every task. MUSCLE's "cyclic and reshuffled learning schedule"
is `cyclic_reshuffled`; its ablation MUSCLE-- has neither schedule nor memory, here `sequential`. That a visit has a
configured number of steps is our choice; the papers' is one epoch, by recollection.
"""

import dataclasses
import functools

import numpy as np

JOINT = 'joint'  # the one task of the order of that name: a step on every task at once
ORDERS = ('cyclic_reshuffled', 'cyclic', 'sequential', JOINT)


@dataclasses.dataclass(frozen=True)
class Visit:
  """`length` steps on `task` from step `start` on, in round `round`; the task has had `seen` batches before."""

  task: str
  round: int
  start: int
  length: int
  seen: int


@dataclasses.dataclass(frozen=True)
class Plan:
  visits: tuple[Visit, ...]

  @property
  def steps(self):
    return self.visits[-1].start + self.visits[-1].length

  def find(self, step):
    """The visit that `step` belongs to."""
    return self.visits[self.which[step]]

  @functools.cached_property
  def which(self):
    """(steps,) index of each step's visit."""
    return np.repeat(np.arange(len(self.visits)), [visit.length for visit in self.visits])

  @property
  def begins(self):
    """(steps,) bool: the first steps of visits."""
    begins = np.zeros(self.steps, bool)
    begins[[visit.start for visit in self.visits]] = True
    return begins

  @property
  def round_ends(self):
    """The number of steps after which each round is over, in order."""
    last = {visit.round: visit.start + visit.length for visit in self.visits}
    return [last[number] for number in sorted(last)]


def make_plan(lengths, rounds, order, seed):
  """The visits of `rounds` rounds over the tasks of `lengths`, {task: steps of a visit}.

  cyclic_reshuffled   every round in another order, drawn by (seed, round)
  cyclic              every round in the order given
  sequential          each task once, all its rounds in one visit
  joint               steps on all tasks at once; a round has as many batches in all as the others' rounds
  """
  if order not in ORDERS:
    raise ValueError(f'unknown order {order!r}; have {", ".join(ORDERS)}')
  tasks = list(lengths)
  if order == JOINT:
    turns = max(1, round(sum(lengths.values()) / len(tasks)))
    legs = [(JOINT, number, turns) for number in range(rounds)]
  elif order == 'sequential':
    legs = [(task, number, lengths[task] * rounds) for number, task in enumerate(tasks)]
  else:
    legs = [(tasks[index], number, lengths[tasks[index]]) for number in range(rounds)
            for index in order_of_round(order, len(tasks), seed, number)]
  visits, start, seen = [], 0, dict.fromkeys([*tasks, JOINT], 0)
  for task, number, length in legs:
    visits.append(Visit(task, number, start, length, seen[task]))
    start, seen[task] = start + length, seen[task] + length
  return Plan(tuple(visits))


def order_of_round(order, tasks, seed, number):
  if order == 'cyclic':
    return range(tasks)
  return np.random.default_rng([seed, number]).permutation(tasks)
