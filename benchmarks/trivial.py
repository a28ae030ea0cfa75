"""What predictions reach on the test split that are the same for every image: a bar that learning has to clear.

    python -m benchmarks.trivial lung tuberculosis bone_age --data_dir data/phantoms

Of the training images the mean value, the share of each finding, the class that each pixel most often has, and one box
of each kind, the mean over all. The data is what a run of stage 3 on the same tasks has prepared.
"""

import argparse

import numpy as np
from tqdm import tqdm

from configs import finetune
from mtpret_jax.data.records import describe_record
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.predict import stack
from mtpret_jax.tasks import dataset, find_kind


def average_findings(train, about):
  known = np.maximum(np.sum([row['label_mask'] for row in train], 0), 1)
  return {'score': np.sum([row['present'] for row in train], 0) / known}


def average_value(train, about):
  return {'value': np.mean([row['value'] for row in train], 0)}


def average_mask(train, about):
  votes = sum(np.eye(len(about['mask']), dtype=np.int32)[row['mask']] * (row['mask'] >= 0)[..., None] for row in train)
  return {'mask': votes.argmax(-1)}


def average_boxes(train, about):
  boxes, kinds = (np.concatenate([row[field] for row in train]) for field in ('boxes', 'class_id'))
  there = np.unique(kinds[kinds >= 0])
  return {'boxes': np.array([boxes[kinds == kind].mean(0) for kind in there]), 'class_id': there,
          'score': np.ones(len(there))}


AVERAGES = {'classification': average_findings, 'regression': average_value, 'segmentation': average_mask,
            'detection': average_boxes}


def score_average(config, name):
  """The result of `metrics.score` on the test split."""
  task_config = config.tasks[name]
  kind, read = find_kind(task_config.kind), {}
  for split in ('train', 'test'):
    source = dataset.open_task(config, name, split)
    about, reader = dataset.describe_task(source.about, task_config), dataset.make_reader(source, task_config)
    records = [source.records[index] for index in tqdm(range(len(source)), f'{name} {split}', leave=False)]
    read[split] = [(reader(record), record) for record in records]
  guess = AVERAGES[task_config.kind]([row for row, _ in read['train']], about)
  repeated = {field: np.asarray(value)[None] for field, value in guess.items()}
  rows = [kind.make_row(about, {field: np.asarray(value)[None] for field, value in row.items()}, repeated, 0)
          | describe_record(record) for row, record in read['test']]
  columns = {field: stack([row[field] for row in rows], field in kind.metrics.ragged) for field in rows[0]}
  return metrics.score(kind.metrics, about, columns, resamples=config.resamples)


def main():
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
                       f'finetune.py:{name} before, or name another --data_dir') from None
    best = result['scores'][result['headline']]
    print(f'{name}: {result["headline"]} {best["value"]:.3f} ({" to ".join(f"{end:.3f}" for end in best["interval"])}) '
          f'for one prediction for all {result["images"]} images')


if __name__ == '__main__':
  main()
