"""What a builder says about the user's files is a mistake of the run too, with remedies that exist there."""

import errno
import types

import pytest
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import image_counts
from mtpret_jax.runtime.prepare_data import refuse_archive
from tests.support.archives import write_clinic
from tfds_builders import build
from tfds_builders.common import archives
from tfds_builders.common.records import TooManyRejects
from tfds_builders.custom import custom

FOLDERS = ('archives', 'my data', '256')
COMMAND = "python -m tfds_builders.build clinic --archives archives --data_dir 'my data' --size 256"


def refuse(error):
  with pytest.raises(ConfigError) as refused, refuse_archive('clinic', *FOLDERS):
    raise error
  return str(refused.value)


@pytest.mark.parametrize('error, line', [
  (ValueError('labels.csv is not UTF-8 text'), 'labels.csv is not UTF-8 text'),
  (FileNotFoundError('no labels.csv'), 'no labels.csv'),
  (TooManyRejects('complete it, or accept it with --tolerated FRACTION'),
   f'complete it, or accept it with {COMMAND} --tolerated FRACTION'),
  (build.ArchiveChanged('prepare it again with --overwrite, or use another --data_dir'),
   f'prepare it again with {COMMAND} --overwrite, or use another --config.data.dir'),
  (ValueError('run python -m tfds_builders.build clinic --overwrite'),
   'run python -m tfds_builders.build clinic --overwrite')])
def test_a_mistake_in_an_archive_is_one_of_the_config_with_a_remedy_that_this_command_has(error, line):
  assert refuse(error) == line


@pytest.mark.parametrize('error', [TypeError('a bug'), OSError(errno.ENOSPC, 'No space left on device')])
def test_bugs_and_full_disks_are_no_mistakes(error):
  with pytest.raises(type(error)) as raised, refuse_archive('clinic', *FOLDERS):
    raise error
  assert raised.value is error


def test_a_table_that_is_not_text_is_refused_by_a_dry_run_as_well(tmp_path):
  table = write_clinic(tmp_path) / 'labels.csv'
  table.write_bytes(table.read_bytes() + b'\xf6')
  with pytest.raises(ConfigError, match='labels.csv is not UTF-8'):
    image_counts.read_tables('clinic', ConfigDict({'archives': str(tmp_path), 'dir': 'data', 'stored_size': '256'}))


@pytest.mark.parametrize('fields, said', [
  ({'flips': True}, "'left lung' of clinic names one side"),
  ({'tasks': {'own': {'uncertain': 'ones'}}}, 'marks no label as uncertain')])
def test_options_that_the_labels_do_not_allow_are_refused_by_a_dry_run_as_well(fields, said, monkeypatch):
  about = {'findings': ['left lung', 'cast'], 'relation': 'independent'}
  monkeypatch.setattr(image_counts, 'list_rows', lambda *_: [])
  monkeypatch.setattr(image_counts, 'has_archive', lambda *_: True)
  monkeypatch.setattr(image_counts, 'read_tables', lambda *_: types.SimpleNamespace(
    info=types.SimpleNamespace(metadata=about)))
  config = ConfigDict({'flips': False, 'data': {}, 'tasks': {'own': {
    'kind': 'classification', 'dataset': 'clinic', 'findings': (), 'among': '', 'uncertain': 'ignore',
    'augment': {'flip': 0.0}}}})
  config.update(fields)
  with pytest.raises(ConfigError, match=said):
    image_counts.count_task('own', config)


def test_file_names_that_the_locale_cannot_express_are_refused_with_the_remedy(tmp_path, monkeypatch):
  root = write_clinic(tmp_path, patients=3)
  monkeypatch.setattr('sys.getfilesystemencoding', lambda: 'ascii')
  archives.check_file_names(custom.make_archive('clinic'), root)
  (root / 'images/Röntgen.png').touch()
  with pytest.raises(ValueError, match='encoding ascii.*PYTHONUTF8=1'):
    archives.check_file_names(custom.make_archive('clinic'), root)
