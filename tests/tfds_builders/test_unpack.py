"""Unpacking: archives as they are downloaded, and malicious ones."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.support.small_runs import PHANTOMS
from tfds_builders import build, unpack
from tfds_builders.common import archives as downloads

FILES = {'set/a.png': b'a' * 1000, 'set/deep/b.txt': b'normal', 'table.csv': b'id\n1\n'}
JUNK = {'__MACOSX/set/._a.png': b'fork', 'set/.DS_Store': b'Bud1', 'set/._a.png': b'fork'}


def pack(path, files, folders=('set/', 'empty/')):
  """Packs {name: bytes} as the ending of the path says."""
  if path.suffix == '.zip':
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
      for name in folders:
        file.mkdir(name)
      for name, data in files.items():
        file.writestr(name, data)
  else:
    with tarfile.open(path, 'w' if path.suffix == '.tar' else 'w:gz') as file:
      for name in folders:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE
        file.addfile(entry)
      for name, data in files.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        file.addfile(entry, io.BytesIO(data))
  return path


def pack_odd(path, kind, name='set/odd', link='/etc/passwd'):
  """An archive with a link, device or pipe."""
  if path.suffix == '.zip':
    entry = zipfile.ZipInfo(name)
    entry.external_attr = {'link': 0o120777, 'device': 0o020666, 'pipe': 0o010666}[kind] << 16
    with zipfile.ZipFile(path, 'w') as file:
      file.writestr(entry, link)
  else:
    entry = tarfile.TarInfo(name)
    entry.type = {'link': tarfile.SYMTYPE, 'hard link': tarfile.LNKTYPE, 'device': tarfile.CHRTYPE,
                  'pipe': tarfile.FIFOTYPE}[kind]
    entry.linkname = link
    with tarfile.open(path, 'w:gz') as file:
      file.addfile(entry)
  return path


def list_files(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def refuse(path, folder, words):
  """Asserts that the archive is refused in one line and that nothing is left of it, here or elsewhere."""
  before = set(path.parent.rglob('*'))
  with pytest.raises(unpack.Refused, match=words) as caught:
    unpack.unpack(path, folder)
  assert '\n' not in str(caught.value) and str(path) in str(caught.value)
  assert set(path.parent.rglob('*')) - before <= {folder}


@pytest.mark.parametrize('name', ['Set-1.0.zip', 'Set-1.0.tar', 'Set-1.0.tar.gz', 'Set-1.0.tgz', 'Set-1.0.ZIP'])
def test_unpacking_gives_the_packed_files_without_junk(name, tmp_path):
  path = pack(tmp_path / name.replace('ZIP', 'zip'), {**FILES, **JUNK}).rename(tmp_path / name)
  target = unpack.unpack(path, tmp_path / 'archives')
  assert target == tmp_path / 'archives/Set-1.0'
  assert list_files(target) == FILES and (target / 'empty').is_dir()
  assert [entry.name for entry in target.parent.iterdir()] == ['Set-1.0']


def test_backslashes_in_names_become_folders(tmp_path):
  target = unpack.unpack(pack(tmp_path / 'set.zip', {'set\\deep\\a.txt': b'x'}, ()), tmp_path / 'archives')
  assert list_files(target) == {'set/deep/a.txt': b'x'}


@pytest.mark.parametrize('ending', ['zip', 'tar.gz'])
@pytest.mark.parametrize('name, words', [
  ('/etc/evil', 'absolute'), ('C:/evil', 'absolute'), ('\\evil', 'absolute'), ('../evil', 'leads out'),
  ('set/../../evil', 'leads out'), ('set\\..\\..\\evil', 'leads out')])
def test_paths_that_lead_out_are_refused(ending, name, words, tmp_path):
  (tmp_path / 'in').mkdir()
  refuse(pack(tmp_path / f'in/set.{ending}', {**FILES, name: b'evil'}), tmp_path / 'in/archives', words)
  assert list(tmp_path.iterdir()) == [tmp_path / 'in']


@pytest.mark.parametrize('ending, kind', [
  ('zip', 'link'), ('zip', 'device'), ('zip', 'pipe'), ('tgz', 'link'), ('tgz', 'hard link'), ('tgz', 'device'),
  ('tgz', 'pipe')])
def test_links_devices_and_pipes_are_refused(ending, kind, tmp_path):
  refuse(pack_odd(tmp_path / f'set.{ending}', kind), tmp_path / 'archives', 'a link or device')


@pytest.mark.parametrize('ending', ['zip', 'tar.gz'])
def test_a_bomb_is_refused_by_its_ratio(ending, tmp_path, monkeypatch):
  monkeypatch.setattr(unpack, 'SMALL', 2**20)
  refuse(pack(tmp_path / f'bomb.{ending}', {'zeros': bytes(2**23)}), tmp_path / 'archives', 'unpacks to more than')
  several = {f'zeros{i}': bytes(2**18) for i in range(32)}
  refuse(pack(tmp_path / f'many.{ending}', several), tmp_path / 'archives', 'unpacks to more than')


def test_a_small_archive_of_well_packed_text_is_no_bomb(tmp_path):
  target = unpack.unpack(pack(tmp_path / 'reports.tgz', {'a.xml': bytes(2**23)}), tmp_path / 'archives')
  assert (target / 'a.xml').stat().st_size == 2**23


@pytest.mark.parametrize('name', ['TOTAL', 'FILES'])
@pytest.mark.parametrize('ending', ['zip', 'tar', 'tgz'])
def test_size_and_count_have_limits_whatever_the_ratio(name, ending, tmp_path, monkeypatch):
  monkeypatch.setattr(unpack, name, {'TOTAL': 900, 'FILES': 4}[name])
  refuse(pack(tmp_path / f'set.{ending}', FILES), tmp_path / 'archives', 'more than')


def test_a_zip_with_false_sizes_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(unpack, 'SMALL', 2**20)
  path = pack(tmp_path / 'liar.zip', {'zeros': bytes(2**23)}, ())
  path.write_bytes(path.read_bytes().replace((2**23).to_bytes(4, 'little'), (5).to_bytes(4, 'little')))
  with zipfile.ZipFile(path) as file:
    assert file.getinfo('zeros').file_size == 5
  refuse(path, tmp_path / 'archives', 'damaged|more than')


def test_a_huge_tar_header_is_refused_before_it_is_read(tmp_path):
  """tarfile takes a long name whole into memory."""
  entry = tarfile.TarInfo('././@LongLink')
  entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**26
  path = tmp_path / 'long.tar.gz'
  with tarfile.open(path, 'w:gz') as file:
    file.addfile(entry, io.BytesIO(bytes(entry.size)))
  refuse(path, tmp_path / 'archives', 'tar header of 67,108,864 bytes')


@pytest.mark.parametrize('ending', ['zip', 'tar', 'tar.gz'])
@pytest.mark.parametrize('share', [0, 0.3, 0.7])
def test_a_truncated_download_is_refused(ending, share, tmp_path):
  path = pack(tmp_path / f'set.{ending}', {f'{i}.bin': os.urandom(5000) for i in range(9)})
  path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
  refuse(path, tmp_path / 'archives', 'damaged')


@pytest.mark.parametrize('spoil', [lambda raw: raw[:3 * 1024], lambda raw: raw[:3072] + b'?' + raw[3073:]])
def test_a_missing_or_damaged_tar_header_is_not_taken_for_the_end(spoil, tmp_path):
  path = pack(tmp_path / 'set.tar', {f'{i}.bin': os.urandom(512) for i in range(9)}, ())  # 1024 bytes each
  path.write_bytes(spoil(path.read_bytes()))
  refuse(path, tmp_path / 'archives', 'truncated after 3,072 bytes')


@pytest.mark.parametrize('place', [-5, 40])
def test_a_tar_gz_with_a_wrong_checksum_is_refused(place, tmp_path):
  path = pack(tmp_path / 'set.tgz', {'a.bin': os.urandom(5000)}, ())
  raw = bytearray(path.read_bytes())
  raw[place] ^= 1
  path.write_bytes(raw)
  refuse(path, tmp_path / 'archives', 'damaged')


def test_a_damaged_file_in_a_zip_is_refused(tmp_path):
  path = pack(tmp_path / 'set.zip', {'a.bin': os.urandom(5000)}, ())
  raw = bytearray(path.read_bytes())
  raw[2000] ^= 1
  path.write_bytes(raw)
  refuse(path, tmp_path / 'archives', 'damaged')


def test_an_encrypted_zip_is_refused(tmp_path):
  path = pack(tmp_path / 'set.zip', {'a.txt': b'secret'}, ())
  raw = bytearray(path.read_bytes())
  raw[6] |= 1  # the flag, in the file's own header and in the table
  raw[raw.index(b'PK\x01\x02') + 8] |= 1
  path.write_bytes(raw)
  refuse(path, tmp_path / 'archives', 'encrypted')


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('second', ['set/a.png', 'set/a.png/b', 'set/./a.png'])
def test_two_entries_with_the_same_name_are_refused(second, tmp_path):
  path = tmp_path / 'set.zip'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('set/a.png', b'first')
    file.writestr(second, b'second')
  refuse(path, tmp_path / 'archives', 'two entries with the same name')


@pytest.mark.parametrize('name, data', [
  ('set.rar', b'Rar!'), ('set.zip', b'<html>please log in</html>'), ('.zip', b'PK'), ('...zip', b'PK')])
def test_a_file_that_is_not_an_archive_is_refused(name, data, tmp_path):
  (tmp_path / name).write_bytes(data)
  refuse(tmp_path / name, tmp_path / 'archives', 'must end in|damaged')


def test_an_archive_without_a_name_and_a_bucket_are_refused(tmp_path, capsys, monkeypatch):
  path = pack(tmp_path / '.zip', FILES)
  refuse(path, tmp_path / 'archives', 'must end in')
  monkeypatch.chdir(tmp_path)
  assert unpack.main([str(path), '--archives', 'gs://bucket/archives']) == 2
  assert 'mount the bucket' in capsys.readouterr().err and not (tmp_path / 'gs:').exists()


def test_a_long_reason_ends_with_a_whole_word(tmp_path, monkeypatch):
  def fail(path, folder):
    raise ValueError('word ' * 100)
  monkeypatch.setattr(unpack, 'write_members', fail)
  (tmp_path / 'images.zip').touch()
  with pytest.raises(unpack.Refused, match=r'unsupported format: (word )+\.\.\.$'):
    unpack.unpack(tmp_path / 'images.zip', tmp_path)


def test_an_existing_folder_is_not_touched(tmp_path):
  path = pack(tmp_path / 'set.zip', FILES)
  target = unpack.unpack(path, tmp_path / 'archives')
  (target / 'mine.txt').write_text('mine')
  with pytest.raises(unpack.Refused, match='already exists'):
    unpack.unpack(path, tmp_path / 'archives')
  assert list_files(target) == {**FILES, 'mine.txt': b'mine'}


def test_an_interrupted_run_leaves_nothing_and_a_killed_one_nothing_that_looks_complete(tmp_path, monkeypatch):
  path, folder = pack(tmp_path / 'set.tgz', FILES), tmp_path / 'archives'

  def interrupt(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(unpack, 'split_path', interrupt)
    with pytest.raises(KeyboardInterrupt):
      unpack.unpack(path, folder)
  assert list(folder.iterdir()) == []
  code = 'import os; from tfds_builders import unpack; unpack.pathlib.Path.rename = lambda *_: os._exit(9); '
  code += 'unpack.unpack(*os.sys.argv[1:])'
  assert subprocess.run([sys.executable, '-c', code, path, folder]).returncode == 9
  left, = folder.iterdir()
  assert downloads.is_junk(left.name)  # no builder looks into it
  assert list_files(unpack.unpack(path, folder)) == FILES
  assert [entry.name for entry in folder.iterdir()] == ['set']


def test_the_command_continues_after_a_refusal_and_names_inner_archives(tmp_path, capsys):
  bad = pack(tmp_path / 'bad.zip', {'../evil': b'evil'}, ())
  good = pack(tmp_path / 'good.zip', {'inner.zip': b'PK'}, ())
  assert unpack.main([str(bad), str(good), '--archives', str(tmp_path / 'archives')]) == 2
  out, err = capsys.readouterr()
  assert out.split('\n')[0] == str(tmp_path / 'archives/good') and 'unpack it too: ' in out and 'inner.zip' in out
  assert len(err.strip().split('\n')) == 1 and 'leads out' in err


@pytest.mark.parametrize('name, packed', [
  ('indiana_cxr', {'NLMCXR_reports.tgz': 'ecgen-radiology', 'NLMCXR_png.tgz': 'NLMCXR_png/.',
                   'NLMCXR_dcm.tgz': 'NLMCXR_dcm/.'}),
  ('montgomery_cxr', {'NLM-MontgomeryCXRSet.zip': 'MontgomerySet'}),
  ('shenzhen_cxr', {'ChinaSet_AllFiles.zip': 'ChinaSet_AllFiles', 'mask.zip': 'mask'}),
  ('lung_masks', {'archive.zip': '.'}), ('kermany_pneumonia', {'ChestXRay2017.zip': 'chest_xray'})])
def test_builders_find_what_was_unpacked(name, packed, archives, tmp_path):
  """The phantom archives packed as the real ones are downloaded."""
  for file, inside in packed.items():
    top = archives / name / inside
    base = top if inside.endswith('.') else top.parent
    pack(tmp_path / file, {path.relative_to(base).as_posix(): path.read_bytes()
                           for path in sorted(top.rglob('*')) if path.is_file()}, ())
    unpack.unpack(tmp_path / file, tmp_path / 'archives' / name)
  root = build.archives.find_root(build.load(name).ARCHIVE, tmp_path / 'archives')
  entries, rejects, _ = build.load(name).read_archive(root, build.archives.list_files(build.load(name).ARCHIVE, root))
  assert len(entries) == PHANTOMS['images'] and not rejects
