"""A queue whose keys are known by their age is explained; other differences between queue and batch are not."""

import pytest

from configs import pretrain
from mtpret_jax.objectives.key_age import explain_key_age


def with_queue():
  config = pretrain.get_config()  # a queue of 512, batches of 64
  config.moco.negatives = 'queue'
  return config


def make_lines(accuracy, accuracy_batch, steps=200, every=10):
  return [{'step': step, 'task': 'moco', 'accuracy': accuracy, 'accuracy_batch': accuracy_batch}
          for step in range(every, steps + 1, every)]


def test_queries_that_know_the_keys_of_the_queue_by_their_age_are_explained():
  config = with_queue()
  explained = explain_key_age(make_lines(0.23, 0.06), config)
  assert 'up to step 200' in explained and '512 keys of the queue more often (0.23)' in explained
  assert '63 other keys of the batch (0.06)' in explained and '--config.moco.negatives=batch' in explained
  assert '--config.moco.momentum' in explained and '--config.moco.queue' in explained and '\n' not in explained
  assert explain_key_age([*make_lines(0.04, 0.17), *make_lines(0.23, 0.06, 400)[20:]], config), 'the last lines count'


@pytest.mark.parametrize('case, lines, fields', [
  ('the queue is harder', make_lines(0.04, 0.17), {}), ('within the noise', make_lines(0.17, 0.15), {}),
  ('it is over', [*make_lines(0.23, 0.06), *make_lines(0.04, 0.17, 400)[20:]], {}), ('no lines', [], {}),
  ('too few queries', make_lines(0.23, 0.06, 70), {}), ('not finite', make_lines(float('nan'), 0.06), {}),
  ('keys of random vectors', make_lines(0.9, 0.1, 100), {'moco.queue': 64 * 30}),
  ('fewer negatives in the queue', make_lines(0.23, 0.06), {'moco.queue': 32}),
  ('fewer of the own dataset', make_lines(0.23, 0.06), {'moco.queue': 256, 'moco.same_source': True})])
def test_other_differences_between_queue_and_batch_are_not_called_age(case, lines, fields):
  config = with_queue()
  config.update_from_flattened_dict(fields)
  assert explain_key_age(lines, config) == '', case
