"""Preflight: its batches have the shapes of real data, and its figures agree with arithmetic by hand."""

import importlib.util

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import continual, evaluate, tasks
from configs.pretrain import get_config
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.preflight import hlo, report
from mtpret_jax.preflight.chip_specs import Chip
from mtpret_jax.preflight.report import DoesNotFit, StepCost, compute_cost, estimate_largest, estimate_seconds, run
from mtpret_jax.preflight.topology import Pod, find_pod
from mtpret_jax.report.abstract_run import make_abstract_run
from mtpret_jax.runtime.sharding import by_batch, make_mesh, replicated
from mtpret_jax.stages import make_run
from mtpret_jax.step import choose_options


def check_shapes(config):
  """The abstract batch of each task has the shapes and dtypes of a real one."""
  abstract, met, batches = make_abstract_run(config).batches, set(), make_run(config).batches
  for step in range(len(abstract)):  # one step each
    task, batch = batches[step]
    assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
      name: (rows.shape, rows.dtype) for name, rows in abstract[task].items()}
    met.add(task)
  assert met == set(abstract)


@pytest.mark.parametrize('positives', [(), ('mura',)])
def test_abstract_pairs_have_the_shapes_of_the_data(positives, prepared):
  config = get_config('smoke')
  config.data.update(dir=str(prepared), patient_positives=positives)
  check_shapes(config)


@pytest.mark.parametrize('order', ['cyclic', 'joint'])
def test_abstract_labelled_batches_have_the_shapes_of_the_data(order, prepared):
  config = continual.get_config('smoke')
  config.tasks = tasks.embedded(['pneumonia', 'bone_age', 'lung', 'tuberculosis'], steps=1)
  config.order, config.data.dir = order, str(prepared)
  check_shapes(config)


@pytest.fixture
def pretrain(one_block):
  return make_pretrain()


@pytest.fixture(scope='module')
def whole(one_block):
  return compute_cost(make_pretrain(), 'moco', make_pod())


def make_pretrain():
  """Stage 1 on a trunk of one block, four images on each of eight devices, and nothing prepared."""
  config = get_config('smoke')
  config.update(trunk='one_block', batch=32)
  config.moco.update(group=4, shuffle_groups=4)
  config.data.dir = 'nowhere'
  return config


def make_pod(memory=1e9):
  """As if `here:8` were a pod: of this machine's eight fake devices, with so many bytes of memory each."""
  return Pod('here:8', Chip(flops=1e12, memory=memory, bandwidth=1e11, network=1e10), jax.devices())


def test_a_step_is_compiled_without_data(whole):
  cost = whole
  assert dict(cost.collectives)['all-gather'] == 32 * (128 + 1) * 4, 'keys and sources'
  kernels = 2 * 9 * 64 ** 2 + 49 * 64 + 64 ** 2 + 64 * 128  # of the block, the stem and the projector
  assert cost.memory['arguments'] > 3 * 4 * kernels, 'weights, momentum and key encoder'
  assert cost.memory['aliased'] > 0.9 * cost.memory['outputs'], 'the state is updated in place'
  stem = 2 * 49 * 64 * 16 ** 2  # operations for an image of 32 px, but for the padding
  assert 4 * 4 * 0.8 * stem < cost.flops < 1e12, 'two passes, one of them with a gradient, of four images'
  assert cost.hbm_bytes > cost.memory['arguments']


def test_a_sharded_state_takes_less_memory(whole, one_block):
  config = make_pretrain()
  config.sharding = 'fsdp'
  sharded = compute_cost(config, 'moco', make_pod())
  pieces = 3 * 4 * 2 * 9 * 64 ** 2  # bytes of the block's two kernels, their momentum and those of the key encoder
  assert whole.memory['arguments'] - sharded.memory['arguments'] == pieces * 7 / 8
  assert 0.99 * whole.flops < sharded.flops < whole.flops, 'each device updates its pieces only'
  gathered = [size for kind, size in sharded.collectives if kind == 'all-gather']
  kernels = 4 * 2 * 9 * 64 ** 2
  assert sum(gathered) == 32 * (128 + 1) * 4 + 2 * kernels, 'the keys, the kernels once, those of the key encoder'


def fake_cost(monkeypatch, memory):
  """No compilation: a step takes 100 MB, and 1 MB for each image on a chip."""
  monkeypatch.setattr(report, 'find_pod', lambda name: make_pod(memory))
  monkeypatch.setattr(report, 'compute_cost', lambda config, task, pod: make_cost(
    arguments=int(1e8), temporaries=config.batch // 8 * int(1e6),
    collectives=[('all-reduce', 4e6), ('all-reduce', 1e6)]))


def test_the_cost_is_printed_per_chip(pretrain, monkeypatch, capsys):
  fake_cost(monkeypatch, memory=1e9)
  run(pretrain, 'here:8')
  printed = capsys.readouterr().out
  for line in ("pretrain, step 'moco' on here:8: 8 chips, 4 images per chip",
               'HBM per chip    0.10 GB of 1 GB: arguments 0.10 GB', 'FLOPs per chip  0.002 TFLOP',
               'HBM traffic     4.00 GB read and written per chip', 'collectives     2 all-reduce (5.00 MB per chip)',
               'bound by        HBM: a step takes at least 40.0 ms; at the published peaks compute takes 2.0 ms, HBM',
               'throughput      at most 800 images/s, 100 per chip',
               'largest batch   about 896 images per chip, 7,168 in all', 'nothing was run'):
    assert line in printed


def test_the_cost_is_printed_before_the_second_compilation(pretrain, monkeypatch, capsys):
  fake_cost(monkeypatch, memory=1e9)
  compute, printed = report.compute_cost, []
  monkeypatch.setattr(report, 'compute_cost',
                      lambda *given: (printed.append(capsys.readouterr().out), compute(*given))[1])
  run(pretrain, 'here:8')
  first, second = printed
  assert 'HBM per chip' not in first
  assert 'HBM per chip    0.10 GB of 1 GB' in second and 'largest batch   about' not in second


def test_a_step_that_does_not_fit_is_refused_with_a_batch_that_would(pretrain, monkeypatch):
  fake_cost(monkeypatch, memory=1.025e8)
  with pytest.raises(DoesNotFit, match="'moco', does not fit: it needs 0.10 GB of HBM .* try a smaller --config.batch"):
    run(pretrain, 'here:8')
  pretrain.batch = pretrain.moco.queue = 128
  fake_cost(monkeypatch, memory=1.09e8)
  with pytest.raises(DoesNotFit, match='try --config.batch=64, a larger pod'):
    run(pretrain, 'here:8')


def test_a_step_that_the_compiler_refuses_does_not_fit(pretrain, monkeypatch, capsys):
  fake_cost(monkeypatch, memory=16e9)
  monkeypatch.setattr(report, 'compute_cost', lambda config, task, pod: None)
  with pytest.raises(DoesNotFit, match='does not fit: it needs more HBM than the 16 GB of a chip of here:8; try a sma'):
    run(pretrain, 'here:8')
  assert 'HBM per chip    more than 16 GB, according to the compiler' in capsys.readouterr().out


def test_a_batch_that_the_pod_cannot_split_is_refused_before_anything_is_compiled(pretrain, monkeypatch):
  fake_cost(monkeypatch, memory=1e9)
  pretrain.batch = 36
  with pytest.raises(ConfigError, match='batch of 36 cannot be cut into groups of 4 on 8 devices'):
    run(pretrain, 'here:8')


@pytest.fixture
def recipe(pretrain):
  return ConfigDict(dict(objective='recipe', stages={'pretrain': pretrain}))


def test_the_advice_for_a_recipe_names_flags_of_its_stage(recipe, monkeypatch):
  fake_cost(monkeypatch, memory=1.025e8)
  with pytest.raises(DoesNotFit) as error:
    run(recipe, 'here:8')
  assert 'a smaller --config.stages.pretrain.batch,' in str(error.value)
  assert str(error.value).endswith('--config.stages.pretrain.dtype=bfloat16 or --config.stages.pretrain.sharding=fsdp')
  assert str(error.value).startswith("pretrain, step 'moco', does not fit")
  recipe.stages.pretrain.batch = 36
  with pytest.raises(ConfigError, match='^stage pretrain: batch of 36 .* try --config.stages.pretrain.batch='):
    run(recipe, 'here:8')


def test_an_error_in_the_labels_of_a_recipe_names_the_stage(recipe, monkeypatch):
  def refuse(config):
    raise ConfigError('its labels are not known', {'data.dir': 'data'})
  fake_cost(monkeypatch, memory=1e9)
  monkeypatch.setattr(report, 'make_abstract_run', refuse)
  with pytest.raises(ConfigError, match='^stage pretrain: its labels .* --config.stages.pretrain.data.dir=data$'):
    run(recipe, 'here:8')


def test_an_evaluation_has_no_steps_to_compile():
  with pytest.raises(ConfigError, match='an evaluation has none: give the config of a stage'):
    run(evaluate.get_config(), 'v5e:4x4')


def make_cost(arguments=0, temporaries=0, **given):
  memory = dict(arguments=arguments, temporaries=temporaries, outputs=10, aliased=10, program=5)
  return StepCost(**dict(dict(memory=memory, flops=2e9, hbm_bytes=4e9, bytes_accessed=None, collectives=[],
                              compile_seconds=1), **given))


def test_memory_that_is_reused_counts_once():
  assert make_cost(arguments=100, temporaries=30).peak_memory == 100 + 30 + 5


def test_the_largest_batch_is_extrapolated_linearly_in_whole_groups(pretrain):
  """105 bytes without images and 10 per image, in memory for 107 images: 104 in groups of 4."""
  pod = Pod('here', Chip(1, 105 + 10 * 107, 1, 1), [None] * 8)
  one, two = (make_cost(arguments=100, temporaries=10 * images) for images in (4, 8))
  assert estimate_largest(pretrain, 'moco', pod, one, two) == 104
  assert estimate_largest(pretrain, 'moco', pod, one, None) is None


def test_compute_hbm_and_network_each_have_their_time():
  pod = Pod('here', Chip(flops=1e9, memory=1, bandwidth=8e9, network=2e9), [None] * 4)
  seconds = estimate_seconds(make_cost(collectives=[('all-reduce', 8e9), ('all-gather', 4e9)]), pod)
  assert seconds == {'compute': 2.0, 'HBM': 0.5, 'network': pytest.approx((2 * 8 + 4) * 3 / 4 / 2)}


@pytest.mark.parametrize('name, message', [
  ('v9:2x2', "unknown chip 'v9'.*choose one of v4, v5e"), ('h100:9', 'needs the number of GPUs in one host, 1 to 8'),
  ('v5e:4', 'give the sides in chips, such as v5e:4x4')])
def test_a_pod_that_does_not_exist_is_refused(name, message):
  with pytest.raises(ConfigError, match=message):
    find_pod(name)


@pytest.mark.parametrize('name, message', [
  ('v5e:2x4', 'needs libtpu .*pip install'), ('h100:8', r'pip install "jax\[cuda')])
def test_a_compiler_that_is_not_installed_is_named(name, message, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda package: None)
  with pytest.raises(ConfigError, match=message):
    find_pod(name)


def test_libtpu_compiles_without_a_tpu():
  pytest.importorskip('libtpu')
  pod = find_pod('v5e:4x4')
  mesh = make_mesh(pod.devices)
  rows = jax.ShapeDtypeStruct((256, 128), np.float32)
  compiled = jax.jit(lambda rows: rows.sum(0), in_shardings=by_batch(mesh), out_shardings=replicated(mesh)).lower(
    rows).compile()
  assert len(pod.devices) == 16 and pod.processes == 4
  assert hlo.list_collectives(compiled.as_text()) == [('all-reduce', 128 * 4)]
  with pytest.raises(ConfigError, match='libtpu does not support the slice'):
    find_pod('v5e:9x9')


def test_all_reduces_of_many_arrays_are_combined_into_one():
  pytest.importorskip('libtpu')
  mesh = make_mesh(find_pod('v5e:2x2').devices)
  rows = [jax.ShapeDtypeStruct((8, 128), np.float32)] * 300
  compiled = jax.jit(lambda rows: [each.sum(0) for each in rows], in_shardings=by_batch(mesh),
                     out_shardings=replicated(mesh), compiler_options=choose_options(mesh.local_devices[0])).lower(
    rows).compile()
  assert hlo.list_collectives(compiled.as_text()) == [('all-reduce', 300 * 128 * 4)]
