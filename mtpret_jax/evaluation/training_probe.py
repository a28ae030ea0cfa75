"""The probe of stage 1 while it trains: scores of the trunk in the log, in `probes.jsonl` and in TensorBoard.

It has no intervals and at most `probe.during` images of each split, so that it takes seconds. It only reads the state:
a run gives the same bits with and without it.
"""

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.evaluation import probe
from mtpret_jax.evaluation.probe_models import limit_threads
from mtpret_jax.objectives import Trunk
from mtpret_jax.objectives.key_age import explain_key_age
from mtpret_jax.runtime import distributed, events
from mtpret_jax.runtime.atomic_io import read_intact_lines, read_json_lines, write_atomically
from mtpret_jax.runtime.logging import METRICS
from mtpret_jax.step import TrainState

log = logging.getLogger(__name__)

FILE = 'probes.jsonl'
Scores = Mapping[str, Mapping[str, Any]]  # {dataset: {'metric', 'knn', 'linear'}}


def list_probe_steps(steps: int, every: int) -> frozenset[int]:
  """The numbers of steps after which the trunk is probed: 0, every `every`-th, and the last. None if `every` is 0."""
  return frozenset([*range(0, steps, every), steps]) if every else frozenset()


def make_validate(config: ConfigDict, workdir: str | pathlib.Path, start: int) -> Callable[[TrainState, int], str]:
  """validate(state, step): probes the trunk in the first process, writes the scores, and warns once if queries
  recognise their keys by age. Returns '', because stage 1 never ends early.

  A step that already has a line is not probed again when the run resumes there. A run that starts at step 0 first
  deletes the lines of any earlier run that was interrupted before its first checkpoint.
  """
  if start == 0 and jax.process_index() == 0:
    pathlib.Path(workdir, FILE).unlink(missing_ok=True)
  get_score = functools.cache(lambda: make_score(config))  # reads and compiles at the first probe, and keeps both
  warnings: list[str] = []

  def validate(state: TrainState, step: int) -> str:
    distributed.run_on_first(lambda: probe_once(state, step))
    return ''

  def probe_once(state: TrainState, step: int) -> None:
    lines = read(workdir)
    if step == start and any(line['step'] == step for line in lines):
      return
    scores = get_score()(probe.find_trunk(state))
    first: Scores = next((line['scores'] for line in lines if line['step'] == 0 < step), {})
    if scores:
      log.info('probe at step %d: %s', step, describe_scores(first, scores))
    write(workdir, step, scores)
    if not warnings and (warning := explain_key_age(read_json_lines(pathlib.Path(workdir, METRICS)), config)):
      warnings.append(warning)
      log.warning(warning)
  return validate


def make_score(config: ConfigDict) -> Callable[[Trunk], Scores]:
  """score(trunk) -> {dataset: {'metric', 'knn', 'linear'}}, on at most `probe.during` images of each split."""
  datasets, embed = probe.read_datasets(config, config.probe.during, labelled=True), probe.make_embedder(config)
  scored = probe.list_scored(datasets)
  datasets = {name: datasets[name] for name, _, _ in scored}
  if uses_other_images(datasets, config.probe):
    log.info('the probes while the run trains use at most %d images of each split, and those at the end at most %d, so '
             'their scores differ', config.probe.during, config.probe.images)
  if not scored:
    log.info('the trunk is not probed while it trains: no dataset has labels that the probe can score')

  def score(trunk: Trunk) -> Scores:
    scores: dict[str, dict[str, Any]] = {}
    if not scored:
      return scores
    features = probe.embed_datasets(embed, trunk, datasets)
    with limit_threads():
      for name, label, metric in scored:
        train, validation = datasets[name]['train'], datasets[name]['validation']
        images = np.ones((len(validation['image']), 1))
        scores[name] = {'metric': metric} | {
          kind: float(probe.fit_and_score(kind, label, train, validation, features[name], config.probe)(images)[0])
          for kind in probe.PROBES}
    return scores
  return score


def uses_other_images(datasets: probe.Datasets, config: ConfigDict) -> bool:
  """Whether the probes at the end use more or fewer images of a split than `datasets` has. `config`: `config.probe`."""
  most = max((len(part['image']) for splits in datasets.values() for part in splits.values()), default=0)
  return config.during != config.images and most >= min(config.during, config.images)


def write(workdir: str | pathlib.Path, step: int, scores: Scores) -> None:
  """Appends the line of a step, and TensorBoard's `probe/linear/DATASET` and `probe/knn/DATASET`. Removes the lines of
  this and later steps, which a run may have left that was interrupted after its last checkpoint."""
  lines = [line for line in read(workdir) if line['step'] < step] + [{'step': step, 'scores': scores}]
  write_atomically(pathlib.Path(workdir, FILE), ''.join(json.dumps(line) + '\n' for line in lines))
  with events.open_events(workdir) as writer:
    for name, score in scores.items():
      for kind in probe.PROBES:
        writer.add_scalar(f'probe/{kind}/{name}', score[kind], step, summary_description=score['metric'])


def describe_scores(first: Scores, scores: Scores) -> str:
  """'kermany_pneumonia linear AUROC 0.824 -> 0.871, kNN 0.792 -> 0.850; ...'. `first`: the scores of step 0, or {}."""
  return '; '.join(
    f'{name} linear {score["metric"]} {describe_score(first.get(name), score, "linear")}, '
    f'kNN {describe_score(first.get(name), score, "knn")}' for name, score in scores.items())


def describe_score(first: Mapping[str, Any] | None, score: Mapping[str, Any], kind: str) -> str:
  """'0.824 -> 0.871', the score at step 0 and the present one; '0.871' if there is none of step 0."""
  digits = probe.count_digits(score['metric'])
  return (f'{first[kind]:.{digits}f} -> ' if first else '') + f'{score[kind]:.{digits}f}'


def read(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """The lines of `probes.jsonl`: {'step', 'scores': {dataset: {'metric', 'knn', 'linear'}}}, without damaged ones."""
  return read_intact_lines(pathlib.Path(workdir, FILE), lambda line: isinstance(line.get('scores'), dict) and all(
    map(is_score, line['scores'].values())))


def is_score(score: Any) -> bool:
  """Whether `score` is what `make_score` returns for a dataset."""
  return (isinstance(score, dict) and isinstance(score.get('metric'), str)
          and all(isinstance(score.get(kind), int | float) for kind in probe.PROBES))
