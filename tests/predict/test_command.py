"""`python -m mtpret_jax.predict`: what a user types, and what lies in the folder afterwards."""

import csv
import json
import pathlib
import types

import cv2
import numpy as np
import pytest

from mtpret_jax.predict import __main__ as command
from mtpret_jax.predict import load as loading
from mtpret_jax.predict import results
from mtpret_jax.predict.reading import Unreadable
from tests.support.scored import ABOUT

FOUND = {
  'segmentation': ('mask', {'mask': np.eye(16, dtype=np.int32)}),
  'detection': ('boxes', {'boxes': np.float32([[.25, .5, .75, 1]]), 'class_id': np.int32([1]),
                          'score': np.float32([.8])}),
  'classification': ('independent', {'score': np.float32([.2, .6, .5])}),
  'regression': ('value', {'value': np.float32([96.5])})}
SIZES = {'scans/0.png': (60, 40), 'scans/1.png': (30, 90), 'scans/2.png': (64, 64)}  # width, height


@pytest.fixture
def scans(tmp_path, monkeypatch):
  """Three images and one that is none, below the current folder."""
  monkeypatch.chdir(tmp_path)
  pathlib.Path('scans').mkdir()
  for number, (name, (width, height)) in enumerate(SIZES.items()):
    cv2.imwrite(name, np.random.default_rng(number).integers(0, 255, (height, width), np.uint8))
  pathlib.Path('scans/1b.png').write_bytes(b'no image')


@pytest.fixture
def ask(scans, monkeypatch, capsys):
  """ask(kind, *arguments) -> (exit code, stdout, stderr) of the command with a model that predicts FOUND."""
  def ask(kind, *arguments, thresholds=types.MappingProxyType({})):
    name, prediction = FOUND[kind]

    def pair(result, readings):
      return ((reading, None if isinstance(reading, Unreadable) else result) for reading in readings)
    model = types.SimpleNamespace(
      kind=kind, about=ABOUT[name], task='ill', stored_size='256', choose_batch=lambda count: 8,
      members=[types.SimpleNamespace(chosen='best', step=step) for step in (4, 7)],
      thresholds=thresholds, iterate=lambda readings, batch: pair(prediction, readings),
      iterate_features=lambda readings, batch: pair(np.arange(3, dtype=np.float32), readings))
    monkeypatch.setattr(command, 'load_model', lambda flags: model)
    code = command.main(['--run=run', *arguments])
    return code, *capsys.readouterr()
  return ask


def read_rows(path='run/predictions/predictions.csv'):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('kind', FOUND)
def test_every_image_has_a_row_and_an_unreadable_one_its_reason(ask, kind):
  code, printed, told = ask(kind, 'scans')
  assert 'compiling for batches of 8 images' in told and '3 images predicted, too few images to time\n' in printed
  rows = {row['image']: row for row in read_rows()}
  assert code == 0 and list(rows) == ['scans/0.png', 'scans/1.png', 'scans/1b.png', 'scans/2.png']
  assert {name: (int(rows[name]['width']), int(rows[name]['height'])) for name in SIZES} == SIZES
  assert rows['scans/1b.png']['error'].startswith('unreadable image') and not rows['scans/1.png']['error']
  assert not any(value for column, value in rows['scans/1b.png'].items() if column not in ('image', 'error'))
  assert '3 images predicted' in printed and '1 image could not be read:\n  scans/1b.png: unreadable' in printed
  assert 'run/predictions/predictions.csv' in printed and printed.endswith(f'{command.NOTE}\n')


def test_masks_have_the_size_of_their_image_and_the_classes_of_the_model(ask):
  ask('segmentation', 'scans')
  for name, row in ((row['image'], row) for row in read_rows() if not row['error']):
    mask = cv2.imread(f'run/predictions/{row["mask"]}', cv2.IMREAD_UNCHANGED)
    assert mask.shape == SIZES[name][::-1] and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
    assert row['mask'] == f'masks/{pathlib.Path(name).stem}.png'
  assert len(list(pathlib.Path('run/predictions/masks').iterdir())) == 3


def test_boxes_are_in_the_pixels_of_their_image(ask):
  ask('detection', 'scans', thresholds={'latent': .9})
  boxes = json.loads(pathlib.Path('run/predictions/boxes.json').read_text())
  assert {image['file_name']: (image['width'], image['height']) for image in boxes['images']} == SIZES
  assert [box['bbox'] for box in boxes['annotations']] == [[30, 10, 30, 20], [15, 22.5, 15, 45], [32, 16, 32, 32]]
  assert [row.get('positive: latent') for row in read_rows()] == ['0', '0', '', '0']


def test_positive_is_what_reaches_the_operating_point(ask):
  ask('classification', 'scans/0.png', thresholds={'mass': .1, 'nodule': .7})
  row, = read_rows()
  assert (row['positive: mass'], row['positive: nodule']) == ('1', '0') and 'positive: effusion' not in row


def test_overlays_are_drawn_on_demand(ask):
  ask('regression', 'scans')
  assert not pathlib.Path('run/predictions/overlays').exists()
  ask('regression', 'scans', '--overlays', '--overwrite')
  assert [row['overlay'] for row in read_rows()] == ['overlays/0.png', 'overlays/1.png', '', 'overlays/2.png']
  assert {cv2.imread(f'run/predictions/overlays/{number}.png').ndim for number in range(3)} == {3}


def test_features_are_rows_of_an_array_with_their_images(ask):
  code, printed, _ = ask('classification', 'scans', '--embed', '--out=features')
  features = np.load('features/features.npy')
  assert code == 0 and features.shape == (3, 3) and features.dtype == np.float32
  assert [(row['row'], row['image']) for row in read_rows('features/features.csv')] == [
    ('0', 'scans/0.png'), ('1', 'scans/1.png'), ('', 'scans/1b.png'), ('2', 'scans/2.png')]
  assert not pathlib.Path('features/predictions.csv').exists() and 'features/features.npy' in printed


def test_the_folder_says_what_made_it(ask):
  ask('classification', 'scans', thresholds={'mass': .1})
  made_by = json.loads(pathlib.Path('run/predictions/predict.json').read_text())
  assert made_by['finished'] and (made_by['images'], made_by['unreadable']) == (4, 1)
  assert made_by['runs'] == [str(pathlib.Path('run').absolute())]
  assert made_by['findings'] == ABOUT['independent']['findings']
  assert (made_by['task'], made_by['stored_size'], made_by['thresholds']) == ('ill', 256, {'mass': .1})
  assert (made_by['states'], made_by['steps']) == (['best', 'best'], [4, 7])  # of each member of an ensemble


def test_an_earlier_result_is_replaced_on_demand_only_and_whole(ask):
  ask('segmentation', 'scans')
  code, _, refused = ask('segmentation', 'scans/0.png')
  assert code == 2 and refused.count('\n') == 1 and 'add --overwrite' in refused and len(read_rows()) == 4
  assert ask('segmentation', 'scans/0.png', '--overwrite')[0] == 0
  assert len(read_rows()) == 1 and len(list(pathlib.Path('run/predictions/masks').iterdir())) == 1


def test_an_interrupted_result_is_replaced(ask, monkeypatch):
  def interrupt(self):
    raise KeyboardInterrupt
  with monkeypatch.context() as patch:
    patch.setattr(results.Predictions, 'close', interrupt)
    assert ask('regression', 'scans')[0] == 130
  assert not pathlib.Path('run/predictions/predictions.csv').exists()
  assert ask('regression', 'scans')[0] == 0 and len(read_rows()) == 4
  assert not list(pathlib.Path('run/predictions').glob('*.part'))


def test_files_of_others_are_never_touched(ask):
  pathlib.Path('masks').mkdir()
  pathlib.Path('masks/mine.png').write_bytes(b'')
  code, _, refused = ask('segmentation', 'scans', '--out=.', '--overwrite')
  assert code == 2 and 'holds other files' in refused and pathlib.Path('masks/mine.png').exists()


def test_what_is_in_the_folder_of_the_results_is_no_input(ask):
  ask('segmentation', 'scans', '--out=scans/out', '--overlays')
  ask('segmentation', 'scans', '--out=scans/out', '--overlays', '--overwrite')
  assert len(read_rows('scans/out/predictions.csv')) == 4


def test_the_command_fails_if_no_image_can_be_read(ask):
  code, printed, _ = ask('detection', 'scans/1b.png')
  row, = read_rows()
  assert code == 2 and '0 images predicted' in printed and row['error']


def test_a_run_of_several_tasks_predicts_the_one_that_is_named(scans, two_tasks_run, capsys):
  workdir, _ = two_tasks_run
  assert command.main([f'--run={workdir}', 'scans', '--out=out']) == 2
  assert 'has several tasks: add --task=NAME with one of ' in capsys.readouterr().err
  assert not pathlib.Path('out').exists()
  assert command.main([f'--run={workdir}', 'scans', '--out=out', '--task=bone_age']) == 0
  rows = read_rows('out/predictions.csv')
  predicted = loading.load(workdir, task='bone_age').predict(list(SIZES))['value'][:, 0]
  assert [float(row['bone age (months)']) for row in rows if not row['error']] == predicted.tolist()
  assert command.main([f'--run={workdir}', 'scans', '--out=features', '--task=bone_age', '--embed']) == 0
  assert np.load('features/features.npy').shape == (3, 64)


def test_a_machine_without_a_tpu_does_not_load_libtpu(monkeypatch):
  calls = []
  monkeypatch.setattr(command.backend, 'is_cpu', lambda: True)
  monkeypatch.setattr(command.backend, 'skip_libtpu', lambda: calls.append('skip'))
  monkeypatch.setattr(loading, 'load', lambda *_, **__: (
    calls.append('load') or types.SimpleNamespace(tasks=(), task='')))
  command.load_model(types.SimpleNamespace(run=['run'], task=None, state=None, embed=True))
  assert calls == ['skip', 'load']


@pytest.mark.parametrize('arguments, said', [
  (['scans', '--overlay-all'], "unknown flag --overlay-all; did you mean '--overlays'?"),
  (['scans', '--run=another'], 'name a folder for the result with --out'),
  (['scans', '--batch=0'], '--batch 0 reads no image'), (['scans', '--embed', '--overlays'], 'leave out --overlays')])
def test_a_wrong_flag_is_refused_with_the_right_one(ask, arguments, said, capsys):
  with pytest.raises(SystemExit) as ended:
    ask('regression', *arguments)
  assert ended.value.code == 2 and said in capsys.readouterr().err


def test_names_may_come_before_and_after_flags(ask):
  assert ask('regression', 'scans/0.png', '--batch=2', 'scans/1.png')[0] == 0
  assert len(read_rows()) == 2
