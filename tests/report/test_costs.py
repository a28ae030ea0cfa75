"""What a dry run says about arithmetic, memory, disk and time."""

import json

import jax
import jax.numpy as jnp
import pytest

from mtpret_jax.report import dry_run
from mtpret_jax.report.costs import Cost, StepCost, count_bytes, count_flops, measure
from mtpret_jax.runtime.image_counts import Images
from tests.support import small_runs


def count(function, *shapes):
  return count_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def convolve(images, kernel, stride=1):
  return jax.lax.conv_general_dilated(images, kernel, (stride, stride), 'SAME',
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def test_products_and_convolutions_count_also_in_loops_and_jitted_functions():
  assert count(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
  loop = jax.jit(lambda a, b: jax.lax.fori_loop(0, 7, lambda _, x: x @ b, a))
  assert count(loop, (3, 4), (4, 4)) == 7 * 2 * 3 * 4 * 4
  assert count(convolve, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def test_a_gradient_costs_twice_the_convolution_and_what_is_not_used_costs_nothing():
  images, kernel = (2, 8, 8, 4), (3, 3, 4, 4)
  forward = count(lambda x, k: convolve(x, k, 2), images, kernel)
  gradients = jax.grad(lambda x, k: convolve(x, k, 2).sum(), (0, 1))
  assert count(gradients, images, kernel) == 2 * forward
  assert count(lambda x, k: (convolve(x, k), x)[1], images, kernel) == 0


def test_the_cost_of_a_run_is_that_of_its_state(two_tasks, two_tasks_run):
  _, state = two_tasks_run
  cost = measure(two_tasks)
  assert cost.state == count_bytes(state) and cost.best == cost.state - count_bytes(state.opt)
  assert cost.parameters == {part: sum(leaf.size for leaf in jax.tree.leaves(weights))
                             for part, weights in state.params.items()}
  assert set(cost.steps) == {'bone_age', 'pneumonia'}
  step = cost.steps['pneumonia']
  task_config = two_tasks.tasks.pneumonia
  assert step.flops > 0 and step.activations > task_config.batch * task_config.augment.size ** 2 * 4


def test_disk_and_time_follow_from_the_config(tmp_path, one_block):
  config = small_runs.make_finetune()
  config.update(workdir=str(tmp_path), keep=2, keep_finished=1)
  config.data.dir = str(tmp_path)
  cost = Cost({'trunk': 10, 'bone_age': 2}, 30_000_000, 10_000_000, 9_000_000, {'bone_age': StepCost(2e9, 5_000_000)})
  images = {'bone_age': Images(None)}
  describe = lambda steps, speed=None: dry_run.describe_cost(config, cost, steps, images, speed)  # noqa: E731
  prepared = round(24 * 96 ** 2 * 2 / 1e6)
  assert describe({'bone_age': 40}, 16) == [
    'parameters: 10 trunk, 2 bone_age', 'a step of bone_age: batch 16, 2 GFLOP',
    'memory, roughly: 30 MB of weights and optimiser, 9 MB of gradients, up to 5 MB of activations, of which the '
    'compiler saves a part',
    'disk, roughly: 100 MB of checkpoints while it trains, 40 MB when it is finished; '
    f'{prepared} MB of images to prepare',
    'time: 40 steps with 640 images; 40 s of training at 16 images/s (as given); compiling and validation come on top']
  assert 'give --images_per_second=N' in describe({'bone_age': 40})[-1]
  lines = [{'step': step, 'task': 'bone_age', 'images_per_second': speed} for step, speed in ((1, 1), (2, 32), (3, 32))]
  (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert f'20 s of training at 32 images/s (measured in {tmp_path})' in describe({'bone_age': 40})[-1]
  assert describe({})[-1] == 'time: the steps are known when the phantoms are rendered'
  assert dry_run.count_prepared_bytes(config, {'bone_age': Images({'train': 3, 'test': 2})}) == 5 * 40_000


@pytest.mark.parametrize('number, text', [(1.5e9, '1.5 GB'), (2e6, '2 MB')])
def test_bytes_in_words(number, text):
  assert dry_run.describe_bytes(number) == text
