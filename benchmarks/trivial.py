"""Test scores of one constant prediction for all images: a trained model must do better.

    python -m benchmarks.trivial lung tuberculosis bone_age --data_dir data/phantoms

The prediction is made from the training images: the mean value, the frequency of each finding, the most frequent class
of each pixel, and the mean box of each class. The data must be prepared by a run of stage 3 on the same tasks.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import finetune
from mtpret_jax.data.records import describe_record
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.predict import stack
from mtpret_jax.tasks import dataset, find_kind

Row = Mapping[str, Any]


def average_findings(train: Sequence[Row], about: Mapping[str, Any]) -> Row:
  known = np.maximum(np.sum([row['label_mask'] for row in train], 0), 1)
  return {'score': np.sum([row['present'] for row in train], 0) / known}


def average_value(train: Sequence[Row], about: Mapping[str, Any]) -> Row:
  return {'value': np.mean([row['value'] for row in train], 0)}


def average_mask(train: Sequence[Row], about: Mapping[str, Any]) -> Row:
  votes = sum(np.eye(len(about['mask']), dtype=np.int32)[row['mask']] * (row['mask'] >= 0)[..., None] for row in train)
  return {'mask': votes.argmax(-1)}


def average_boxes(train: Sequence[Row], about: Mapping[str, Any]) -> Row:
  boxes, class_ids = (np.concatenate([row[field] for row in train]) for field in ('boxes', 'class_id'))
  classes = np.unique(class_ids[class_ids >= 0])
  return {'boxes': np.array([boxes[class_ids == one].mean(0) for one in classes]), 'class_id': classes,
          'score': np.ones(len(classes))}


AVERAGES = {'classification': average_findings, 'regression': average_value, 'segmentation': average_mask,
            'detection': average_boxes}


def score_average(config: ConfigDict, name: str) -> dict[str, Any]:
  """The result of `metrics.score` on the test split."""
  task_config = config.tasks[name]
  kind, read = find_kind(task_config.kind), {}
  for split in ('train', 'test'):
    source, reader = dataset.open_for_evaluation(config, name, split)
    about = dataset.describe_task(source.about, task_config)
    places = tqdm(range(len(source)), f'{name} {split}', leave=False, disable=None)
    records = [source.records[index] for index in places]
    read[split] = [(reader(record), record) for record in records]
  guess = AVERAGES[task_config.kind]([row for row, _ in read['train']], about)
  repeated = {field: np.asarray(value)[None] for field, value in guess.items()}
  rows = [kind.make_row(about, {field: np.asarray(value)[None] for field, value in row.items()}, repeated, 0)
          | describe_record(record) for row, record in read['test']]
  columns = {field: stack([row[field] for row in rows], field in kind.metrics.ragged) for field in rows[0]}
  return metrics.score(kind.metrics, about, columns, resamples=config.resamples)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('tasks', nargs='+', help='as in configs/finetune.py:TASK')
  parser.add_argument('--data_dir', default='data/phantoms')
  options = parser.parse_args()
  for name in options.tasks:
    config = finetune.get_config(name)
    config.data.dir = options.data_dir
    try:
      result = score_average(config, name)
    except FileNotFoundError:
      raise SystemExit(f'{config.tasks[name].dataset} is not prepared in {options.data_dir}: run --config=configs/'
                       f'finetune.py:{name} first, or name another --data_dir') from None
    best = result['scores'][result['headline']]
    print(f'{name}: {result["headline"]} {best["value"]:.3f} ({" to ".join(f"{end:.3f}" for end in best["interval"])}) '
          f'for one prediction for all {result["images"]} images')


if __name__ == '__main__':
  main()
