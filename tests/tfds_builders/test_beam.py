"""A build by Apache Beam's workers prepares what the ordinary build prepares."""

import sys

import pytest
from tensorflow_datasets.core.utils import shard_utils

from tests.support.archives import read_all, read_rejects, write_nih
from tfds_builders import build
from tfds_builders.common import index
from tfds_builders.common.records import TooManyRejects

HERE = ['--runner=FnApiRunner']  # Beam's own Python runner; DirectRunner would look for a faster one on the network
SEVERAL = [*HERE, '--direct_running_mode=multi_processing', '--direct_num_workers=2']


@pytest.fixture
def beam():
  pytest.importorskip('apache_beam')
  from tfds_builders.common import beam
  return beam


def read_files(path):
  """{name: bytes} of all that is prepared: records, index, rejects, what TFDS says of them."""
  return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.mark.beam
@pytest.mark.parametrize('name', ['nih_chest_xray', 'vinbigdata_cxr', 'panoramic_dental'])
def test_workers_prepare_the_same_files(name, beam, archives, prepared, tmp_path):
  files = read_files(build.prepare(name, archives, tmp_path, beam=HERE))
  assert files == read_files(build.locate(name, prepared))
  assert {'index.csv', 'rejects.csv', f'{name}-train.array_record-00000-of-00001'} < set(files)


@pytest.mark.beam
def test_many_parts_and_worker_processes_change_nothing(beam, tmp_path, monkeypatch):
  monkeypatch.setattr(beam, 'PART', 7)
  write_nih(tmp_path, images=60)
  parts = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'parts', beam=SEVERAL)
  assert read_files(parts) == read_files(build.prepare('nih_chest_xray', tmp_path, tmp_path / 'whole'))


@pytest.mark.beam
def test_a_split_of_several_files_has_the_same_records_at_the_same_positions(beam, tmp_path, monkeypatch):
  monkeypatch.setattr(shard_utils.ShardConfig, 'get_number_shards', lambda *_, **__: 3)
  write_nih(tmp_path, images=60)
  cut = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'beam', beam=HERE)
  plain = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'plain')
  assert len(list(cut.glob('*train.array_record*'))) == len(list(plain.glob('*train.array_record*'))) == 3
  assert (cut / 'index.csv').read_bytes() == (plain / 'index.csv').read_bytes()
  assert not index.find_damage(cut)


@pytest.mark.beam
def test_rejects_of_workers_are_counted_and_listed(beam, tmp_path):
  root = write_nih(tmp_path, images=200)
  images = root / 'images_001/images'
  for name in ('00000010_000.png', '00000011_000.png'):
    (images / name).write_bytes((images / name).read_bytes()[:-300])
  (images / '00000020_000.png').unlink()
  path = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'beam', beam=HERE)
  assert read_rejects(path) == {('00000010_000', 'unreadable image'), ('00000011_000', 'unreadable image'),
                                ('00000020_000', 'row without image')}
  assert build.read_metadata(path)['rejects'] == {'row without image': 1, 'unreadable image': 2}
  assert len(read_all(path)) == 197
  assert read_files(path) == read_files(build.prepare('nih_chest_xray', tmp_path, tmp_path / 'plain'))


@pytest.mark.beam
def test_too_much_bad_input_fails_and_leaves_nothing(beam, tmp_path):
  root = write_nih(tmp_path)
  for path in sorted((root / 'images_001/images').iterdir())[:3]:
    path.write_bytes(b'garbage')
  with pytest.raises(TooManyRejects, match='3 of 40 items are bad'):
    build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data', beam=HERE)
  assert not list((tmp_path / 'data').rglob('*record*'))


@pytest.mark.beam
def test_the_command_passes_options_after_the_dashes_to_beam(beam, tmp_path, monkeypatch, capsys):
  write_nih(tmp_path)
  given, use_beam = [], build.use_beam
  monkeypatch.setattr(build, 'use_beam', lambda make, options: (given.extend(options), use_beam(make, options))[1])
  folders = ['--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]
  assert build.main(['nih_chest_xray', *folders, '--beam', '--', *HERE]) == 0
  assert given == HERE and 'images' in capsys.readouterr().out


def test_options_of_beam_without_beam_are_refused(tmp_path, capsys):
  with pytest.raises(SystemExit):
    build.main(['nih_chest_xray', '--archives', str(tmp_path), '--data_dir', str(tmp_path), '--', *HERE])
  assert '--runner=FnApiRunner' in capsys.readouterr().err


def test_missing_beam_is_an_error_with_the_remedy(tmp_path, monkeypatch, capsys):
  write_nih(tmp_path)
  for name in [name for name in sys.modules if name.split('.')[0] == 'apache_beam']:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  folders = ['--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]
  assert build.main(['nih_chest_xray', *folders, '--beam']) == 2
  assert 'pip install' in capsys.readouterr().err and not (tmp_path / 'data').exists()
