"""A run is judged for a pod that is not here: by shapes that are those of its data, and by sums done on paper."""

import importlib.util

import jax
import numpy as np
import pytest

from configs import continual, tasks
from configs.pretrain import get_config
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.preflight import hlo, report
from mtpret_jax.preflight.abstract_run import rehearse
from mtpret_jax.preflight.chip_specs import Chip
from mtpret_jax.preflight.report import Account, DoesNotFit, find_most, find_seconds, run, take_account
from mtpret_jax.preflight.topology import Pod, find_pod
from mtpret_jax.runtime.sharding import by_batch, make_mesh, replicated
from mtpret_jax.stages import make_run
from mtpret_jax.step import choose_options


def check_shapes(config):
  """The rehearsed batch of each task is the one that its data make."""
  rehearsed, met, batches = rehearse(config).batches, set(), make_run(config).batches
  for step in range(len(rehearsed)):  # one step each
    task, batch = batches[step]
    assert {name: (rows.shape, rows.dtype) for name, rows in batch.items()} == {
      name: (rows.shape, rows.dtype) for name, rows in rehearsed[task].items()}
    met.add(task)
  assert met == set(rehearsed)


def test_pairs_are_rehearsed_in_the_shapes_of_the_data(prepared):
  config = get_config('smoke')
  config.data.dir = str(prepared)
  check_shapes(config)


@pytest.mark.parametrize('order', ['cyclic', 'joint'])
def test_labelled_batches_are_rehearsed_in_the_shapes_of_the_data(order, prepared):
  config = continual.get_config('smoke')
  config.tasks = tasks.embedded(['pneumonia', 'bone_age', 'lung', 'tuberculosis'], steps=1)
  config.order, config.data.dir = order, str(prepared)
  check_shapes(config)


@pytest.fixture
def pretrain(one_block):
  return make_pretrain()


@pytest.fixture(scope='module')
def whole(one_block):
  return take_account(make_pretrain(), 'moco', make_pod())


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


def test_a_step_is_compiled_and_accounted_for_without_data(whole):
  account = whole
  assert dict(account.messages)['all-gather'] == 32 * (128 + 1) * 4, 'keys and sources'
  kernels = 2 * 9 * 64 ** 2 + 49 * 64 + 64 ** 2 + 64 * 128  # of the block, the stem and the projector
  assert account.memory['arguments'] > 3 * 4 * kernels, 'weights, momentum and slow weights'
  assert account.memory['aliased'] > 0.9 * account.memory['outputs'], 'the state is updated in place'
  stem = 2 * 49 * 64 * 16 ** 2  # operations for an image of 32 px, but for the padding
  assert 4 * 4 * 0.8 * stem < account.flops < 1e12, 'two passes, one of them with a gradient, of four images'
  assert account.traffic > account.memory['arguments']


def test_a_state_that_is_cut_takes_less_memory(whole, one_block):
  config = make_pretrain()
  config.sharding = 'fsdp'
  cut = take_account(config, 'moco', make_pod())
  pieces = 3 * 4 * 2 * 9 * 64 ** 2  # bytes of the block's two kernels, their momentum and the slow ones
  assert whole.memory['arguments'] - cut.memory['arguments'] == pieces * 7 / 8
  assert 0.99 * whole.flops < cut.flops < whole.flops, 'each device updates its pieces only'
  gathered = [size for kind, size in cut.messages if kind == 'all-gather']
  kernels = 4 * 2 * 9 * 64 ** 2
  assert sum(gathered) == 32 * (128 + 1) * 4 + 2 * kernels, 'the keys, the kernels once, the slow ones'


def see(monkeypatch, memory):
  """Flies with accounts made up: 100 MB, and 1 MB for each image."""
  monkeypatch.setattr(report, 'find_pod', lambda name: make_pod(memory))
  monkeypatch.setattr(report, 'take_account', lambda config, task, pod: make_account(
    arguments=int(1e8), temporaries=config.batch // 8 * int(1e6), messages=[('all-reduce', 4e6), ('all-reduce', 1e6)]))


def test_an_account_is_told_by_the_chip(pretrain, monkeypatch, capsys):
  see(monkeypatch, memory=1e9)
  run(pretrain, 'here:8')
  told = capsys.readouterr().out
  for line in ("pretrain, step 'moco' on here:8, 4 images a chip", 'memory     0.10 GB of 1 GB: arguments 0.10 GB',
               'network    2 all-reduce of 5.00 MB', 'bound      800 images/s, 100 a chip, by memory',
               'batch      at most about 896 images a chip, 7,168 in all', 'nothing was run'):
    assert line in told


def test_the_account_is_told_before_the_second_compilation(pretrain, monkeypatch, capsys):
  see(monkeypatch, memory=1e9)
  take, told = report.take_account, []
  monkeypatch.setattr(report, 'take_account', lambda *given: (told.append(capsys.readouterr().out), take(*given))[1])
  run(pretrain, 'here:8')
  first, second = told
  assert 'memory ' not in first
  assert 'memory     0.10 GB of 1 GB' in second and 'batch ' not in second


def test_a_step_that_does_not_fit_is_refused_with_a_batch_that_would(pretrain, monkeypatch):
  see(monkeypatch, memory=1.025e8)
  with pytest.raises(DoesNotFit, match="'moco', does not fit: it needs 0.10 GB .* try a smaller --config.batch"):
    run(pretrain, 'here:8')
  pretrain.batch = pretrain.moco.queue = 128
  see(monkeypatch, memory=1.09e8)
  with pytest.raises(DoesNotFit, match='try --config.batch=64, a larger pod'):
    run(pretrain, 'here:8')


def test_a_batch_that_the_pod_cannot_split_is_refused_before_anything_is_compiled(pretrain, monkeypatch):
  see(monkeypatch, memory=1e9)
  pretrain.batch = 36
  with pytest.raises(ConfigError, match='batch of 36 cannot be cut into groups of 4 on 8 devices'):
    run(pretrain, 'here:8')


def make_account(arguments=0, temporaries=0, **given):
  memory = dict(arguments=arguments, temporaries=temporaries, outputs=10, aliased=10, program=5)
  return Account(**dict(dict(memory=memory, flops=2e9, traffic=4e9, accessed=None, messages=[], seconds=1), **given))


def test_memory_that_is_reused_counts_once():
  assert make_account(arguments=100, temporaries=30).peak == 100 + 30 + 5


def test_the_most_images_lie_on_a_straight_line_and_come_in_groups(pretrain):
  """105 bytes for none, 10 for an image: 100 more images, and then 3 of a group of 4 are left over."""
  pod = Pod('here', Chip(1, 105 + 10 * 107, 1, 1), [None] * 8)
  one, two = (make_account(arguments=100, temporaries=10 * images) for images in (4, 8))
  assert find_most(pretrain, 'moco', pod, one, two) == 104
  assert find_most(pretrain, 'moco', pod, one, None) is None


def test_each_limit_of_a_chip_takes_its_time():
  pod = Pod('here', Chip(flops=1e9, memory=1, bandwidth=8e9, network=2e9), [None] * 4)
  seconds = find_seconds(make_account(messages=[('all-reduce', 8e9), ('all-gather', 4e9)]), pod)
  assert seconds == {'compute': 2.0, 'memory': 0.5, 'network': pytest.approx((2 * 8 + 4) * 3 / 4 / 2)}


@pytest.mark.parametrize('name, told', [
  ('v9:2x2', "unknown chip 'v9'.*have v4, v5e"), ('h100:9', 'give their number in one host, 1 to 8'),
  ('v5e:4', 'give its sides in chips, such as v5e:4x4')])
def test_what_is_no_pod_is_told_so(name, told):
  with pytest.raises(ConfigError, match=told):
    find_pod(name)


@pytest.mark.parametrize('name, told', [
  ('v5e:2x4', 'needs libtpu .*pip install'), ('h100:8', r'pip install "jax\[cuda')])
def test_a_compiler_that_is_not_installed_is_named(name, told, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda package: None)
  with pytest.raises(ConfigError, match=told):
    find_pod(name)


def test_libtpu_compiles_for_a_pod_that_is_not_here():
  pytest.importorskip('libtpu')
  pod = find_pod('v5e:4x4')
  mesh = make_mesh(pod.devices)
  rows = jax.ShapeDtypeStruct((256, 128), np.float32)
  compiled = jax.jit(lambda rows: rows.sum(0), in_shardings=by_batch(mesh), out_shardings=replicated(mesh)).lower(
    rows).compile()
  assert len(pod.devices) == 16 and pod.processes == 4
  assert hlo.list_messages(compiled.as_text()) == [('all-reduce', 128 * 4)]
  with pytest.raises(ConfigError, match='libtpu knows no slice'):
    find_pod('v5e:9x9')


def test_more_arrays_than_a_tpu_takes_at_once_are_one_message():
  pytest.importorskip('libtpu')
  mesh = make_mesh(find_pod('v5e:2x2').devices)
  rows = [jax.ShapeDtypeStruct((8, 128), np.float32)] * 300
  compiled = jax.jit(lambda rows: [each.sum(0) for each in rows], in_shardings=by_batch(mesh),
                     out_shardings=replicated(mesh), compiler_options=choose_options(mesh.local_devices[0])).lower(
    rows).compile()
  assert hlo.list_messages(compiled.as_text()) == [('all-reduce', 300 * 128 * 4)]
