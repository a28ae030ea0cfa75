"""The table and the contact sheet of a dataset, against what the phantoms rendered."""

import collections
import re

import numpy as np
import PIL.Image
import pytest

from tests.support.archives import SPLITS, flip_bit, match_truth, read_all, write_clinic
from tests.support.small_runs import PHANTOMS
from tfds_builders import build, inspect, leakage, phantoms
from tfds_builders.common import contact_sheet, index, records


def count_truth(name, prepared, read):
  """{row: Counter of splits}, where read(radiograph) gives the rows that an image counts in."""
  table = collections.defaultdict(collections.Counter)
  for record, radiograph in match_truth(name, read_all(build.locate(name, prepared))):
    for row in read(radiograph):
      table[row][record['split']] += 1
  return table


def run_inspect(name, prepared, capsys, *flags):
  assert inspect.main([name, '--data_dir', str(prepared), *map(str, flags)]) == 0
  return capsys.readouterr().out


def find_row(printed, title):
  line, = [line for line in printed.split('\n') if line.startswith(f'{title}  ')]
  return [int(number) for number in line[len(title):].split()]


def test_findings_and_boxes_are_counted_as_rendered(prepared, capsys):
  printed = run_inspect('nih_chest_xray', prepared, capsys)
  kinds = build.read_metadata(build.locate('nih_chest_xray', prepared))['box_classes']
  truth = count_truth('nih_chest_xray', prepared, lambda seen: [
    'images', *seen.findings, *{f'box of {kind}' for kind, *_ in seen.boxes if kind in kinds}])
  for row, counts in truth.items():
    assert find_row(printed, row) == [counts[split] for split in SPLITS], row
  boxes = sum(kind in kinds for _, seen in phantoms.render('nih_chest_xray', **PHANTOMS) for kind, *_ in seen.boxes)
  assert sum(find_row(printed, 'boxes in all')) == boxes > 0


def test_values_are_those_rendered(prepared, capsys):
  ages = collections.defaultdict(list)
  for record, radiograph in match_truth('rsna_bone_age', read_all(build.locate('rsna_bone_age', prepared))):
    ages[record['split']].append(round(radiograph.value))
  printed = run_inspect('rsna_bone_age', prepared, capsys)
  for months in ages.values():
    assert f'{np.median(months):g} ({min(months)}-{max(months)})' in printed


def test_masks_sizes_split_rules_and_rejects_are_printed(prepared, capsys):
  printed = run_inspect('panoramic_dental', prepared, capsys)
  assert sum(find_row(printed, 'mask of mandible')) == PHANTOMS['images']
  heights = [seen.image.shape[0] for _, seen in phantoms.render('panoramic_dental', **PHANTOMS)]
  assert f'height in pixels, median (range): {np.median(heights):g} ({min(heights)}-{max(heights)})' in printed
  assert find_row(printed, 'images by rule paper') == [20, 2, 2]
  rejects = run_inspect('rsna_bone_age', prepared, capsys)
  assert re.search(r'left out: \d+ test image without bone age', rejects)


def test_patients_in_two_official_splits_are_reported_by_the_build_and_by_inspect(tmp_path, capsys, caplog):
  write_clinic(tmp_path, row=lambda i: f'a/{i}.png,p{i // 2},,,,{i % 2},0,{"test" if i < 6 and i % 2 else "train"}')
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert 'official' not in caplog.text, 'a run with the split rule `patient` builds, too'
  assert 'with data.split=official only: 3 patients have images in more than one split (' in records.summarise(path)
  assert 'patients in more than one split by rule official: 3' in run_inspect('clinic', tmp_path / 'data', capsys)


@pytest.mark.parametrize('name', build.NAMES)
def test_every_dataset_has_a_sheet_with_the_requested_number_of_images(name, prepared, tmp_path, capsys):
  assert '7 images drawn' in run_inspect(name, prepared, capsys, '--sheet', tmp_path / 'sheet.png', '--images', 7)
  with PIL.Image.open(tmp_path / 'sheet.png') as picture:
    pixels = np.asarray(picture.convert('RGB'))
  assert pixels.shape[1] == contact_sheet.COLUMNS * (contact_sheet.SIDE + contact_sheet.GAP)
  lit = [(pixels[:, start:start + contact_sheet.SIDE] != contact_sheet.PAPER).any(-1).mean()
         for start in range(0, pixels.shape[1], contact_sheet.SIDE + contact_sheet.GAP)]
  assert min(lit) > 0.1, 'each column holds a picture'


def test_a_sheet_shows_every_label_that_there_is(prepared):
  path = build.locate('nih_chest_xray', prepared)
  seen, chosen = inspect.survey(path, 24)
  about = build.read_metadata(path)
  shown = set().union(*(inspect.list_labels(record, about) for _, record in chosen))
  assert len({record['image_id'] for _, record in chosen}) == len(chosen) == 24
  assert {name for name in about['findings'] if name in seen.table} <= shown


def test_boxes_are_drawn_where_they_were_rendered(prepared):
  path, drawn = build.locate('nih_chest_xray', prepared), 0
  about = build.read_metadata(path)
  _, chosen = inspect.survey(path, 24)
  for split, record in chosen:
    stem = record['image_id'].decode()
    radiograph, = [seen for image_path, seen in phantoms.render('nih_chest_xray', **PHANTOMS) if stem in image_path]
    boxes = [box for box in radiograph.boxes if box[0] in about['box_classes']]
    if len(boxes) != 1:  # two may hide each other's edges
      continue
    kind, x, y, w, h = boxes[0]
    tile = np.asarray(contact_sheet.draw_tile(split, record, about))
    fit = contact_sheet.SIDE / max(radiograph.image.shape)
    rows, columns = np.nonzero((tile == contact_sheet.colour(about['box_classes'].index(kind))).all(-1))
    edges = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    np.testing.assert_allclose(edges, np.array([y, x, y + h, x + w]) * fit, atol=1.5 + fit / 2)
    drawn += 1
  assert drawn


def test_masks_tint_what_was_rendered_and_nothing_else(prepared):
  path = build.locate('panoramic_dental', prepared)
  about = build.read_metadata(path)
  _, chosen = inspect.survey(path, 8)
  for split, record in chosen:
    stem = record['image_id'].decode()
    if stem in ('22', '110'):  # torn drawings: all around is unannotated
      continue
    radiograph, = [seen for image_path, seen in phantoms.render('panoramic_dental', **PHANTOMS)
                   if image_path.endswith(f'/{stem}.png')]
    tile = np.asarray(contact_sheet.draw_tile(split, record, about)).astype(int)
    shape = tuple(round(side * contact_sheet.SIDE / max(radiograph.image.shape)) for side in radiograph.image.shape)
    tinted = np.ptp(tile[:shape[0], :shape[1]], axis=-1) > 0
    rendered = np.asarray(PIL.Image.fromarray(radiograph.masks['mandible']).resize(shape[::-1], PIL.Image.NEAREST))
    assert (tinted & rendered).sum() / (tinted | rendered).sum() > 0.97


def test_captions_state_labels_and_keep_the_end_of_long_names(prepared):
  path = build.locate('mura', prepared)
  _, chosen = inspect.survey(path, 3)
  about = build.read_metadata(path)
  for split, record in chosen:
    stated, whom, image = contact_sheet.caption(split, record, about)
    assert stated == ('abnormal' if record['present'][0] else 'abnormal absent') and whom.startswith(split)
    pen = PIL.ImageDraw.Draw(PIL.Image.new('RGB', (1, 1)))
    short = contact_sheet.shorten(image, pen)
    assert pen.textlength(short, contact_sheet.FONT) <= contact_sheet.SIDE and image.endswith(short.removeprefix('...'))


def test_verify_accepts_intact_records_and_names_damaged_ones(archives, tmp_path, capsys):
  path = build.prepare('panoramic_dental', archives, tmp_path)
  assert 'every record is intact' in run_inspect('panoramic_dental', tmp_path, capsys, '--verify')
  flip_bit(path, 'test')
  assert inspect.main(['panoramic_dental', '--data_dir', str(tmp_path), '--verify']) == 1
  error = capsys.readouterr().err
  assert '1 damaged' in error and '--overwrite' in error
  assert any(f'test {row["position"]} {row["image_id"]}' in error for row in index.read(path) if row['split'] == 'test')
  for file, content in ((index.NAME, ','.join(index.COLUMNS)), ('features.json', '{'), ('dataset_info.json', '{')):
    (path / file).write_text(content)
    for main in (inspect.main, leakage.main):
      assert main(['panoramic_dental', '--data_dir', str(tmp_path)]) == 2
      assert f'{path} is damaged' in capsys.readouterr().err
    with pytest.raises(ValueError, match='build panoramic_dental --archives DIR .* --size 256 --overwrite'):
      build.prepare('panoramic_dental', archives, tmp_path)


def test_a_dataset_that_is_not_prepared_is_an_error_of_one_line(tmp_path, capsys):
  assert inspect.main(['mura', '--data_dir', str(tmp_path)]) == 2
  error = capsys.readouterr().err.strip()
  assert 'mura is not prepared' in error and '\n' not in error
