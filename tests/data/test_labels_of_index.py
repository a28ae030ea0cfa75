"""What index.csv says of the labels decides the same as the records do."""

import csv
import errno
import shutil

import numpy as np
import pytest

from configs import finetune
from mtpret_jax.data import sources
from mtpret_jax.data.labelled_records import LabelledRecord
from mtpret_jax.runtime import own_task, prepare_data
from mtpret_jax.tasks import dataset, find_kind, imbalance, split_checks
from mtpret_jax.tasks.fitted import fit_task
from tfds_builders import build
from tfds_builders.common import index, label_columns

TASKS = {'pneumonia': 'kermany_pneumonia', 'knee': 'knee_oa', 'abnormality': 'mura', 'lung': 'lung_masks',
         'tuberculosis': 'tbx11k', 'findings': 'vinbigdata_cxr', 'bone_age': 'rsna_bone_age'}


@pytest.fixture(autouse=True)
def forget(monkeypatch):
  """What one test has read is no matter of the next."""
  monkeypatch.setattr(dataset, 'USABLE', {})
  sources.advise_update.cache_clear()


def make_config(task, folder, split='patient', fraction=1.0, **fields):
  config = finetune.get_config(task)
  config.data.update(dir=str(folder), split=split, fraction=fraction)
  config.tasks[task].update(fields)
  return config


def decide(config, task, monkeypatch, reads):
  """All that a start decides by the labels, by the index or by reading every record."""
  with monkeypatch.context() as patch:
    patch.setattr(dataset, 'USABLE', {})
    if reads:
      patch.setattr(sources, 'read_labels', lambda *_: None)
    found = {}
    for split in ('train', 'validation', 'test'):
      _, usable = dataset.open_usable(config, task, split, config.data.fraction if split == 'train' else 1.0)
      own = config.tasks[task]
      fitted = split_checks.fit_to_split(own, split, usable.labels)
      about = dataset.open_task(config, task, split).about
      classes = find_kind(own.kind).list_classes(about, own, usable.labels)
      found[split] = (list(usable.places), list(map(shape_boxes, usable.labels)), dict(usable.left_out), classes,
                      fitted.to_dict(), split_checks.list_doubts(config, task, split, about, usable.labels))
    source = dataset.open_task(config, task, 'train', config.data.fraction)
    found['head'] = fit_task(config, task, source).as_json()
    if find_kind(own.kind).make_loss:
      own.loss.class_weights = 'balanced'
      found['weights'] = find_kind(own.kind).make_loss(about, own, usable.labels).__reduce__()[2][1:3]
    own.sampler = 'balanced' if own.kind in ('classification', 'detection') else 'shuffled'
    found['groups'] = imbalance.group_by_class(config, task)
    return found


def shape_boxes(label):
  """TFDS reads no boxes as an array of another shape."""
  objects = label.get('objects')
  return label if objects is None else label | {
    'objects': {'class_id': objects['class_id'], 'box': np.float32(objects['box']).reshape(-1, 4)}}


def count_reads(monkeypatch):
  """[image_id of each record that is read from now on]."""
  class Noted:
    def __init__(self, records):
      self.records = records

    def __len__(self):
      return len(self.records)

    def __getitem__(self, place):
      record = self.records[place]
      seen.append(record['image_id'])
      return record

  seen, open_split = [], sources.open_split
  monkeypatch.setattr(sources, 'open_split', lambda *arguments: Noted(open_split(*arguments)))
  return seen


@pytest.mark.parametrize('task, split, fraction', [
  *((task, 'patient', 1.0) for task in TASKS), ('pneumonia', 'paper', 1.0), ('knee', 'patient', 0.6)])
def test_a_start_decides_the_same_by_the_index_as_by_the_records(task, split, fraction, prepared, monkeypatch):
  config = make_config(task, prepared, split, fraction)
  monkeypatch.setattr(sources, 'SAMPLES', 1)
  seen = count_reads(monkeypatch)
  by_index = decide(config.copy_and_resolve_references(), task, monkeypatch, reads=False)
  few = len(seen)
  by_records = decide(config.copy_and_resolve_references(), task, monkeypatch, reads=True)
  np.testing.assert_equal(by_index, by_records)
  # Of each split at most the first and the last, for comparison.
  assert few <= 12 and len(seen) >= few + 20


@pytest.fixture(scope='module')
def own_copy(prepared, tmp_path_factory):
  """A folder that a test may change: VinBigData, which has findings and boxes, and lungs with masks."""
  folder = tmp_path_factory.mktemp('own')
  for name in ('vinbigdata_cxr', 'lung_masks'):
    shutil.copytree(prepared / name, folder / name)
  return folder


def strip_labels(path):
  """Makes the index one of an earlier version."""
  text = (path / index.NAME).read_text()
  with open(path / index.NAME, newline='') as file:
    rows = list(csv.DictReader(file))
  with open(path / index.NAME, 'w', newline='') as file:
    table = csv.DictWriter(file, index.COLUMNS, extrasaction='ignore')
    table.writeheader()
    table.writerows(rows)
  return text


@pytest.mark.parametrize('task', ['lung', 'findings'])
def test_an_index_without_labels_is_told_once_and_gets_them_by_the_command(task, own_copy, monkeypatch, caplog, capsys):
  path = build.locate(TASKS[task], own_copy)
  whole, config = strip_labels(path), make_config(task, own_copy)
  seen = count_reads(monkeypatch)
  with caplog.at_level('INFO'):
    for split in ('train', 'validation', 'test'):
      dataset.open_task(config, task, split)
  line, = (message for message in caplog.messages if 'index.csv' in message)
  command = f'python -m tfds_builders.build {TASKS[task]} --archives DIR --data_dir {own_copy} --size 256'
  assert line.endswith(command) and len(seen) == len(index.read(path))
  arguments = [str(own_copy) if word == 'DIR' else word for word in command.split()[3:]]
  assert build.main(arguments) == 0 and 'already prepared; labels added to index.csv' in capsys.readouterr().out
  assert (path / index.NAME).read_text() == whole
  assert build.main(arguments) == 0 and 'added' not in capsys.readouterr().out


def refuse_to_write(path):
  raise PermissionError(errno.EACCES, 'Permission denied', f'{path.parent}/{build.LOCK}')


def test_the_command_goes_on_where_labels_cannot_be_added(prepared, monkeypatch, capsys):
  monkeypatch.setattr(build, 'add_labels', refuse_to_write)
  assert build.main(['lung_masks', 'knee_oa', '--archives', str(prepared), '--data_dir', str(prepared)]) == 0
  printed = capsys.readouterr().out
  assert printed.count('already prepared; labels could not be added to index.csv: ') == 2
  assert printed.count('Permission denied') == 2


def test_a_start_adds_the_labels_or_warns_where_it_cannot(own_copy, monkeypatch, caplog):
  path, config = build.locate('vinbigdata_cxr', own_copy), make_config('findings', own_copy)
  config.data.update(archives=str(own_copy), datasets=('vinbigdata_cxr',))
  whole = strip_labels(path)
  caplog.set_level('INFO')
  own_task.read_stored_boxes.__wrapped__('vinbigdata_cxr', str(own_copy), '256', 'patient')
  assert 'no labels in index.csv' not in caplog.text  # the start will add them
  with monkeypatch.context() as patch:
    patch.setattr(build, 'add_labels', refuse_to_write)
    prepare_data.prepare_data(config)
  assert 'vinbigdata_cxr: labels are not added to index.csv ([Errno 13] Permission denied' in caplog.text
  assert not label_columns.has_labels(path / index.NAME)
  prepare_data.prepare_data(config)
  assert (path / index.NAME).read_text() == whole


def test_labels_are_not_added_to_the_index_of_other_records(own_copy):
  path = build.locate('lung_masks', own_copy)
  whole = strip_labels(path)
  rows = index.read(path)
  for wrong, words in ((rows[3]['sha256'], 'differs from what was written'), (rows[3]['image_id'], 'does not list')):
    (path / index.NAME).write_text((path / index.NAME).read_text().replace(wrong, rows[4]['sha256'], 1))
    with pytest.raises(ValueError, match=f'is damaged: .*{words}.*tfds_builders.build lung_masks .* --overwrite'):
      build.add_labels(path)
    assert not label_columns.has_labels(path / index.NAME) and not list(path.glob('*.part'))
  (path / index.NAME).write_text(whole)


def test_two_processes_may_add_labels_at_once_where_there_are_no_locks(own_copy):
  path = build.locate('lung_masks', own_copy)
  whole, finished = strip_labels(path), []
  rows = {(row['split'], row['position']): row for row in index.read(path)}

  def find_split(split, position, image_id):
    if not finished:
      finished.append(index.add_labels(path))  # of the other process
    return rows[split, position]

  index.write_rows(path, find_split)
  assert (path / index.NAME).read_text() == whole and not list(path.glob('*.part'))


@pytest.mark.parametrize('spoil', [
  lambda text: text.replace(' 1 1', ' 1 0', 1),  # a label, by hand
  lambda text: text.replace(',0 ', ',0.0 ', 1),  # as a spreadsheet writes a number
])
def test_a_changed_label_in_the_index_is_refused(spoil, own_copy):
  path = build.locate('vinbigdata_cxr', own_copy)
  whole = (path / index.NAME).read_text()
  assert spoil(whole) != whole
  (path / index.NAME).write_text(spoil(whole))
  with pytest.raises(sources.OutdatedIndex, match='index.csv is not as it was .*vinbigdata_cxr --archives .* --overw'):
    for split in ('train', 'validation', 'test'):
      dataset.open_task(make_config('findings', own_copy), 'findings', split)
  with pytest.raises(ValueError, match='index.csv is not as it was written'):
    index.read(path)
  (path / index.NAME).write_text(whole)


def test_an_index_of_another_build_is_refused(own_copy):
  """As after a copy that mixed two folders: each row is sound for itself."""
  path = build.locate('vinbigdata_cxr', own_copy)
  whole = (path / index.NAME).read_text()
  rows = index.read(path)
  one, other = [row for row in rows if row['split'] == 'train'][:2]
  swapped = [{**row, **{column: (other if row is one else one)[column] for column in row if column not in (
    'split', 'position', label_columns.ROW_CHECK)}} if row in (one, other) else row for row in rows]
  with open(path / index.NAME, 'w', newline='') as file:
    table = csv.DictWriter(file, rows[0])
    table.writeheader()
    table.writerows(row | {label_columns.ROW_CHECK: label_columns.check_row(row)} for row in swapped)
  with pytest.raises(sources.OutdatedIndex, match='index.csv does not describe the records beside it, such as'):
    dataset.open_task(make_config('findings', own_copy), 'findings', 'train')
  (path / index.NAME).write_text(whole.split('\n', 2)[0] + '\n' + whole.split('\n', 2)[2])
  with pytest.raises(sources.OutdatedIndex, match='lists .* records of a split that has'):
    dataset.open_task(make_config('findings', own_copy), 'findings', rows[0]['split'])
  (path / index.NAME).write_text(whole)


def test_a_field_that_the_index_lacks_is_read_from_the_record():
  """A kind of task of one's own may decide by any field."""
  record = LabelledRecord({'image_id': b'a', 'present': np.ones(1)}, [{'image_id': b'a', 'age': 7.0}], 0)
  assert record['age'] == 7.0 and 'present' in record and 'objects' not in record and 'sex' not in record
  untouched = LabelledRecord({'present': np.ones(1)}, None, 0)
  assert 'present' in untouched and 'value' not in untouched and untouched.get('mask_pixels') is None


@pytest.mark.parametrize('values', [[np.nan], [0.3], [1 / 3], [np.pi * 1e7], [1e-30]])
def test_every_float32_survives_the_index(values):
  values = np.float32(values)
  cell, = label_columns.write_cells({'value': values}, ['value'], None)
  row = {'split': 'train', 'position': 0, 'value': cell}
  label, = label_columns.read_cells([row | {label_columns.ROW_CHECK: label_columns.check_row(row)}])
  np.testing.assert_array_equal(label['value'], values)
  assert label['value'].dtype == np.float32
