"""Scores with bootstrap intervals, beside a plain loop that calls scikit-learn or pycocotools on each resample.

    python -m benchmarks.evaluation --images=10000

The predictions are made up, about three images per patient. `ours` is all of `evaluation.metrics.score`: every score of
the task with its interval, and the headline score of every subgroup. The plain loop computes the interval of the
headline score alone, from the same draws, on `--plain` resamples; its time for `--resamples` is extrapolated. On the
same few resamples the intervals of both must be equal.
"""

import argparse
import contextlib
import functools
import io
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sk

from mtpret_jax.evaluation.metrics import bootstrap_interval, score
from mtpret_jax.evaluation.metrics.matching import list_detections, list_ground_truth, run_cocoeval
from mtpret_jax.tasks import KINDS

ABOUT: dict[str, dict[str, Any]] = {
  'classification': {'findings': [f'finding {at}' for at in range(14)], 'relation': 'independent'},
  'regression': {'value': {'name': 'bone age', 'unit': 'months'}},
  'segmentation': {'mask': ['background', 'lung']},
  'detection': {'box_classes': ['active', 'latent']},
}


def parse_options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--images', type=int, default=10000)
  parser.add_argument('--resamples', type=int, default=1000)
  parser.add_argument('--plain', type=int, default=3, help='resamples of the plain loop')
  return parser.parse_args()


Rows = dict[str, np.ndarray]


def make_rows(task: str, images: int, rng: np.random.Generator) -> Rows:
  rows = {'image_id': np.arange(images).astype(str), 'patient': rng.integers(-(-images // 3), size=images).astype(str),
          'study': np.full(images, ''), 'sex': rng.choice(['F', 'M'], images), 'age': rng.uniform(0, 90, images),
          'view': rng.choice(['PA', 'AP'], images), 'part': np.full(images, 'chest')}
  return rows | MAKERS[task](images, rng)


def make_findings(images: int, rng: np.random.Generator) -> Rows:
  present = rng.random((images, 14)) < 0.1
  score = 1 / (1 + np.exp(2 - present - rng.normal(size=(images, 14))))
  return {'score': score, 'present': present, 'label_mask': np.ones((images, 14), bool)}


def make_values(images: int, rng: np.random.Generator) -> Rows:
  value = rng.normal(120, 40, (images, 1))
  return {'value': value, 'predicted': value + rng.normal(0, 12, (images, 1))}


def make_confusions(images: int, rng: np.random.Generator) -> Rows:
  return {'confusion': rng.integers(0, 1000, (images, 2, 2)) + 10000 * np.eye(2, dtype=int)}


def make_boxes(images: int, rng: np.random.Generator) -> Rows:
  """Ten boxes per image; one image in two has one true box, which is found."""
  columns = {name: np.empty(images, object) for name in ('boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id')}
  for image in range(images):
    corner = rng.uniform(0, 0.6, (10, 2))
    boxes = np.hstack([corner, corner + rng.uniform(0.1, 0.4, (10, 2))])
    true = rng.integers(2)
    columns['boxes'][image], columns['class_id'][image] = boxes, rng.integers(0, 2, 10)
    columns['score'][image] = rng.random(10)
    columns['truth_boxes'][image] = boxes[:true] + 0.02 * rng.normal(size=(true, 4))
    columns['truth_class_id'][image] = columns['class_id'][image][:true]
  return columns | {'sizes': np.full((images, 2), 512)}


MAKERS = {'classification': make_findings, 'detection': make_boxes, 'regression': make_values,
          'segmentation': make_confusions}


def score_findings(rows: Rows, drawn: np.ndarray) -> float:
  return sk.roc_auc_score(rows['present'][drawn], rows['score'][drawn])


def score_values(rows: Rows, drawn: np.ndarray) -> float:
  return sk.mean_absolute_error(rows['value'][drawn], rows['predicted'][drawn])


def score_masks(rows: Rows, drawn: np.ndarray) -> float:
  """In numpy: no library computes Dice per image from pixel counts."""
  pixels = rows['confusion'][drawn]
  return np.mean(2 * pixels[:, 1, 1] / (pixels[:, 1].sum(1) + pixels[:, :, 1].sum(1)))


def score_boxes(rows: Rows, drawn: np.ndarray) -> float:
  part = {name: values[drawn] for name, values in rows.items()}
  evaluation = run_cocoeval(list_ground_truth(part), list_detections(part), len(drawn), 2)
  with contextlib.redirect_stdout(io.StringIO()):
    evaluation.accumulate()
  return evaluation.eval['precision'][0].mean()


PLAIN = {'classification': score_findings, 'detection': score_boxes, 'regression': score_values,
         'segmentation': score_masks}


def measure(call: Callable[[], Any]) -> tuple[Any, float]:
  """(the result of `call`, seconds)."""
  began = time.perf_counter()
  result = call()
  return result, time.perf_counter() - began


def compare(options: argparse.Namespace) -> None:
  print(f'{options.images:,} images, {options.resamples:,} resamples; {os.cpu_count()} cores, load '
        f'{os.getloadavg()[0]:.1f} over the last minute')
  for task, plain in PLAIN.items():
    rows = make_rows(task, options.images, np.random.default_rng(0))
    plain_interval, plain_seconds = measure(functools.partial(
      bootstrap_interval, functools.partial(plain, rows), rows['patient'], resamples=options.plain))
    few = score(KINDS[task].metrics, ABOUT[task], rows, resamples=options.plain)
    np.testing.assert_allclose(few['scores'][few['headline']]['interval'], plain_interval, rtol=1e-9)
    result, seconds = measure(functools.partial(score, KINDS[task].metrics, ABOUT[task], rows,
                                                resamples=options.resamples))
    extrapolated = plain_seconds / options.plain * options.resamples
    parts = f'{len(result["scores"])} scores and {len(result["groups"])} subgroups'
    print(f'  {task:>14}: ours {seconds:.1f} s for {parts}; ratio {extrapolated / seconds:.1f}\n'
          f'                  plain {plain_seconds:.2f} s for {options.plain} resamples of {result["headline"]} alone, '
          f'extrapolated {extrapolated:,.0f} s for {options.resamples:,}')


if __name__ == '__main__':
  compare(parse_options())
