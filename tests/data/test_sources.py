"""Which version of a prepared dataset is opened."""

import pytest

from mtpret_jax.data import sources


@pytest.mark.parametrize('newest', ['1.9.0', '1.10.0'])
def test_the_newest_whole_version_is_opened(newest, tmp_path, monkeypatch):
  """An interrupted preparation leaves a folder with a longer name."""
  for version in ('1.2.0', newest, f'{newest}.incompleteA1B2C3'):
    (tmp_path / 'atlas' / '256' / version).mkdir(parents=True)
    (tmp_path / 'atlas' / '256' / version / 'dataset_info.json').touch()
  opened = []

  def note(folder):
    opened.append(folder.name)
    raise InterruptedError
  monkeypatch.setattr(sources.tfds, 'builder_from_directory', note)
  with pytest.raises(InterruptedError):
    sources.open_source('atlas', tmp_path, '256', 'train')
  assert opened == [newest]


def test_an_interrupted_preparation_is_none(tmp_path):
  folder = tmp_path / 'atlas' / '256' / '1.0.0.incompleteA1B2C3'
  folder.mkdir(parents=True)
  (folder / 'dataset_info.json').touch()
  with pytest.raises(FileNotFoundError, match='atlas is not prepared'):
    sources.open_source('atlas', tmp_path, '256', 'train')
