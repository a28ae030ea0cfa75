"""A task on a dataset of one's own: its kind, classes and sizes come from the labels."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from configs import continual, finetune
from mtpret_jax import stages
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.own_section import list_sections
from mtpret_jax.report.pages.config_changes import Change, find_changes
from mtpret_jax.runtime import logging, own_task, prepare_data
from mtpret_jax.tasks.detection import DETECTION
from tfds_builders import build


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
  """`clinic` with findings, masks of one side and boxes, and `knees` with grades; images of noise."""
  folder = tmp_path_factory.mktemp('own')
  stream = np.random.default_rng(0)
  for name in ('clinic', 'knees'):
    (folder / name / 'images').mkdir(parents=True)
    for number in range(24):
      PIL.Image.fromarray(stream.integers(0, 255, (48, 48), np.uint8)).save(folder / name / f'images/{number}.png')
  clinic = folder / 'clinic'
  (clinic / 'masks').mkdir()
  for number in range(24):
    mask = np.zeros((48, 48), np.uint8)
    mask[8:40, 8:24] = 1
    PIL.Image.fromarray(mask).save(clinic / f'masks/{number}.png')
  (clinic / 'classes.txt').write_text('background\nleft lung\n')
  rows = [f'{number}.png,p{number},{number % 2},{number // 2 % 2}' for number in range(24)]
  (clinic / 'labels.csv').write_text('\n'.join(['image,patient,left effusion,right effusion', *rows]))
  boxes = [{'id': number, 'image_id': number % 24, 'category_id': 1 + number % 2, 'bbox': [4, 4, 20, 20]}
           for number in range(30)] + [{'id': 90 + i, 'image_id': 3, 'category_id': 1, 'bbox': [i, i, 9, 9]}
                                       for i in range(9)]
  (clinic / 'boxes.json').write_text(json.dumps({
    'images': [{'id': number, 'file_name': f'{number}.png', 'width': 48, 'height': 48} for number in range(24)],
    'categories': [{'id': 1, 'name': 'tooth'}, {'id': 2, 'name': 'root'}], 'annotations': boxes}))
  rows = [f'{number}.png,p{number},{number % 3}' for number in range(24)]
  (folder / 'knees/labels.csv').write_text('\n'.join(['image,patient,grade (KL)', *rows]))
  return folder


def configure(archives, variant='own', get_config=finetune.get_config, section='task', **fields):
  config = get_config(variant)
  config.data.archives = str(archives)
  config.data.dir = str(archives / 'data')
  config[section].update(fields)
  return config


@pytest.mark.parametrize('kind, preset', [('classification', 'small'), ('segmentation', 'paper'),
                                          ('detection', 'base')])
def test_the_report_says_what_differs_from_own(kind, preset, archives):
  config = configure(archives, dataset='clinic', kind=kind)
  config.preset = preset
  config.task.augment.flip, config.task.epochs = 0.5, 3.0
  plain = own_task.resolve(config, quiet=True)
  variant, changes = find_changes(plain.to_dict())
  assert variant == f'configs/finetune.py:own --config.preset={preset}'
  assert {change.field for change in changes} - {'tasks.clinic.augment.flip'} == {
    'tasks.clinic.epochs', 'data.archives', 'data.dir'}
  assert Change('tasks.clinic.epochs', '50.0' if preset == 'paper' else '30.0', '3.0') in changes


def test_the_only_kind_that_the_labels_allow_is_taken(archives):
  plain = own_task.resolve(configure(archives, dataset='knees'))
  assert list(plain.tasks) == ['knees'] and 'task' not in plain
  knees = plain.tasks.knees
  assert (knees.kind, knees.dataset, knees.findings) == ('classification', 'knees', ())
  assert (knees.size, knees.augment.size, knees.augment.flip, knees.head.to_dict()) == (74, 64, 0.5, {})
  assert plain.workdir == 'runs/finetune/knees'


@pytest.mark.parametrize('kind, view, head, objects', [
  ('classification', 64, None, 0), ('segmentation', 96, 'dilations', 0), ('detection', 96, 'anchor_sizes', 16)])
def test_head_and_sizes_follow_from_the_kind_and_the_boxes(kind, view, head, objects, archives):
  own = own_task.resolve(configure(archives, dataset='clinic', kind=kind)).tasks.clinic
  assert (own.kind, own.augment.size, own.size, own.objects) == (kind, view, round(1.15 * view), objects)
  assert head in own.head if head else not own.head


def test_boxes_give_the_same_numbers_when_the_archive_is_gone(archives, tmp_path):
  config = configure(archives, dataset='clinic', kind='detection')
  config.data.dir = str(tmp_path)
  build.prepare('clinic', archives, tmp_path)
  with_archive = own_task.resolve(config)
  config.data.archives = ''
  without = own_task.resolve(config)
  assert without.tasks.clinic.to_dict() == with_archive.tasks.clinic.to_dict()


def test_prepared_records_are_read_rather_than_their_archive(archives, tmp_path):
  shutil.copytree(archives / 'clinic', tmp_path / 'clinic')
  (tmp_path / 'clinic/images/3.png').write_text('damaged')  # the image with most boxes
  config = configure(tmp_path, dataset='clinic', kind='detection')
  before = own_task.resolve(config).tasks.clinic
  build.prepare('clinic', tmp_path, tmp_path / 'data', tolerated=0.1)
  prepared = own_task.resolve(config).tasks.clinic
  config.data.archives = ''
  assert (before.objects, prepared.objects, own_task.resolve(config).tasks.clinic.objects) == (16, 8, 8)


def test_a_second_start_has_the_numbers_of_the_first(archives, tmp_path):
  config = configure(archives, dataset='clinic', kind='detection')
  config.workdir = str(tmp_path)
  first = own_task.resolve(config)
  # What the archive gave. The records that were prepared since then may give other numbers.
  first.tasks.clinic.update(objects=24)
  first.tasks.clinic.head.update(anchor_sizes=((1.0,), (2.0,), (3.0,), (4.0,), (5.0,)), aspect_ratios=(0.5,),
                                 max_detections=max(24, first.tasks.clinic.head.max_detections))
  logging.save_config(tmp_path, first)
  assert own_task.resolve(config).to_dict() == first.to_dict()
  config.task.objects = 3
  assert own_task.resolve(config).tasks.clinic.objects == 3
  config.task.update(objects=0, views=(64, 112))  # a run of another size, which is fitted anew
  other = own_task.resolve(config).tasks.clinic
  assert other.objects == 16 and other.head.aspect_ratios != (0.5,)
  config.task.views = (64, 96)
  (tmp_path / 'config.json').write_text((tmp_path / 'config.json').read_text().replace('0.5', '"0.5"'))
  assert own_task.resolve(config).tasks.clinic.objects == 16


def test_anchors_cover_the_boxes():
  stream = np.random.default_rng(0)
  height, width = stream.uniform(0.18, 0.22, 200), stream.uniform(0.04, 0.06, 200)
  corner = stream.uniform(0, 0.7, (2, 200))
  boxes = np.stack([corner[0], corner[1], corner[0] + height, corner[1] + width], 1)
  sizes, ratios = own_task.fit_anchors(boxes, 100)
  sizes = np.array(sizes)[:, 0]
  assert 7.5 < sizes[0] < 10 and 12 < sizes[-1] < 16  # the square roots of the areas are 8.5 to 11.5 px
  assert np.allclose(sizes[1:] / sizes[:-1], sizes[1] / sizes[0], atol=0.02)
  assert 3 < ratios[0] < ratios[1] < ratios[2] < 5.5 and 3.8 < ratios[1] < 4.2


@pytest.mark.parametrize('boxes', [np.zeros((0, 4)), np.array([[0.1, 0.1, 0.1, 0.3]]), np.array([[0, 0, 1, 1.0]]),
                                   np.array([[0.5, 0.5, 0.5001, 0.5001]])])
def test_anchors_of_few_or_odd_boxes_are_valid(boxes):
  sizes, ratios = own_task.fit_anchors(boxes, 96)
  rules = DETECTION.head_schema
  assert rules['anchor_sizes'].fits(sizes) and rules['aspect_ratios'].fits(ratios)


def test_what_the_user_sets_is_kept(archives):
  config = configure(archives, dataset='clinic', kind='detection', objects=3, name='teeth', size=80)
  config.preset = 'base'
  config.task.augment.size = 70
  config.task.heads.detection.max_detections = 5
  config.task.heads.detection.aspect_ratios = (1.0,)
  plain = own_task.resolve(config)
  own = plain.tasks.teeth
  assert (own.objects, own.size, own.augment.size, own.head.max_detections, own.head.width) == (3, 80, 70, 5, 128)
  assert own.head.aspect_ratios == (1.0,) and len(own.head.anchor_sizes) == 5
  assert plain.workdir == 'runs/finetune/teeth'


def test_a_label_of_one_side_turns_the_flip_off_and_says_so(archives, caplog):
  one_side = own_task.resolve(configure(archives, dataset='clinic', kind='segmentation'))
  assert one_side.tasks.clinic.augment.flip == 0
  assert "'left lung' names one side of the body" in caplog.text
  caplog.clear()
  both = own_task.resolve(configure(archives, dataset='clinic', kind='classification'))
  assert both.tasks.clinic.augment.flip == 0.5 and 'side' not in caplog.text


@pytest.mark.parametrize('fields, complaint', [
  (dict(), r'task\.dataset is empty: .*--config\.task\.dataset=<name>; in data\.archives=.* there is clinic, knees'),
  (dict(dataset='clinics'), "unknown dataset 'clinics': choose one of .*, clinic, knees.*did you mean 'clinic'"),
  (dict(dataset='clinic'), 'clinic has labels for classification and detection and segmentation: choose one with '
                           r'--config\.task\.kind=classification'),
  (dict(dataset='clinic', kind='diagnosis'), r"unknown task\.kind 'diagnosis': choose one of classification"),
  (dict(dataset='knees', kind='detection'), 'knees has labels for classification only: set '
                                            r'--config\.task\.kind=classification'),
  (dict(dataset='knees', name='trunk'), r"task\.name='trunk' cannot name a task")])
def test_a_mistake_is_one_line_with_what_to_type(fields, complaint, archives):
  with pytest.raises(ConfigError, match=complaint):
    own_task.resolve(configure(archives, **fields))


def test_a_dataset_without_labels_says_what_a_task_needs(archives, tmp_path):
  shutil.copytree(archives / 'knees', tmp_path / 'plain')
  (tmp_path / 'plain/labels.csv').write_text('image,patient\n0.png,p0\n')
  with pytest.raises(ConfigError, match='plain has no labels: a task needs finding columns or a value'):
    own_task.resolve(configure(tmp_path, dataset='plain'))


def test_an_error_about_the_task_names_the_field_that_can_be_set(archives):
  config = configure(archives, dataset='knees', batch=5)
  with pytest.raises(ConfigError, match=r'task\.batch of 5 cannot be cut .*--config\.task\.batch=') as caught:
    stages.run(config)
  assert 'tasks.' not in str(caught.value)
  config = configure(archives, dataset='clinic', kind='detection')
  config.task.heads.detection.roi_hidden = 0
  with pytest.raises(ConfigError, match=r'task\.heads\.detection\.roi_hidden=0'):
    stages.run(config)


def test_own_tasks_join_stage_2_beside_the_others(archives):
  config = configure(archives, 'real,pneumonia,own,own2', continual.get_config, dataset='knees')
  config.task2.update(dataset='clinic', kind='detection')
  plain = own_task.resolve(config)
  assert list(plain.tasks) == ['pneumonia', 'knees', 'clinic'] and not list_sections(plain)
  assert {own.max_steps for own in plain.tasks.values()} == {60}
  config.task2.update(dataset='knees', kind='')
  with pytest.raises(ConfigError, match=r"task2\.name='knees' cannot name a task: .*pneumonia, knees"):
    own_task.resolve(config)


def test_a_dry_run_counts_its_images(archives, capsys):
  stages.print_plan(configure(archives, dataset='knees', group=2))  # eight devices
  assert 'of knees' in capsys.readouterr().out


def test_every_error_is_one_that_the_command_line_prints():
  assert issubclass(ConfigError, prepare_data.USER_ERRORS)
