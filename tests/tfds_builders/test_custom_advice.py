"""Mistakes in a dataset of one's own that would lose images or labels are told, with what to change."""

import pathlib

import pytest

from tests.support.archives import edit, read_all, read_rejects, write_clinic
from tfds_builders import build
from tfds_builders.common import records
from tfds_builders.custom import custom
from tfds_builders.custom.labels import InvalidDataset


def refuse(folder):
  with pytest.raises(InvalidDataset) as error:
    build.prepare('clinic', folder, folder / 'data')
  return str(error.value)


def test_images_beside_the_table_are_told_to_move(tmp_path):
  root = write_clinic(tmp_path)
  (root / 'images' / 'a').rename(root / 'a')
  assert f'{root / "images"} has no image: put the images there, and keep labels.csv beside' in refuse(tmp_path)


@pytest.mark.parametrize('written, advice', [
  ('a/{}.jpg', r'write the ending that the file has, a/0.png'),
  ('b-{}.png', r'it must be a path below that folder, such as a/0.png')])
def test_a_table_that_names_no_image_shows_one_that_is_there(written, advice, tmp_path):
  write_clinic(tmp_path, head='image,patient,mass', row=lambda i: f'{written.format(i)},p{i},{i % 2}')
  message = refuse(tmp_path)
  assert f'line 2: no image of {tmp_path / "clinic" / "images"} is called {written.format(0)!r}' in message
  assert message.endswith(advice)


def test_a_second_row_of_an_image_with_other_labels_is_told_from_a_copy(tmp_path):
  table = write_clinic(tmp_path, head='image,patient,mass', row=lambda i: f'a/{i}.png,p{i},{i % 2}') / 'labels.csv'
  table.write_text(table.read_text().rstrip() + '\na/0.png,p0,1\na/1.png,p1,1\n')
  path = build.prepare('clinic', tmp_path, tmp_path / 'data', tolerated=1.0)
  assert read_rejects(path) == {('a/0', 'duplicate image_id with other values'), ('a/1', 'duplicate image_id')}
  assert read_all(path)['a/0']['present'].tolist() == [0]


def test_a_class_of_one_image_whose_name_is_like_another_one_is_told(tmp_path, caplog):
  root = write_clinic(tmp_path, head='image,patient,class', row=lambda i: f'a/{i}.png,p{i},{("ill", "well")[i % 2]}')
  edit(root / 'labels.csv', 'a/1.png,p1,well', 'a/1.png,p1,wel')
  build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert "the class 'wel' has one image: is it 'well'?" in caplog.messages[0] and len(caplog.messages) == 1


def test_a_table_with_a_second_ending_is_named(tmp_path):
  (tmp_path / 'clinic').mkdir()
  pathlib.Path(tmp_path, 'clinic', 'labels.csv.txt').write_text('image,patient\n')
  with pytest.raises(custom.UnknownDataset, match=r'Save labels.csv.txt, which is there, as labels.csv'):
    build.prepare('clinic', tmp_path, tmp_path / 'data')


def test_the_summary_has_the_images_of_the_split_column(tmp_path):
  write_clinic(tmp_path, head='image,patient,mass,split',
               row=lambda i: f'a/{i}.png,p{i},{i % 2},{"train" if i < 18 else "test"}')
  summary = records.summarise(build.prepare('clinic', tmp_path, tmp_path / 'data'))
  assert 'with data.split=official: train 16, validation 2, test 6 images' in summary
