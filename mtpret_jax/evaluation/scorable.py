"""Checks that prepared data can score an earlier run: it has labels, and they are the ones that the run has learned."""

import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.data.sources import open_source
from mtpret_jax.runtime.model_file import FILE, read_tasks
from mtpret_jax.tasks import dataset, find_kind, split_checks


def check_data(config: ConfigDict, run: str, split: str) -> None:
  """Raises ConfigError if a split cannot score a run, see `check_labels`, or if `config.flips` does not fit its labels.
  """
  check_labels(config, run, split)
  for name in config.tasks:
    split_checks.check_flips(config, name, dataset.open_task(config, name, split).about, off='off')


def check_labels(config: ConfigDict, run: str, split: str) -> None:
  """Raises ConfigError if a split cannot score a run. Unlabelled images can only be predicted: the message says how.

  Args:
    config: of the run, with the folder of the data at hand.
    run: its folder. One of an earlier version, without `model.json`, does not say what it has learned: all passes.
  """
  if not pathlib.Path(run, FILE).exists():
    return
  for name, learned in read_tasks(run, config).items():
    task_config, annotation = config.tasks[name], find_kind(learned.kind).annotation
    about = open_source(task_config.dataset, config.data.dir, config.data.stored_size, split, config.data.split).about
    where = f'tasks.{name}: {task_config.dataset} in {config.data.dir}'
    if not about.get(annotation):
      raise ConfigError(f'{where} has no labels for {learned.kind}, so it scores nothing. {advise(run, config, name)}')
    chosen = [finding for finding in (*task_config.findings, task_config.among) if finding]
    if unknown := [finding for finding in chosen if finding not in about['findings']]:
      raise ConfigError(f'{where} has no finding {unknown[0]!r}, which the run has learned, but only '
                        f'{", ".join(about["findings"])}. {advise(run, config, name)}')
    there = dataset.describe_task(about, task_config)
    if list_names(there[annotation]) != list_names(learned.about[annotation]):
      raise ConfigError(f'{where} labels {describe(there[annotation])}, but the run has learned '
                        f'{describe(learned.about[annotation])}: set --config.data.dir to data with the same labels in '
                        f'the same order. {advise(run, config, name)}')
    try:
      dataset.open_task(config, name, split)
    except ConfigError as error:
      reason = as_line(error).partition('. Set --config')[0]  # its remedy is for training
      raise ConfigError(f'tasks.{name}: {reason}. {advise(run, config, name)}') from error


def list_names(annotation: Any) -> Any:
  """What must be equal for scores to mean something: names in their order, or a value's unit."""
  return annotation.get('unit') if isinstance(annotation, Mapping) else list(annotation)


def describe(annotation: Any) -> str:
  if isinstance(annotation, Mapping):
    return f'a value in {annotation.get("unit") or "no unit"}'
  return show(', '.join(annotation)) if isinstance(annotation, Sequence) else show(annotation)


def advise(run: str | os.PathLike[str], config: ConfigDict, task: str) -> str:
  chosen = f' --task={task}' if len(config.tasks) > 1 else ''
  return (f'To predict for images without labels, type python -m mtpret_jax.predict '
          f'--run={shlex.quote(os.fspath(run))}{chosen} IMAGES')
