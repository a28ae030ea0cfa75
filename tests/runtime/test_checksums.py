"""A manifest names every file of a folder that was changed, lost or added."""

import os
import shutil
import subprocess

import pytest

from mtpret_jax.runtime import checksums
from tests.support.changed import flip


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / '400'
  (folder / 'state/d').mkdir(parents=True)
  (folder / 'state/d/weights').write_bytes(bytes(range(256)) * 40)
  (folder / 'state/empty').write_bytes(b'')
  (folder / 'metadata').write_text('{}')
  checksums.write_manifest(folder)
  return folder


def test_an_untouched_folder_is_whole(folder):
  assert checksums.find_damage(folder) == ''


@pytest.mark.parametrize('bit', [0, 7, 40_001, 256 * 40 * 8 - 1])
def test_one_flipped_bit_is_found_and_named(folder, bit):
  flip(folder / 'state/d/weights', bit)
  assert checksums.find_damage(folder) == 'state/d/weights is corrupted or truncated'


def test_every_bit_of_the_manifest_counts(folder):
  path = checksums.manifest_path(folder)
  whole = path.read_bytes()
  for bit in range(8 * len(whole)):
    flip(path, bit)
    assert checksums.find_damage(folder), f'bit {bit} of the manifest'
    path.write_bytes(whole)
  for length in range(len(whole)):
    path.write_bytes(whole[:length])
    assert checksums.find_damage(folder), f'{length} bytes of the manifest'


def test_truncated_missing_and_foreign_files_are_distinguished(folder):
  with open(folder / 'metadata', 'r+b') as file:
    file.truncate(1)
  (folder / 'state/empty').unlink()
  (folder / 'state/late').touch()
  assert checksums.find_damage(folder) == (
    'metadata is corrupted or truncated; state/empty is missing; state/late was added after the save')


def test_a_folder_without_its_manifest_is_not_trusted(folder):
  checksums.manifest_path(folder).unlink()
  assert 'no manifest 400.sha256' in checksums.find_damage(folder)


def test_a_pipe_or_device_in_place_of_a_file_is_reported_and_not_read(folder):
  (folder / 'metadata').unlink()
  (folder / 'metadata').symlink_to('/dev/zero')
  assert checksums.find_damage(folder) == 'metadata is corrupted or truncated'
  with pytest.raises(OSError, match='metadata is a link to something that is not a file'):
    checksums.write_manifest(folder)
  checksums.manifest_path(folder).unlink()
  os.mkfifo(checksums.manifest_path(folder))
  assert checksums.find_damage(folder) == 'its manifest 400.sha256 is not a file'


def test_the_manifest_of_another_folder_is_not_accepted(folder):
  shutil.copytree(folder, folder.with_name('200'))
  (folder.with_name('200') / 'metadata').write_text('[]')
  checksums.write_manifest(folder.with_name('200'))
  shutil.copy(checksums.manifest_path(folder.with_name('200')), checksums.manifest_path(folder))
  assert checksums.find_damage(folder) == 'metadata is corrupted or truncated'


@pytest.mark.skipif(not shutil.which('sha256sum'), reason='no sha256sum here')
def test_sha256sum_reads_a_manifest(folder):
  def check():
    return subprocess.run(['sha256sum', '-c', '--quiet', '../400.sha256'], cwd=folder, capture_output=True).returncode
  assert check() == 0
  flip(folder / 'metadata', 3)
  assert check() == 1
