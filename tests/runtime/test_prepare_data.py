"""A split that a run cannot use is an error before the run trains, in one line with a remedy."""

import csv
import re
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import MissingSplit, OutdatedIndex, Source, open_source, rank_patients
from mtpret_jax.evaluation.image_numbers import count_images
from mtpret_jax.runtime import prepare_data
from mtpret_jax.runtime.prepare_data import USER_ERRORS, check_prepared
from mtpret_jax.tasks import dataset, find_kind, split_checks
from tests.support.archives import write_clinic
from tfds_builders import build, sanity_rules
from tfds_builders.common import images

LABELLED = np.array([True])
BOXES = {'class_id': np.zeros(1, np.int64), 'box': np.zeros((1, 4), np.float32)}


def make_config(task='classification', tasks=1, split='patient', fraction=1.0, **fields):
  task_config = dict(kind=task, dataset='atlas', findings=(), among='', negatives='evaluation', **fields)
  return ConfigDict(dict(
    objective='multitask', tasks={f'task{index}': task_config for index in range(tasks)},
    data=dict(datasets=('atlas',), dir='data', stored_size='256', split=split, fraction=fraction,
              fraction_seed=0)))


def make_record(patient, **labels):
  return {'patient': f'atlas:{patient}'.encode(), 'image_id': str(patient).encode()} | labels


def find(*present):
  """A record for each label of one finding."""
  return [make_record(i, present=np.float32([each]), label_mask=LABELLED) for i, each in enumerate(present)]


def use(monkeypatch, relation='independent', findings=('nodule',), **splits):
  """Lets the splits of the dataset 'atlas' be these lists of records. Returns the splits that are opened."""
  about, opened = {'findings': findings, 'relation': relation, 'box_classes': ['mass', 'cyst'],
                   'box_negatives': list(findings), 'mask': ['background', 'lung', 'heart'],
                   'value': {'name': 'age', 'unit': 'years'}}, []

  def open_splits(name, data_dir, stored_size, split, split_rule, fraction=1.0, fraction_seed=0):
    opened.append(split)
    records = splits[split]
    if fraction < 1:
      records = [record for record in records if share_of(records)[record['patient'].decode()] < fraction]
    return Source(name, split, '1.0.0', about, records, split_rule)

  def share_of(records):
    return rank_patients([{'patient': record['patient'].decode(), 'stratum': ''} for record in records])

  monkeypatch.setattr(dataset, 'USABLE', {})
  monkeypatch.setattr(dataset, 'open_source', open_splits)
  monkeypatch.setattr(split_checks, 'read_patient_shares', lambda name, *rest: share_of(splits['train']))
  return opened


def mark(*masks):
  """A record for each set of mask classes; 255 is not annotated."""
  return [make_record(i, mask=images.encode(np.uint8([classes]))) for i, classes in enumerate(masks)]


def refuse(config):
  with pytest.raises(ConfigError) as error:
    check_prepared(config)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_every_archive_found_includes_the_users_own_and_says_what_was_not_taken(tmp_path, caplog):
  write_clinic(tmp_path)
  (tmp_path / 'scans/images').mkdir(parents=True)  # without a table
  (tmp_path / '__MACOSX').mkdir()
  config = ConfigDict(dict(objective='moco', data=dict(datasets=(), archives=str(tmp_path), dir='data',
                                                       stored_size='256')))
  with caplog.at_level('INFO'):
    prepare_data.choose_datasets(config)
  assert config.data.datasets == ('clinic',)
  assert 'found the archives of clinic (your own: clinic)' in caplog.text
  assert f'not taken from {tmp_path}: scans. A folder of your own images needs a labels.csv' in caplog.text


def test_without_a_folder_the_current_one_is_not_searched(tmp_path, monkeypatch):
  write_clinic(tmp_path)
  assert list(prepare_data.find_archives(str(tmp_path))) == ['clinic']
  monkeypatch.chdir(tmp_path)
  assert prepare_data.find_archives('') == {}


def test_a_folder_without_any_archive_is_refused(tmp_path):
  config = ConfigDict(dict(objective='moco', data=dict(datasets=(), archives=str(tmp_path), dir='data',
                                                       stored_size='256')))
  with pytest.raises(ConfigError, match='no archive of .* and no folder with labels.csv: set --config.data.archives='):
    prepare_data.choose_datasets(config)


def test_everything_that_is_missing_in_any_stage_is_named_at_once(tmp_path):
  write_clinic(tmp_path)
  def make_stage(*names, archives=str(tmp_path)):
    return ConfigDict(dict(data=dict(datasets=names, archives=archives, dir=str(tmp_path / 'data'),
                                     stored_size='256')))
  prepare_data.check_archives([make_stage('clinic')])
  with pytest.raises(ConfigError) as error:
    prepare_data.check_archives([make_stage('clinic', 'mura'), make_stage('murra', 'mura')])
  first, mura, murra, advice = str(error.value).split('\n')
  assert first.startswith(f'2 of 3 datasets are neither in data.archives={str(tmp_path)!r} nor prepared in')
  assert mura.startswith('  mura: MURA-v1.1.zip from https://stanford')
  assert murra.endswith(f"create {tmp_path / 'murra/labels.csv'} (docs/own-data.md); did you mean 'mura'?")
  assert f'tfds_builders.unpack FILE --archives {tmp_path / "mura"}' in advice
  with pytest.raises(ConfigError, match='mura: no train/XR_'):  # of a single one, also the layout
    prepare_data.check_archives([make_stage('clinic', 'mura')])


def test_phantoms_are_rendered_without_archives_but_a_dataset_of_your_own_is_missing(tmp_path):
  data = dict(datasets=('mura',), archives='', dir=str(tmp_path / 'data'), stored_size='256')
  prepare_data.check_archives([ConfigDict(dict(data=data))])
  with pytest.raises(ConfigError, match="unknown dataset 'clinic'.* set --config.data.archives"):
    prepare_data.check_archives([ConfigDict(dict(data={**data, 'datasets': ('mura', 'clinic')}))])


@pytest.mark.parametrize('tasks, splits', [(1, ['train', 'validation', 'test']), (2, ['train', 'validation'] * 2)])
def test_the_splits_that_a_run_will_use_are_opened(tasks, splits, monkeypatch):
  opened = use(monkeypatch, train=find(0, 1), validation=find(1), test=find(0, 1))
  check_prepared(make_config(tasks=tasks))
  assert opened == splits


@pytest.mark.parametrize('task, test, message', [
  ('classification', find(1, 1), "the test split of atlas by the split rule 'paper' has no finding that is present in "
   'one image and absent in another (only nodule), so classification cannot be scored on it'),
  ('classification', [make_record(0, present=np.float32([0]), label_mask=~LABELLED)],
   "the test split of atlas by the split rule 'paper' has no image for classification: of 1 images, 1 with no known "
   'finding'),
  ('regression', [make_record(i, value=np.float32([12])) for i in range(2)],
   'has the same value in all images (12), so regression cannot be scored on it'),
  ('detection', [make_record(0, objects={'class_id': []}, present=np.float32([1]), label_mask=LABELLED)],
   'has no image for detection: of 1 images, 1 with no box'),
  ('detection', [make_record(0, objects={'class_id': []}, present=np.float32([0]), label_mask=LABELLED)],
   'has no box, so detection cannot be scored on it')])
def test_a_test_split_that_gives_no_score_is_refused(task, test, message, monkeypatch):
  train = find(0, 1)
  for index, record in enumerate(train):
    record.update(value=np.float32([index]), objects=BOXES)
  use(monkeypatch, train=train, validation=train, test=test)
  complaint = refuse(make_config(task, split='paper'))
  assert message in complaint and '--config.data.split' in complaint
  check_prepared(make_config(task, tasks=2))  # several tasks are not scored on test


def test_training_images_of_one_grade_are_refused(monkeypatch):
  two = [make_record(i, present=np.float32([1, 0]), label_mask=np.ones(2, bool)) for i in range(2)]
  use(monkeypatch, relation='ordinal', findings=('grade 0', 'grade 1'), train=two, validation=two, test=two)
  assert 'the train split of atlas by the split rule \'patient\' has one class only (grade 0), so classification ' \
    'cannot be learned on it' in refuse(make_config())


@pytest.mark.parametrize('values, words', [
  ((7, 7), 'has the same value in all images (7)'), ((0.1, 0.1 + 1e-9), 'has the same value in all images (0.1)'),
  ((1e9, 1e9 + 200), 'has values that differ by 2e+02 only (about 1e+09), which float32 cannot resolve'),
  ((1e-44, 2e-44), 'has values that differ by 1e-44 only')])
def test_values_that_float32_cannot_tell_apart_are_refused(values, words, monkeypatch):
  records = [make_record(i, value=np.float32([value])) for i, value in enumerate(values)]
  use(monkeypatch, train=records, validation=records, test=records)
  assert f"the train split of atlas by the split rule 'patient' {words}" in refuse(make_config('regression'))


def test_small_values_have_a_standard_deviation():
  records = [make_record(i, value=np.float32([i * 1e-30])) for i in range(3)]
  head = find_kind('regression').fit_head(None, Source('atlas', 'train', '1.0.0', {}, records))
  assert head.deviation == pytest.approx(np.std([0, 1e-30, 2e-30]))


@pytest.mark.parametrize('train, words', [
  (mark([0, 0], [0, 255]), 'the train split of atlas by .* has masks of one class only .background., so segm'),
  (mark([255, 255], [2, 2], [2, 255]), 'has masks of one class only .heart., so segmentation cannot be learned on it')])
def test_masks_of_one_class_are_refused(train, words, monkeypatch):
  both = mark([0, 1], [0, 2])
  use(monkeypatch, train=train, validation=train, test=both)
  assert re.search(words, refuse(make_config('segmentation')))
  use(monkeypatch, train=both, validation=train, test=train)
  assert 'the test split of atlas' in refuse(make_config('segmentation'))
  check_prepared(make_config('segmentation', tasks=2))


def test_what_a_split_lacks_is_told(monkeypatch, caplog):
  def tell(task, *splits):
    caplog.clear()
    use(monkeypatch, findings=('nodule', 'mass'), **dict(zip(('train', 'validation', 'test'), splits, strict=True)))
    check_prepared(make_config(task))
    return [message for message in caplog.messages if 'has only' not in message]
  two = [make_record(i, present=np.float32([i, 0]), label_mask=np.ones(2, bool)) for i in range(2)]
  train, validation, test = (f"task task0: the {split} split of atlas by the split rule 'patient' has "
                             for split in ('train', 'validation', 'test'))
  assert tell('classification', two, two, two) == [
    f'{train}no image with mass, which is not learned',
    f'{validation}no image with mass, so the best state is chosen without it',
    f'{test}no image with mass, which has no score']
  assert tell('classification', two, two[:1], two)[1:-1] == [
    f'{validation}one patient only (usable images: 1)',
    f'{validation}no finding that is present in one image and absent in another (only no nodule, no mass), so the '
    'state that validation finds may not be the best; if no validation gives a score, the last state counts']
  both = mark([0, 1], [0, 2])
  assert tell('segmentation', both, both, both) == []
  assert tell('segmentation', both, both, mark([0, 1], [0, 1])) == [f'{test}no image with heart, which has no score']
  boxes = [make_record(i, objects=BOXES) for i in range(2)]
  assert tell('detection', boxes, boxes, boxes) == [
    f'{train}no image with cyst, which is not learned',
    f'{validation}no image with cyst, so the best state is chosen without it',
    f'{test}no image with cyst, which has no score']
  values = [make_record(i, value=np.float32([i])) for i in range(2)]
  assert tell('regression', values, values, values) == []


def test_rare_classes_of_test_and_absent_ones_of_validation_are_told(monkeypatch, caplog):
  def hold(*class_ids):
    return [make_record(i, objects={'class_id': np.int64([each]), 'box': np.zeros((1, 4), np.float32)})
            for i, each in enumerate(class_ids)]
  use(monkeypatch, train=hold(0, 1), validation=hold(0, 0), test=hold(0, 0, 0, 0, 0, 1))
  check_prepared(make_config('detection'))
  rare = ("task task0: the test split of atlas by the split rule 'patient' has only 1 image with cyst, so its scores "
          'are uncertain')
  assert caplog.messages == ["task task0: the validation split of atlas by the split rule 'patient' has no image with "
                             'cyst, so the best state is chosen without it', rare]
  rows = {'truth_class_id': [np.zeros(1, int)] * 5 + [np.ones(1, int)]}
  numbers = count_images({'box_classes': ['mass', 'cyst']}, rows)
  assert split_checks.describe_rare(make_config('detection'), 'task0', 'test', numbers) == [rare]
  two_tasks = make_config('detection', tasks=2)
  notes = split_checks.note_rare(two_tasks, 'test', {'task0': numbers, 'task1': numbers})
  assert notes == [rare, rare.replace('task0', 'task1'), split_checks.MEAN_NOTE]
  alone = split_checks.note_rare(two_tasks, 'test', {'task0': {'mass': 9, 'no mass': 1}, 'task1': {'a': 9, 'b': 9}})
  assert len(alone) == 1 and 'has only 1 image with no mass' in alone[0]
  assert count_images({'findings': ['mass', 'cyst'], 'relation': 'independent'}, {
    'present': np.eye(2), 'label_mask': np.array([[1, 1], [1, 0]])}) == {
      'mass': 1, 'cyst': 0, 'no mass': 1, 'no cyst': 1}


def test_the_records_of_a_split_are_read_once_in_a_process(monkeypatch):
  class Counted(list):
    reads = 0

    def __getitem__(self, index):
      Counted.reads += 1
      return super().__getitem__(index)

  use(monkeypatch, train=Counted(find(0, 1)), validation=Counted(find(0, 1)), test=Counted(find(0, 1)))
  config = make_config()
  check_prepared(config)
  for split in ('train', 'validation', 'test'):
    dataset.open_task(config, 'task0', split)
  assert Counted.reads == 6


# data.fraction

def test_a_fraction_without_an_image_of_a_class_is_refused_with_the_smallest_one_that_has_some(monkeypatch):
  records = find(*[0] * 40)
  order = rank_patients([{'patient': f'atlas:{i}', 'stratum': ''} for i in range(40)])
  ill = max(range(40), key=lambda i: order[f'atlas:{i}'] if order[f'atlas:{i}'] < 0.5 else 0)  # rank 19 of 40
  records[ill]['present'] = np.float32([1])
  use(monkeypatch, train=records, validation=records, test=records)
  complaint = refuse(make_config(fraction=0.1))
  assert "data.fraction=0.1 keeps no image of 'nodule'" in complaint and '--config.data.fraction=0.4751' in complaint
  check_prepared(make_config(fraction=0.4751))
  assert 'nodule' in refuse(make_config(fraction=0.475))


def test_a_fraction_that_loses_a_class_of_the_masks_or_all_values_but_one_is_refused(monkeypatch):
  order = rank_patients([{'patient': f'atlas:{i}', 'stratum': ''} for i in range(40)])
  last = max(range(40), key=lambda i: order[f'atlas:{i}'])
  masks = mark(*([0, 2 if i == last else 1] for i in range(40)))
  use(monkeypatch, train=masks, validation=masks, test=masks)
  assert "data.fraction=0.5 keeps no image of 'heart'" in refuse(make_config('segmentation', fraction=0.5))
  values = [make_record(i, value=np.float32([i == last])) for i in range(40)]
  use(monkeypatch, train=values, validation=values, test=values)
  assert ("tasks.task0: what data.fraction=0.5 keeps of the train split of atlas by the split rule 'patient' has the "
          'same value in all images (0), so regression cannot be learned on it: set a larger --config.data.fraction'
          ) in refuse(make_config('regression', fraction=0.5))
  check_prepared(make_config('regression'))


def test_a_class_without_any_training_image_is_no_matter_of_the_fraction(monkeypatch):
  two = [make_record(i, present=np.float32([i % 2, 0]), label_mask=np.ones(2, bool)) for i in range(40)]
  use(monkeypatch, findings=('nodule', 'mass'), train=two, validation=two, test=two)
  check_prepared(make_config(fraction=0.5))


# Prepared datasets

@pytest.fixture(scope='module')
def clinic(tmp_path_factory):
  """A data_dir with the custom dataset 'clinic', whose official split has test images only."""
  folder = tmp_path_factory.mktemp('clinic')
  write_clinic(folder)
  build.prepare('clinic', folder, folder / 'data')
  return folder / 'data'


def test_a_rule_without_the_split_is_refused_in_every_stage(clinic):
  config = make_config(split='official')
  config.data.update(datasets=('clinic',), dir=str(clinic))
  config.tasks.task0.dataset = 'clinic'
  config.data.whole = ()
  for objective in ('moco', 'multitask'):
    config.objective = objective
    with pytest.raises(MissingSplit, match="clinic has no train images under the split rule 'official', only test"):
      check_prepared(config)
  config.update(objective='moco')
  config.data.whole = ('clinic',)
  check_prepared(config)  # the rule does not matter for a dataset that is used whole


def test_a_fresh_build_of_archives_prints_the_warnings_of_the_sanity_report(clinic, caplog, monkeypatch):
  config = ConfigDict({'data': {'datasets': ('clinic',), 'dir': str(clinic), 'archives': str(clinic.parent),
                                'stored_size': '256'}})
  monkeypatch.setattr(sanity_rules, 'warn', lambda report: [f'{report.total} images look odd'])
  prepare_data.build_data(config)
  assert caplog.messages == []  # it is prepared already
  monkeypatch.setattr(build, 'is_prepared', lambda path: False)
  monkeypatch.setattr(build, 'prepare', lambda *_, **__: build.locate('clinic', clinic))
  prepare_data.build_data(config)
  assert caplog.messages == ['clinic: 24 images look odd']
  config.data.archives = ''
  monkeypatch.setattr(prepare_data, 'render_phantoms', lambda _: clinic.parent)
  monkeypatch.setattr(prepare_data, 'check_archives', lambda stages: None)  # there are no phantoms of this name
  prepare_data.build_data(config)  # of phantoms: no more than before
  assert len(caplog.messages) == 1


def test_a_folder_of_archives_that_is_not_there_is_told_and_prepared_data_is_used(clinic, caplog):
  config = ConfigDict({'data': {'datasets': ('clinic',), 'dir': str(clinic), 'archives': 'archve',
                                'stored_size': '256'}})
  prepare_data.build_data(config)
  assert caplog.messages == [f"data.archives='archve' is not there: the run uses what is prepared in "
                             f"data.dir={str(clinic)!r}"]


def test_a_dry_run_refuses_an_archive_that_has_changed(tmp_path):
  table = write_clinic(tmp_path) / 'labels.csv'
  build.prepare('clinic', tmp_path, tmp_path / 'data')
  stage = ConfigDict({'data': {'datasets': ('clinic',), 'dir': str(tmp_path / 'data'), 'archives': str(tmp_path),
                               'stored_size': '256'}})
  prepare_data.check_unchanged([stage])
  table.write_text(table.read_text().replace('female,41', 'female,51'))
  with pytest.raises(ConfigError, match=r'prepared from another archive.*tfds_builders.build clinic .* --overwrite'):
    prepare_data.check_unchanged([stage])


@pytest.mark.parametrize('task, fields, words', [
  ('regression', {}, 'tasks.task0: clinic has no labels for regression, only for classification: set '
   '--config.tasks.task0.kind or --config.tasks.task0.dataset'),
  ('segmentation', {}, 'has no labels for segmentation'), ('detection', {}, 'has no labels for detection'),
  ('classification', {'findings': ('mass',)}, "tasks.task0.findings: clinic has no finding 'mass': choose one of "
   'fracture, cast'), ('classification', {'among': 'mass'}, "tasks.task0.among: clinic has no finding 'mass'")])
def test_a_dataset_of_ones_own_without_the_labels_of_a_task_is_refused(task, fields, words, clinic):
  config = make_config(task)
  config.data.update(datasets=('clinic',), dir=str(clinic))
  config.tasks.task0.update(dataset='clinic', **fields)
  assert words in refuse(config)


def test_patients_in_several_splits_are_told_with_their_number(clinic, caplog, monkeypatch):
  rows = [{'image_id': f'{i}', 'patient': f'p{i // 3}', 'official': ('train', 'validation', 'test')[i % 3]}
          for i in range(9)] + [{'image_id': '9', 'patient': 'p9', 'official': 'test'}]
  monkeypatch.setattr(prepare_data, 'read_index', lambda *_: rows)
  config = make_config(split='official')
  config.data.update(dir=str(clinic))
  config.tasks.task0.dataset = 'clinic'
  assert prepare_data.list_shared_patients(config) == [
    "clinic by the split rule 'official': 3 of 4 test patients also have images in train, 3 of 3 validation patients "
    'also have images in train, 3 of 4 test patients also have images in validation, so scores are too good for new '
    'patients']
  config.data.split = 'patient'
  assert prepare_data.list_shared_patients(config) == []
  with monkeypatch.context() as patch:
    patch.setattr(prepare_data, 'list_shared_patients', lambda _: ['clinic: shared'])
    config = make_config()
    use(monkeypatch, train=find(0, 1), validation=find(0, 1), test=find(0, 1))
    check_prepared(config)
    assert caplog.messages[-1] == 'clinic: shared'


def test_an_index_of_an_earlier_version_is_refused_with_the_command(clinic, tmp_path):
  path = build.locate('clinic', clinic)
  older = tmp_path / 'clinic/256/1.0.0'
  shutil.copytree(path, older)
  with open(path / 'index.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  with open(older / 'index.csv', 'w', newline='') as file:
    table = csv.DictWriter(file, [column for column in rows[0] if column != 'stratum'], extrasaction='ignore')
    table.writeheader()
    table.writerows(rows)
  open_source('clinic', tmp_path, '256', 'train')  # the stored split needs no index
  with pytest.raises(OutdatedIndex, match=f'build clinic --archives .* --data_dir {tmp_path} --size 256 --overwrite'):
    open_source('clinic', tmp_path, '256', 'train', 'paper')
  assert OutdatedIndex in USER_ERRORS


def test_a_whole_dataset_has_all_stored_images_in_order(clinic):
  stored = [record['image_id'] for split in ('train', 'validation', 'test')
            for record in open_source('clinic', clinic, '256', split).records]
  source = open_source('clinic', clinic, '256', 'train', 'official', images_only=True, whole=True)
  assert [source.records[index]['image_id'] for index in range(len(source))] == stored and len(stored) == 24
  assert (source.split, source.split_rule) == ('train', 'whole')
