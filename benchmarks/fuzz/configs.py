"""Commands with unexpected values. They are parsed and checked as in `mtpret_jax.main`, and what is accepted is built
as far as possible without data and without compiling.

Accepted outcomes are a printable refusal of one line, or a command that passes and whose objective, optimiser, schedule
and order can be built and whose loss can be traced. A remedy of the form --config.FIELD=VALUE is tried: it must be
accepted if one value was wrong, and must not lead in a circle if several were.
"""

import contextlib
import io
import json
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks.fuzz import commands, judge, values
from benchmarks.fuzz.values import Report, Run

DEVICES = ((1, 1), (1, 1), (1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (4, 4), (3, 1))
ADVICE = re.compile(r'try ((?:--config\.[\w.]+=(?![<.])\S+ ?)+)')
MAX_REMEDIES = 20  # in a row
TRACED = 0.15  # share of the accepted commands whose loss is traced, which takes seconds


def make(folder: pathlib.Path) -> Run:
  """Cases of commands."""
  from benchmarks.fuzz import small
  small.shrink()
  logging.getLogger('mtpret_jax').setLevel(logging.CRITICAL)
  return run


def run(rng: np.random.Generator, case: pathlib.Path, report: Report) -> str:
  kind, arguments = commands.draw(rng, read_fields)
  report((str(arguments)[:300], kind))
  home = commands.make_surroundings(case)
  before = os.getcwd()
  os.chdir(home)
  try:
    return judge_command(rng, arguments, kind, *values.pick(rng, DEVICES))
  finally:
    os.chdir(before)


def read_fields(file: str) -> dict[str, Any]:
  """{dotted name: default} of the fields of a config file."""
  config, _ = parse([file])
  return dict(walk(config.to_dict()))


def walk(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  for name, value in tree.items():
    if isinstance(value, dict) and value:
      yield from walk(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def parse(arguments: Sequence[str]) -> tuple[ConfigDict | None, str]:
  """(config, stderr) of `cli.parse_flags`; the config is None if it refuses."""
  from mtpret_jax import cli
  known = flags.FLAGS
  for name in [name for name in known if name.startswith('config.')]:
    delattr(known, name)
  known.unparse_flags()
  argv, output = ['mtpret_jax', *map(str, arguments)], io.StringIO()
  with (mock.patch.object(sys, 'argv', argv), contextlib.redirect_stderr(output),
        contextlib.redirect_stdout(io.StringIO())):
    try:
      cli.parse_flags(argv)
    except SystemExit as stop:
      judge.demand(stop.code == cli.REFUSED, f'exit code {stop.code}')
      return None, output.getvalue()
  return cli.CONFIG.value, ''


def check(arguments: Sequence[str], devices: int, processes: int) -> tuple[ConfigDict | None, str]:
  """(config, stderr) after all checks that come before data is prepared; the config is None if one refuses."""
  import jax

  from mtpret_jax import stages
  from mtpret_jax.runtime import prepare_data
  config, output = parse(arguments)
  if config is None:
    return None, output
  with (mock.patch.object(jax, 'device_count', lambda: devices),
        mock.patch.object(jax, 'process_count', lambda: processes)):
    try:
      stages.check_run(config)
    except prepare_data.USER_ERRORS as error:
      return None, f'mtpret_jax: {error}\n'
  return config, ''


def judge_command(rng: np.random.Generator, arguments: Sequence[str], kind: str, devices: int, processes: int) -> str:
  seen, one = set(), kind == commands.ONE and check(arguments[:1], devices, processes)[0] is not None
  for _ in range(MAX_REMEDIES):
    config, output = check(arguments, devices, processes)
    if config is not None:
      judge_accepted(rng, config)
      return 'refused' if seen else 'whole'
    line = output.removesuffix('\n')
    judge.judge_line(line)
    judge.demand(line.startswith('mtpret_jax: '), f'not a message of mtpret_jax: {line[:300]}')
    judge.demand(line not in seen, f'its remedies lead in a circle: {line}')
    judge.demand(not seen or not one, f'its remedy is refused: {line}; after {seen}')
    seen.add(line)
    advice = ADVICE.search(line)
    remedies = advice[1].split() if advice else []
    if not remedies or kind not in (commands.ONE, commands.SEVERAL):
      return 'refused'
    fields = {remedy.partition('=')[0] for remedy in remedies}
    arguments = [*(one for one in arguments if one.partition('=')[0] not in fields), *remedies]
  raise judge.Fault(f'{MAX_REMEDIES} remedies in a row, the last: {line}')


def judge_accepted(rng: np.random.Generator, config: ConfigDict) -> None:
  """An accepted config can be saved and built, and its workdir can be made."""
  stages = list(config.stages.values()) if config.objective == 'recipe' else [config]
  for stage in stages:
    text = json.dumps(stage.to_dict(), allow_nan=False)
    judge.demand(set(json.loads(text)) == set(stage), f'written as {text[:300]}')
    judge.demand(find_unprintable(stage) is None, f'unprintable: {find_unprintable(stage)!r:.300}')
    if config.objective != 'evaluate':
      os.makedirs(stage.workdir, exist_ok=True)
  if config.objective != 'evaluate':
    build(rng, stages[rng.integers(len(stages))])


def plan_visits(config: ConfigDict) -> Any:
  """The plan on tasks of 1000 images. Visits of an epoch may then be too long for a run, which no check of the config
  can know; if they are refused, the plan on tasks of no images."""
  from mtpret_jax import stages
  from mtpret_jax.config.errors import ConfigError
  try:
    return stages.make_plan(config, dict.fromkeys(config.tasks, 1000))
  except ConfigError as error:
    judge.judge_line(str(error))
    has_epochs = not all(task_config.steps for task_config in config.tasks.values())
    judge.demand(has_epochs, f'refused after it was accepted: {error}')
    return stages.make_plan(config, dict.fromkeys(config.tasks, 0))


def find_unprintable(stage: ConfigDict) -> str | None:
  """A string of the config that would garble a log, or None."""
  return next((value for _, value in walk(stage.to_dict()) if isinstance(value, str) and not value.isprintable()), None)


def build(rng: np.random.Generator, config: ConfigDict) -> None:
  """Builds the parts of a run of one stage, and computes a few learning rates."""
  import jax

  from mtpret_jax.report import abstract_run
  from mtpret_jax.runtime.loss_guard import make_guard
  from mtpret_jax.step import make_optimiser, make_schedule, make_visit_schedule, shape_state
  run = abstract_run.make_abstract_run(config)
  optimiser, objective = make_optimiser(config.optimiser), run.objective
  make_guard(config)
  if config.objective == 'multitask':
    plan = plan_visits(config)
    judge.demand(plan.steps > 0 and plan.visits, 'a run without steps')
    plan.round_ends, plan.begins, plan.find(plan.steps - 1)
    schedule, steps = make_visit_schedule(config, plan), plan.steps
  else:
    schedule, steps = make_schedule(config.optimiser, config.steps), config.steps
  learning_rates = np.array([schedule(step) for step in (0, 1, steps // 2, steps - 1)])
  judge.demand(np.isfinite(learning_rates).all() and (learning_rates >= 0).all(), f'learning rates {learning_rates}')
  state = shape_state(objective, optimiser)
  if rng.random() < TRACED:
    task = values.pick(rng, list(run.batches))
    (loss, _) = jax.eval_shape(
      lambda params, carry, batch: objective.loss(task, params, carry, batch, jax.numpy.int32(0), jax.random.key(0)),
      state.params, state.carry, run.batches[task])
    judge.demand(loss.shape == (), f'a loss of {loss.shape}')
