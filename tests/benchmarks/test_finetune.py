"""The comparison of stage 3 from files to scores: both sides learn the same images, and the ratios are of pairs."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import finetune
from benchmarks.support import task_files
from configs import finetune as config_finetune
from mtpret_jax.data.sources import open_source
from mtpret_jax.tasks.dataset import open_task


@pytest.mark.parametrize('task', ['pneumonia', 'lung', 'tuberculosis'])
def test_the_files_are_the_images_and_labels_that_our_side_learns(task, prepared, tmp_path):
  config = config_finetune.get_config(task)
  config.data.dir, own = str(prepared), config.tasks[task]
  source = open_task(config, task, 'test')
  task_files.export(tmp_path / 'test', open_source(own.dataset, prepared, '256', 'test'), own)
  table = json.loads((tmp_path / 'test' / 'labels.json').read_text())
  assert len(table['images']) == len(source) > 0 and table['classes']
  for row, record in zip(table['images'], (source.records[index] for index in range(len(source))), strict=True):
    assert (tmp_path / 'test' / row['image']).read_bytes() == record['image']
    if task == 'pneumonia':
      column = source.about['findings'].index('pneumonia')
      assert row['present'] == [record['present'][column]] and table['classes'] == ['pneumonia']
    elif task == 'lung':
      assert (tmp_path / 'test' / row['image'].replace('.png', '_mask.png')).read_bytes() == record['mask']
    else:
      assert row['class_id'] == list(record['objects']['class_id'])
      np.testing.assert_array_equal(np.float32(row['boxes']).ravel(), np.ravel(record['objects']['box']))


def test_the_ratios_are_medians_of_pairs(monkeypatch, capsys):
  seconds = {'ours': iter([1.0, 5.0, 9.0, 2.0, 6.0, 10.0]), 'torchvision': iter([3.0, 5.0, 18.0, 8.0, 3.0, 10.0])}
  process = argparse.Namespace(stdin=argparse.Namespace(close=lambda: None), wait=lambda: None)
  monkeypatch.setattr(finetune.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.setattr(finetune.side_by_side, 'start_side', lambda command, side: argparse.Namespace(
    **vars(process), side=side))
  monkeypatch.setattr(finetune, 'measure', lambda process, part: [next(seconds[process.side]), 1.0, 100.0])
  options = finetune.make_parser().parse_args(['--repeats=2', '--steps=6', '--batch=2', '--folder=x'])
  finetune.compare(options)
  lines = capsys.readouterr().out
  assert 'training, wall time: ratio 3.50 (3.00 to 4.00) over torchvision' in lines
  assert 'validation, wall time: ratio 0.75 (0.50 to 1.00)' in lines and 'test, wall time: ratio 1.50' in lines
  assert 'training        ours:     8.0 images/s' in lines and lines.count('processor time: ratio 1.00') == 3
