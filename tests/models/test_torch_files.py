"""Files of torch.save are read without torch, and nothing in them runs."""

import argparse
import collections
import io
import pickle
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from mtpret_jax.models import pickled, torch_files, weight_files
from mtpret_jax.models.torchvision_weights import import_trunk
from tests.support import torch_writer
from tests.support.drawn import make_state_dict
from tests.support.torch_writer import Call, Global, Part, Storage, View

NUMBERS = np.arange(24, dtype=np.float32).reshape(4, 6)


def read(path, value, **options):
  torch_writer.write(path, value, **options)
  return weight_files.read(path)


def refuse(path):
  with pytest.raises(ValueError) as error:
    weight_files.read(path)
  assert str(error.value).startswith(f'{path} ') and str(error.value).isprintable()
  return str(error.value)


@pytest.fixture(params=[False, True], ids=['zip', 'before 1.6'])
def is_legacy(request):
  return request.param


@pytest.mark.parametrize('order', ['little', 'big'])
@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_numbers_of_every_type_and_byte_order_are_read(dtype, order, is_legacy, tmp_path):
  found = read(tmp_path / 'a.pth', {'a': NUMBERS.astype(dtype), 'count': np.int64(3) + np.zeros(2, np.int64)},
               order=order, is_legacy=is_legacy)
  assert list(found) == ['a'] and found['a'].dtype == dtype
  np.testing.assert_array_equal(found['a'].astype(np.float32), NUMBERS)


def test_views_of_a_shared_storage(is_legacy, tmp_path):
  storage = Storage(NUMBERS.ravel())
  views = {'whole': View(storage, 0, (4, 6), (6, 1)), 'turned': View(storage, 0, (6, 4), (1, 6)),
           'part': View(storage, 7, (2, 3), (6, 2)), 'repeated': View(storage, 5, (3, 2), (0, 1)),
           'scalar': View(storage, 9, (), ()), 'empty': View(storage, 24, (0, 3), (3, 1))}
  found = read(tmp_path / 'a.pt', views, is_legacy=is_legacy)
  expected = {'whole': NUMBERS, 'turned': NUMBERS.T, 'part': NUMBERS[1:3, 1::2], 'repeated': [[5, 6]] * 3, 'scalar': 9,
              'empty': np.zeros((0, 3))}
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value)
    assert found[name].shape == np.shape(value) and found[name].flags.c_contiguous


def test_a_part_of_a_storage_is_read_from_its_offset_and_refused_in_a_zip_file(is_legacy, tmp_path):
  storage = Storage(NUMBERS.ravel())
  parts = {'a': View(storage, 0, (2,), (1,)), 'b': View(Part(storage, 6, 8), 1, (2, 3), (3, 1))}
  torch_writer.write(tmp_path / 'a.pt', parts, is_legacy=is_legacy)
  if not is_legacy:
    assert "its storage '0' is missing or has another size" in refuse(tmp_path / 'a.pt')
    torch_writer.write(tmp_path / 'a.pt', {'a': View(Part(storage, 1, 24), 0, (2,), (1,))})
    assert "its storage '0' is missing or has another size" in refuse(tmp_path / 'a.pt')
    return
  np.testing.assert_array_equal(weight_files.read(tmp_path / 'a.pt')['b'], [[7, 8, 9], [10, 11, 12]])
  for offset, count, said in ((20, 5, 'too short'), (25, 0, 'beyond the 0 numbers'), (-1, 5, 'impossible shape')):
    torch_writer.write(tmp_path / 'a.pt', {'a': View(Part(storage, offset, count), 0, (2,), (1,))}, is_legacy=True)
    assert said in refuse(tmp_path / 'a.pt')


def test_a_storage_is_kept_once_however_many_tensors_and_parts_use_it(is_legacy, tmp_path):
  storage = Storage(np.arange(1000, dtype=np.float32))
  whole = [View(storage, 0, (number,), (1,)) for number in range(1, 40)]
  parts = [View(Part(storage, number, 500), 0, (2,), (1,)) for number in range(1, 40)] if is_legacy else []
  torch_writer.write(tmp_path / 'a.pt', {str(place): view for place, view in enumerate(whole + parts)},
                     is_legacy=is_legacy)
  with open(tmp_path / 'a.pt', 'rb') as file:
    content = torch_files.open_file(file)
    for name in content.tensors:
      content.read(name)
  assert [numbers.nbytes for numbers in content.kept.values()] == [4000]


def test_a_storage_of_two_types_is_refused(tmp_path):
  program, _ = torch_writer.dump({'a': NUMBERS, 'b': NUMBERS.astype(np.float16)})
  program = program.replace(b'X\x01\x00\x00\x001', b'X\x01\x00\x00\x000')  # the key of the second storage
  assert "its storage '0' is of two types" in refuse(write_zip(tmp_path / 'a.pt', program, {
    'archive/data/0': NUMBERS.tobytes()}))


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_the_names_of_the_dicts_around_a_tensor_precede_its_name(protocol, is_legacy, tmp_path):
  state = collections.OrderedDict(weight=NUMBERS, bias=Call('torch._utils._rebuild_parameter', (NUMBERS, True, None)))
  found = read(tmp_path / 'a.bin', {'epoch': 3, 'model': state, 'best': 0.5, 'history': [1, 2.0, None, True, b'x', {1}],
                                    'optimizer': {'state': {0: {'exp_avg': NUMBERS}}, 'param_groups': [{'lr': 1}]}},
               protocol=protocol, is_legacy=is_legacy)
  assert list(found) == ['model.weight', 'model.bias', 'optimizer.state.0.exp_avg']


def test_objects_of_other_classes_are_named_but_not_made(tmp_path, caplog):
  arguments = Call('argparse.Namespace', (), {'lr': 1, 'path': Call('pathlib.PosixPath', ('a', 'b'))})
  with caplog.at_level('INFO'):
    found = read(tmp_path / 'a.pth', {'state_dict': {'weight': NUMBERS}, 'args': arguments})
  assert list(found) == ['state_dict.weight']
  assert "the pickle names 'argparse.Namespace', 'pathlib.PosixPath': nothing of this was" in caplog.text


def test_a_whole_model_has_the_names_of_its_state_dict(tmp_path):
  def module(parameters, modules):
    return Call('no_such_package.Layer', (), {
      'training': True, '_parameters': parameters, '_buffers': {}, '_modules': modules})
  model = module({}, {'backbone': module({'weight': NUMBERS}, {'0': module({'bias': NUMBERS}, {})})})
  assert list(read(tmp_path / 'a.pth', model)) == ['backbone.weight', 'backbone.0.bias']


CALLS = []
HARM = {
  'os.mkdir': Call('posix.mkdir', ('canary',)),
  'eval': Call('builtins.eval', ('__import__("os").mkdir("canary")',)),
  'nested': Call('builtins.getattr', (Call('importlib.import_module', ('os',)), 'mkdir')),
  'this module': Call(f'{__name__}.CALLS.append', (1,)),
  'a class whose attributes are set': Call('collections.OrderedDict', (), {'__class__': Global('posix.system')}),
  'a function of torch': Call('torch.load', ('other.pth',)),
  'a wrapped call': Call('torch._tensor._rebuild_from_type_v2', (Global('posix.mkdir'), None, ('canary',), {}))}


@pytest.mark.parametrize('kind', HARM)
def test_no_call_runs(kind, is_legacy, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = read(tmp_path / 'a.pth', {'weight': NUMBERS, 'harm': HARM[kind]}, is_legacy=is_legacy)
  assert list(found) == ['weight'] and [path.name for path in tmp_path.iterdir()] == ['a.pth'] and not CALLS


def write_zip(path, program, members=(), compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', program)
    for name, data in dict(members).items():
      archive.writestr(name, data)
  return path


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
  storage = Storage(NUMBERS.ravel())
  for offset, shape, stride in ((1, (4, 6), (6, 1)), (0, (5, 6), (6, 1)), (24, (1,), (1,)), (0, (2,), (24,))):
    torch_writer.write(tmp_path / 'a.pth', {'weight': View(storage, offset, shape, stride)})
    assert "'weight' reaches beyond the 24 numbers of its storage" in refuse(tmp_path / 'a.pth')


@pytest.mark.parametrize('offset, shape, stride', [
  (-1, (2,), (1,)), (0, (-2,), (1,)), (3, (2,), (-1,)), (0, (2, 2), (1,)), (0, (2.0,), (1,)), (0, ('a',), (1,)),
  (0, (2**62,), (0,)), (0, (1,) * 40, (1,) * 40), (None, (2,), (1,)), (True, (2,), (1,))])
def test_impossible_shapes_are_refused(offset, shape, stride, is_legacy, tmp_path):
  torch_writer.write(tmp_path / 'a.pth', {'weight': View(Storage(NUMBERS.ravel()), offset, shape, stride)},
                     is_legacy=is_legacy)
  assert "'weight' has an impossible shape" in refuse(tmp_path / 'a.pth')


def test_a_small_storage_that_is_repeated_to_a_huge_tensor_is_refused_before_memory_is_taken(tmp_path):
  torch_writer.write(tmp_path / 'a.pth', {'weight': View(Storage(NUMBERS.ravel()), 0, (2**20, 2**20), (0, 0))})
  assert 'too many for a trunk' in refuse(tmp_path / 'a.pth')


def test_weights_of_integers_are_refused_by_name(tmp_path):
  torch_writer.write(tmp_path / 'a.pth', {'conv1.weight': NUMBERS.astype(np.int8)})
  assert "'conv1.weight' is of type I8, but must be one of BF16, F16, F32, F64" in refuse(tmp_path / 'a.pth')


def test_a_damaged_storage_fails_its_checksum(tmp_path):
  torch_writer.write(tmp_path / 'a.pth', {'weight': NUMBERS})
  whole = bytearray((tmp_path / 'a.pth').read_bytes())
  whole[whole.index(NUMBERS.tobytes()) + 5] ^= 1
  (tmp_path / 'a.pth').write_bytes(whole)
  assert 'Bad CRC-32' in refuse(tmp_path / 'a.pth')


def test_every_truncation_is_refused(is_legacy, tmp_path):
  torch_writer.write(tmp_path / 'a.pth', {'weight': NUMBERS}, is_legacy=is_legacy)
  whole = (tmp_path / 'a.pth').read_bytes()
  for length in range(0, len(whole), 7):
    (tmp_path / 'a.pth').write_bytes(whole[:length])
    refuse(tmp_path / 'a.pth')


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
  program, _ = torch_writer.dump({'weight': NUMBERS})
  write_zip(tmp_path / 'a.pth', program, {'archive/data/0': bytes(10**7)}, zipfile.ZIP_DEFLATED)
  assert 'is compressed, which torch.save does not do' in refuse(tmp_path / 'a.pth')


def test_other_zip_files_are_refused_as_such(tmp_path):
  np.savez(tmp_path / 'a.npz', a=NUMBERS)
  (tmp_path / 'a.npz').rename(tmp_path / 'a.pth')
  assert 'not one that torch.save wrote: data.pkl is missing' in refuse(tmp_path / 'a.pth')
  program, storages = torch_writer.dump({'weight': NUMBERS})
  write_zip(tmp_path / 'b.pt', program, {'archive/constants.pkl': b''})
  assert 'it is a TorchScript model: save its weights with' in refuse(tmp_path / 'b.pt')


def test_a_storage_that_is_absent_or_of_another_size_is_refused(tmp_path):
  program, _ = torch_writer.dump({'weight': NUMBERS})
  for members in ({}, {'archive/data/0': bytes(95)}, {'archive/data/0': bytes(97)}, {'/archive/data/0': bytes(96)},
                  {'../archive/data/0': bytes(96)}):
    assert "its storage '0' is missing or has another size" in refuse(write_zip(tmp_path / 'a.pth', program, members))


@pytest.mark.parametrize('program', [
  b'', b'.', b'\x80\x02.', b'\x80\x02K\x01', b'\x80\x02)R.', b'\x80\x020.', b'\x80\x02u.', b'\x80\x02h\x07.',
  b'\x80\x02K\x01K\x02K\x03s.', b'\x80\x02\x85.', b'(dp0\n.', b'\x80\x02\x82\x01.', b'\x80\x02}\x93.',
  b'\x80\x02\x8a\xff', b'\x80\x02X\xff\xff\xff\xff.', b'garos\nmkdir\n.', bytes(range(256))])
def test_odd_pickles_are_refused(program, tmp_path):
  assert 'cannot be read: ' in refuse(write_zip(tmp_path / 'a.pth', program))


@pytest.mark.parametrize('program, said', [
  (b'\x80\x02' + b'N0' * 2000 + b'.', 'more than 3,000 instructions: save only the weights'),
  # {'a': {'a': ...}, 'b': the same} 40 times: 2 ** 40 names
  (b'\x80\x02}' + b''.join(b'q%c}X\x01\x00\x00\x00ah%csX\x01\x00\x00\x00bh%cs' % ((level,) * 3)
                            for level in range(40)) + b'.', 'more than 100,000 entries'),
  # a dict in itself
  (b'\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.', 'too long'),
  (b'\x80\x02}X' + (10**6).to_bytes(4, 'little') + b'a' * 10**6 + b'Ns.', 'too long')])
def test_pickles_that_would_take_forever_are_refused(program, said, tmp_path, monkeypatch):
  monkeypatch.setattr(pickled, 'MAX_INSTRUCTIONS', 3000)
  assert said in refuse(write_zip(tmp_path / 'a.pth', program))


LONG = 'a' * 500
COPIES = {  # what is copied from the memo, and the instructions that copy it
  'pairs of a dict': ([('a', 1)] * 500, b'ccollections\nOrderedDict\nh\x00\x85R0'),
  'a shape': ([1] * 500, b'ctorch._utils\n_rebuild_tensor_v2\n(h\x01K\x00h\x00)tR0'),
  'attributes': ({str(number): 1 for number in range(500)}, b'cm\nC\n)\x81h\x00b0'),
  'parts of a state': (({},) * 500, b'cm\nC\n)\x81h\x00b0'),
  'the name of a class': (LONG, b'h\x00h\x00\x930'),
  'a persistent id': (('storage', 1, 'a', 'cpu', 1, *range(500)), b'h\x00Q0'),
  'the key of a storage': (LONG, b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nh\x00NK\x01tQ0'),
  'a key of a dict': (500 * LONG, b'}h\x00Ns0')}


@pytest.mark.parametrize('kind', COPIES)
def test_what_an_instruction_copies_counts_too(kind, monkeypatch):
  monkeypatch.setattr(pickled, 'MAX_INSTRUCTIONS', 3000)
  value, copy = COPIES[kind]
  storage = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x01tQq\x010'
  start = pickle.dumps(value, 2)[:-1] + b'q\x000' + storage
  pickled.read_pickle(io.BytesIO(start + copy + b'N.'))
  with pytest.raises(ValueError, match='more than 3,000 instructions'):
    pickled.read_pickle(io.BytesIO(start + copy * 20 + b'N.'))


def test_a_key_that_takes_forever_to_hash_is_left_out():
  nested = b')' + b'q\x00h\x00\x86' * 60  # ((((), ()), ...), ...), 2 ** 60 leaves
  machine = pickled.read_pickle(io.BytesIO(b'\x80\x02}' + nested + b'NsK\x01Ns.'))
  assert machine.value == {1: None}
  machine = pickled.read_pickle(io.BytesIO(pickle.dumps({2**4000: 0, -2**63: 1}, 2)))
  assert machine.value == {-2**63: 1}


def test_what_pythons_own_pickle_says_of_plain_values():
  values = {'a': [1, -1, 2**40, -2**80, 0.5, None, True, False, 'ä', b'\xff', (), (1,), (1, 2, 3, 4), [], {}], 7: 'x'}
  for protocol in range(3, 6):  # 2 has no bytes
    assert pickled.read_pickle(io.BytesIO(pickle.dumps(values, protocol))).value == values


def test_torchvisions_state_dict_starts_a_trunk(is_legacy, one_block, tmp_path):
  weights = make_state_dict('one_block') | {'fc.weight': np.ones((10, 64), np.float32)}
  torch_writer.write(tmp_path / 'moco.pth.tar', {
    'epoch': 3, 'state_dict': {f'module.encoder_q.{name}': value for name, value in weights.items()}},
    is_legacy=is_legacy)
  assert_equal(import_trunk(tmp_path / 'moco.pth.tar', 'one_block'), import_trunk(weights, 'one_block'))


def assert_equal(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  jax.tree.map(np.testing.assert_array_equal, left, right)


class Model:
  """As a pickled nn.Module, whose class is not here when it is read."""

  def __init__(self, weights):
    self._modules = {'backbone': {'_parameters': weights, '_modules': {}}}


# What torch.save is given.
SAVED = {
  'under a key': lambda w: {'epoch': 3, 'model': w, 'optimizer': {'state': {0: {'step': 3}}, 'param_groups': [{}]}},
  'bare, with a number': lambda w: {**w, 'epoch': 3},
  'with arguments': lambda w: {'state_dict': w, 'args': argparse.Namespace(lr=1), 'best': np.float64(0.5)},
  'deep': lambda w: {'classy_state_dict': {'base_model': {'model': {'trunk': w}}}, 'rng': [1, 2]},
  'a whole model': Model}


@pytest.mark.reference
@pytest.mark.parametrize('kind', SAVED)
def test_what_torch_itself_saves_is_read(kind, is_legacy, tmp_path):
  torch = pytest.importorskip('torch')
  state_dict = make_state_dict('resnet18', channels=1)
  weights = {f'module.encoder_q.{name}': torch.tensor(value) for name, value in state_dict.items()}
  torch.save(SAVED[kind](weights), tmp_path / 'moco.pth', _use_new_zipfile_serialization=not is_legacy)
  assert_equal(import_trunk(tmp_path / 'moco.pth', 'resnet18'), import_trunk(state_dict, 'resnet18'))
