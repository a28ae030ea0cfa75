"""The comparison with torchvision: our side takes the real step on the batch that training would read."""

import numpy as np
import pytest

from benchmarks import task_step
from mtpret_jax.report.abstract_run import shape_labelled_batch
from tests.support.small_runs import TRUNK


def make_options(kind, *flags):
  options = task_step.make_parser().parse_args([f'--kind={kind}', '--size=32', '--batch=2', *flags])
  options.model = TRUNK
  return options


@pytest.mark.parametrize('kind', task_step.CLASSES)
def test_a_batch_has_the_fields_that_training_reads(kind):
  options = make_options(kind)
  task_config = task_step.make_config(options).tasks[task_step.NAME]
  field, classes = task_step.CLASSES[kind]
  batch = task_step.make_batch(options, task_config)
  assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
    name: (shape.shape, shape.dtype) for name, shape in shape_labelled_batch(task_config, {field: classes}).items()}


def test_boxes_lie_in_the_image_and_the_other_slots_are_empty():
  labels = task_step.make_labels(make_options('detection', '--boxes=2'), 37, 5, np.random.default_rng(0))
  assert (labels['class_id'][:, :2] >= 0).all() and (labels['class_id'][:, 2:] == -1).all()
  assert (labels['boxes'][:, :2, 2:] > labels['boxes'][:, :2, :2]).all() and (labels['boxes'] <= 1).all()


@pytest.mark.parametrize('flags', [(), ('--inference',)], ids=['training', 'inference'])
def test_our_side_works_without_torch(flags, one_block):
  take_steps, description = task_step.make_our_steps(make_options('classification', *flags))
  take_steps(1)
  assert 'MB of temporary memory' in description
