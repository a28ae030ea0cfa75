"""What a command line names is found once, in a stable order, or refused with the reason."""

import os
import pathlib

import pytest

from mtpret_jax.predict import inputs

DICOM = b'\0' * 128 + b'DICM'


@pytest.fixture
def scans(tmp_path, monkeypatch):
  """A folder as scanners, desktops and people leave it; the current folder is the one above."""
  folder = tmp_path / 'scans'
  for name in ('b.png', 'a.JPG', 'sub/c.tif', 'sub/[1].png', '.hidden.png', '.DS_Store', 'Thumbs.db', '__MACOSX/b.png',
               'notes.md', 'table.xlsx'):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'no matter')
  for name in ('sub/IM000001', 'sub/1.2.840.10008', 'sub/DICOMDIR'):
    (folder / name).write_bytes(DICOM)
  os.mkfifo(folder / 'pipe')
  monkeypatch.chdir(tmp_path)
  return folder


def find(*names, **options):
  return [path.as_posix() for path in inputs.find_images(names, **options)]


ALL = ['scans/a.JPG', 'scans/b.png', 'scans/sub/1.2.840.10008', 'scans/sub/IM000001', 'scans/sub/[1].png',
       'scans/sub/c.tif']


def test_a_folder_gives_its_images_and_every_dicom_file_but_no_junk(scans):
  assert find('scans') == ALL


def test_a_named_file_is_taken_whatever_its_ending_and_each_image_once(scans):
  assert find('scans/notes.md', 'scans/b.png', './scans/b.png', str(scans), 'scans/../scans/b.png') == [
    'scans/notes.md', 'scans/b.png', *(str(scans / path.removeprefix('scans/')) for path in ALL
                                       if path != 'scans/b.png')]


@pytest.mark.parametrize('pattern, found', [
  ('scans/*', ALL), ('scans/*.png', ['scans/b.png']), ('scans/**/*.png', ['scans/b.png', ALL[4]]),
  ('scan?', ALL), ('scans/sub/[1].png', [ALL[4]])])
def test_patterns_that_the_shell_did_not_expand(scans, pattern, found):
  assert sorted(find(pattern)) == sorted(found)


@pytest.mark.parametrize('name, text', [
  ('list.txt', '\ufeffscans/b.png\n\n  scans\\a.JPG \n'), ('list.csv', 'scans/b.png\nscans/a.JPG\n'),
  ('list.tsv', 'patient\tImage\np1\tscans/b.png\np2\tscans/a.JPG\n'), ('scans/labels.csv', 'image\nb.png\na.JPG\n')])
def test_a_list_names_images_below_its_own_folder_or_the_current_one(scans, name, text):
  pathlib.Path(name).write_text(text, encoding='utf-8')
  assert find(name) == ['scans/b.png', 'scans/a.JPG']


def test_the_table_of_an_own_dataset_is_a_list(scans):
  pathlib.Path('labels.csv').write_text('image,patient\nx.png,p1\n')
  pathlib.Path('images').mkdir()
  pathlib.Path('images/x.png').write_bytes(b'')
  assert find('labels.csv') == ['images/x.png']


def test_an_image_of_a_list_that_is_missing_is_kept_for_its_row(scans):
  pathlib.Path('list.txt').write_text('scans/b.png\ngone.png\n')
  assert find('list.txt') == ['scans/b.png', 'gone.png']


@pytest.mark.parametrize('names, said', [
  (['scans/bb.png'], r"there is no file or folder 'scans/bb.png': did you mean 'scans/b.png'\?"),
  (['scans/*.dcm'], r"no image matches 'scans/\*.dcm' in /"), (['empty'], "the folder 'empty' has no image"),
  (['scans/pipe'], 'scans/pipe is a pipe or device'), (['none.txt'], "none exists: 'gone.png' is neither in"),
  (['two.csv'], "two.csv has no column 'image' that names the images: it has a, b"), ([], 'no image given')])
def test_what_gives_no_image_is_refused_with_the_reason(scans, names, said):
  pathlib.Path('empty').mkdir()
  pathlib.Path('none.txt').write_text('gone.png\n')
  pathlib.Path('two.csv').write_text('a,b\n1,2\n')
  with pytest.raises(ValueError, match=said):
    find(*names)


def test_what_an_earlier_run_wrote_is_no_input(scans):
  assert find('scans', leave_out=scans / 'sub') == ALL[:2]


def test_each_image_has_a_name_of_its_own_for_what_is_written_about_it():
  def name(*paths):
    return inputs.name_outputs([pathlib.Path(path) for path in paths])
  assert name('x/a/1.png', 'x/b/1.png', 'x/2.dcm') == ['a/1', 'b/1', '2']
  assert name('x/1.png', 'x/1.jpg', '../y/1.2.840.1') != ['1', '1', '1.2.840.1']
  assert name('x/1.png', 'x/1.jpg', 'x/2.png') == ['1.png', '1.jpg', '2']
  assert name('x/1.png', 'x/1.jpg', 'x/1.png.dcm') == ['1.png', '1.jpg', '1.png.dcm']
  assert name('scan.png') == ['scan']
