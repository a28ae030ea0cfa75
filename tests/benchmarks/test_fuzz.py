"""Damaged and hostile archives: a short run of the fuzzer, and cases that longer runs have found."""

import csv
import errno
import math
import os
import struct
import zipfile
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from benchmarks.fuzz import __main__ as fuzz
from benchmarks.fuzz import judge, readings
from tests.support import dicoms
from tests.support.archives import edit, read_all, read_rejects, write_clinic, write_nih
from tfds_builders import build, unpack
from tfds_builders.common import (
  boxes,
  coco_boxes,
  decoded,
  dicom,
  image_files,
  images,
  nlm_tuberculosis,
  plain_text,
  voc,
)
from tfds_builders.common.records import TooManyRejects

GREY = np.arange(300 * 40, dtype=np.uint8).reshape(300, 40)  # large enough that its bytes may be copied
TABLE = 'Data_Entry_2017_v2020.csv'


def test_damaged_archives_end_in_records_rejects_or_errors_of_one_line(capsys):
  assert fuzz.main(['--n=10', '--seed=2122', '--seconds=60']) == 0  # with this seed, a case of every kind
  assert capsys.readouterr().out.strip().endswith('fuzz: 10 of 10')


def read_case(number, folder, way):
  folder.mkdir()
  return readings.run(np.random.default_rng([3, number]), folder, way.append)


def test_unusual_datasets_are_read_rightly_or_refused(tmp_path):
  ways = []
  for number in range(30):
    read_case(number, tmp_path / str(number), ways)
  assert len(set(ways)) == len(readings.WAYS)


def test_a_reader_that_ignores_the_orientation_is_a_fault(tmp_path, monkeypatch):
  monkeypatch.setattr(readings, 'WAYS', {'orientation': readings.orient})
  monkeypatch.setattr(image_files, 'UPRIGHT', {})
  with pytest.raises(judge.Fault, match='orientation'):
    for number in range(10):
      read_case(number, tmp_path / str(number), [])


def prepare(folder, **options):
  """(records, rejects) of a damaged NIH archive."""
  path = build.prepare('nih_chest_xray', folder, folder / 'data', **options)
  return read_all(path), read_rejects(path)


# Files, folders and their names

def test_pipes_and_links_that_go_round_are_refused_and_named(tmp_path):
  root = write_nih(tmp_path)
  (root / 'images_001/round').symlink_to(root)
  with pytest.raises(ValueError, match='images_001/round is a link to a folder above itself'):
    prepare(tmp_path)
  (root / 'images_001/round').unlink()
  os.mkfifo(root / 'images_001/pipe.png')
  with pytest.raises(ValueError, match=r'images_001/pipe\.png is a pipe or device'):
    prepare(tmp_path)


def test_links_are_followed_to_files_and_folders_elsewhere_and_one_to_nothing_is_a_reject(tmp_path):
  root = write_nih(tmp_path)
  (root / 'images_001/images').rename(tmp_path / 'elsewhere')
  (root / 'images_001/images').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'elsewhere/00000000_000.png').unlink()
  (tmp_path / 'elsewhere/00000000_000.png').symlink_to('nowhere')
  records, rejects = prepare(tmp_path)
  assert len(records) == 39 and rejects == {('00000000_000', 'unreadable file')}


@pytest.mark.parametrize('name', [b'IM-0001-0001\n.jpeg', b'IM-0001-\xff\xfe.jpeg'])
def test_a_name_that_is_not_text_is_a_reject(name, tmp_path):
  folder = tmp_path / 'train'
  for i, side in enumerate(('NORMAL', 'PNEUMONIA') * 15):
    (folder / side).mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(GREY).save(folder / side / f'IM-{i:04d}-0001.jpeg')
  (folder / 'NORMAL/IM-0000-0001.jpeg').rename(os.path.join(os.fsencode(folder / 'NORMAL'), name).decode(
    'utf-8', 'surrogateescape'))
  path = build.prepare('kermany_pneumonia', tmp_path, tmp_path / 'data')
  assert len(read_all(path)) == 29
  (image_id, reason), = read_rejects(path)
  assert reason.startswith('text with control characters') and image_id.isprintable()
  assert ',train/NORMAL/IM-' in (path / 'rejects.csv').read_text()


def test_a_table_that_is_a_folder_is_named(tmp_path):
  root = write_nih(tmp_path)
  (root / TABLE).unlink()
  (root / TABLE).mkdir()
  with pytest.raises(ValueError, match=r'Data_Entry_2017\*\.csv is a folder'):
    prepare(tmp_path)


def test_a_split_without_a_readable_image_is_an_error(tmp_path):
  root = write_nih(tmp_path, images=8)
  for path in (root / 'images_001/images').iterdir():
    path.write_bytes(b'?')
  with pytest.raises(TooManyRejects, match='can be read'):
    prepare(tmp_path, tolerated=1)


# Tables

def test_rows_of_another_length_than_the_header_are_rejects(tmp_path):
  root = write_nih(tmp_path, images=80)
  edit(root / TABLE, '00000001_000.png,No Finding,0', '00000001_000.png,No,Finding,0')
  edit(root / TABLE, '00000002_000.png,No Finding,0,2,34,F,PA,2682,2749,0.143,0.143', '00000002_000.png,No Finding')
  records, rejects = prepare(tmp_path, tolerated=0.1)
  assert len(records) == 78 and rejects == {
    ('', 'row unlike its header'), ('00000001_000', 'image without row'), ('00000002_000', 'image without row')}


@pytest.mark.parametrize('spoil, words', [
  (lambda text: text.encode('utf-16-le'), 'is not UTF-8 text but UTF-16 without'),
  (lambda text: text.encode() + b'\xe9\n', 'is not UTF-8 text'),
  (lambda text: text.replace('\n', ',"\n', 1).encode() + b'x' * csv.field_size_limit(), 'is not a valid CSV row'),
  (lambda text: text.replace('Patient Age', 'Patient ID').encode(), "columns once: .'Patient ID', 'Patient Age'"),
  (lambda text: b'', 'must have each of these columns once')])
def test_a_table_that_cannot_be_read_is_named(spoil, words, tmp_path):
  path = write_nih(tmp_path) / TABLE
  path.write_bytes(spoil(path.read_text()))
  with pytest.raises(ValueError, match=words) as caught:
    prepare(tmp_path)
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_meaningless_cells_of_nih_are_unknown_or_rejects(tmp_path):
  root = write_nih(tmp_path, images=80, box='{name},Pneumonia,256')
  edit(root / TABLE, '00000001_000.png,No Finding,0,1,32,M,PA', f'00000001_000.png,No Finding,0,1,{"9" * 5000},?,\t')
  edit(root / TABLE, '00000002_000.png,No Finding', '00000002_000.png,')
  edit(root / TABLE, '00000003_000.png,No Finding,0,3', '00000003_000.png,No Finding,0,')
  records, rejects = prepare(tmp_path)
  assert rejects == {('00000000_000', 'box without area'), ('00000002_000', 'unknown finding'),
                     ('00000003_000', 'empty image or patient name')}
  odd = records['00000001_000']
  assert math.isnan(odd['age']) and odd['sex'] == odd['view'] == ''


def test_a_row_that_names_nothing_is_listed_with_its_table(tmp_path):
  root = write_nih(tmp_path, images=80)
  edit(root / TABLE, '00000001_000.png,No Finding', ',No Finding')
  build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data')
  with open(build.locate('nih_chest_xray', tmp_path / 'data') / 'rejects.csv', newline='') as file:
    assert {'image_id': '', 'path': TABLE, 'reason': 'row without image'} in csv.DictReader(file)


@pytest.mark.parametrize('months', ['²', '9' * 5000, '٣', '1e3', '0', ''])
def test_a_bone_age_that_is_no_number_of_months_is_a_reject(months, tmp_path):
  folder = tmp_path / 'boneage-training-dataset'
  folder.mkdir()
  for i in range(30):
    PIL.Image.fromarray(GREY).save(folder / f'{i}.png')
  rows = [f'{i},{months if i == 4 else 100 + i},True\n' for i in range(30)]
  (tmp_path / 'boneage-training-dataset.csv').write_text(''.join(['id,boneage,male\n', *rows]))
  path = build.prepare('rsna_bone_age', tmp_path, tmp_path / 'data')
  assert len(read_all(path)) == 29 and read_rejects(path) == {('4', 'missing bone age or sex')}


def test_a_reading_with_a_number_without_end_has_no_age():
  reading = nlm_tuberculosis.parse_reading(b'male ' + b'9' * 5000 + b'yrs\nnormal')
  assert reading['sex'] == 'M' and math.isnan(reading['age'])


# Boxes

@pytest.mark.parametrize('width', [math.nan, math.inf, 0, -5])
def test_a_box_of_an_image_without_a_size_is_refused(width):
  assert boxes.place_box('a', 1, 2, 3, 4, width, 10) == (None, 'box of an image without size')


@pytest.mark.parametrize('old, new', [
  ('"width": 10', '"width": 1' + '0' * 400), ('"width": 10', '"width": "x"'), ('"width": 10', '"width": null'),
  ('"file_name": "a.png"', '"file_name": 5'), ('"image_id": 1', '"image_id": [1]'), ('"bbox": [1', '"bbox": [[]'),
  ('"category_id": 1', '"category_id": {}'), ('"images"', '"pictures"'), ('{"images"', '[' * 100_000 + '{"images"')])
def test_a_coco_file_with_other_values_is_named(old, new, tmp_path):
  text = ('{"images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 10}], '
          '"categories": [{"id": 1, "name": "a"}], '
          '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]}')
  path = tmp_path / 'boxes.json'
  path.write_text(text)
  drawn = coco_boxes.read_coco(path, ('a',))
  assert drawn.boxes == {'a.png': [('a', 0.2, 0.1, 0.6, 0.4)]} and not drawn.rejected
  assert old in text
  path.write_text(text.replace(old, new))
  with pytest.raises(ValueError, match='is not a COCO file') as caught:
    coco_boxes.read_coco(path, ('a',))
  assert str(path) in str(caught.value) and len(str(caught.value)) <= 1000


@pytest.mark.parametrize('head', ['<!DOCTYPE a [<!ENTITY b "c">]>', '<?xml version="1.0" encoding="klingon"?>', '</a>'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_xml_with_a_document_type_or_of_no_encoding_is_refused(head, encoding, tmp_path):
  path = tmp_path / 'a.xml'
  path.write_bytes(f'{head}<annotation><size><width>9</width><height>9</height></size></annotation>'.encode(encoding))
  with pytest.raises(ValueError, match=r'a\.xml is not a VOC file'):
    voc.read_voc(path, ())


# Pictures

def save(path, pixels, kind='PNG'):
  PIL.Image.fromarray(pixels).save(path, kind)
  return path


def test_a_flipped_bit_in_the_pixels_of_a_png_makes_it_unreadable(tmp_path):
  """Pillow alone notices few of these bits."""
  raw = bytearray(save(tmp_path / 'a.png', np.random.default_rng(0).integers(0, 255, (60, 50), np.uint8)).read_bytes())
  for place in range(60, len(raw) - 20, 97):
    raw[place] ^= 4
    (tmp_path / 'b.png').write_bytes(raw)
    with pytest.raises(decoded.Unreadable):
      images.read(tmp_path / 'b.png')
    raw[place] ^= 4
  noted = raw[:-12] + struct.pack('>I', 4) + b'teXta\0bc' + bytes(4) + raw[-12:]  # a comment with a wrong checksum
  (tmp_path / 'b.png').write_bytes(noted)
  np.testing.assert_array_equal(images.read(tmp_path / 'b.png'), images.read(tmp_path / 'a.png'))


@pytest.mark.parametrize('chunk, readable', [
  (b'AbCd?', ['before the pixels', 'behind them']), (b'IDAT' + zlib.compress(bytes(99)), ['behind them'])])
def test_bytes_that_opencv_and_pillow_read_differently_are_not_copied(chunk, readable, tmp_path):
  raw = save(tmp_path / 'a.png', GREY).read_bytes()
  packed, compared = struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk)), []
  for name, place in (('before the pixels', 33), ('behind them', len(raw) - 12)):
    (tmp_path / 'a.png').write_bytes(raw[:place] + packed + raw[place:])
    try:
      stored, _ = images.read_stored(tmp_path / 'a.png')
    except decoded.Unreadable:
      continue
    shown = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(shown, images.read(tmp_path / 'a.png'))
    compared.append(name)
  assert compared == readable


def test_formats_that_pillow_hands_to_other_programs_are_not_read(tmp_path):
  with pytest.raises(decoded.Unreadable):
    images.read(save(tmp_path / 'a.png', GREY, 'EPS'))


def test_pixels_that_are_not_finite_are_unreadable(tmp_path):
  path = save(tmp_path / 'a.png', np.full((9, 9), math.nan, np.float32), 'TIFF')
  with pytest.raises(decoded.Unreadable, match='NaN or infinite'):
    images.read(path)


@pytest.mark.parametrize('side', ['Rows', 'Columns'])
def test_a_dicom_file_without_sides_gives_its_boxes_no_frame(side, tmp_path):
  header = dicoms.make(dicoms.ramp())
  setattr(header, side, 0)
  dicoms.save(header, tmp_path / 'a.dcm')
  for read in (dicom.read_size, images.read):
    with pytest.raises(decoded.Unreadable):
      read(tmp_path / 'a.dcm')


def test_a_dicom_file_with_more_frames_than_it_says_is_unreadable(tmp_path):
  header = dicoms.make(dicoms.ramp())
  header.PixelData = header.PixelData * 3
  with pytest.raises(decoded.Unreadable, match='holds more'):
    images.read(dicoms.save(header, tmp_path / 'a.dcm'))


@pytest.mark.parametrize('name, bits', [('BitsAllocated', 32), ('BitsStored', 0), ('SamplesPerPixel', 2)])
def test_bits_that_would_crash_a_decoder_are_refused_before_it_runs(name, bits, tmp_path):
  header = dicoms.make(dicoms.ramp(low=0, high=250, kind=np.uint8), 8)
  path = dicoms.compress(header, 'jpeg baseline', tmp_path / 'a.dcm')
  setattr(header, name, bits)
  dicoms.save(header, path)
  with pytest.raises(decoded.Unreadable, match='compressed DICOM of'):
    images.read(path)


def test_a_jpeg_within_a_dicom_file_that_is_damaged_is_unreadable_or_an_image(tmp_path):
  """GDCM once ended the program at a second start of scan."""
  header = dicoms.make(dicoms.ramp(low=0, high=250, kind=np.uint8), 8)
  raw = dicoms.compress(header, 'jpeg baseline', tmp_path / 'a.dcm').read_bytes()
  scan = raw.rindex(b'\xff\xda')
  for place in range(scan + 2, len(raw) - 20, 7):
    (tmp_path / 'b.dcm').write_bytes(raw[:place] + b'\xff\xda' + raw[place + 2:])
    try:
      assert images.read(tmp_path / 'b.dcm').shape == (40, 60)
    except decoded.Unreadable as error:
      assert not plain_text.GARBLED.search(str(error))


def test_the_reason_why_a_dicom_file_is_unreadable_is_one_line(tmp_path):
  path = dicoms.save(dicoms.make(dicoms.ramp()), tmp_path / 'a.dcm')
  path.write_bytes(path.read_bytes().replace(b'1.2.840.10008.1.2.1', b'1.2.840.10008.\n\x01.1'))
  with pytest.raises(decoded.Unreadable, match=r'not supported: 1\.2\.840\.10008\.\\n') as caught:
    images.read(path)
  assert not plain_text.GARBLED.search(str(caught.value))


# Custom datasets

@pytest.mark.parametrize('mark', [';', '\t'])
def test_a_custom_table_may_have_semicolons_or_tabs(mark, tmp_path):
  root = write_clinic(tmp_path)
  table = (root / 'labels.csv').read_text()
  (root / 'labels.csv').write_text(table.replace(',', mark))
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert len(read_all(path)) == 24 and build.read_metadata(path)['findings'] == ['fracture', 'cast']


@pytest.mark.parametrize('name', ['classes.txt', 'boxes.json'])
def test_a_pipe_or_device_beside_a_custom_table_is_refused_and_named(name, tmp_path):
  root = write_clinic(tmp_path)
  (root / 'masks').mkdir()
  os.mkfifo(root / name)
  with pytest.raises(ValueError, match=f'{name} is a pipe or device'):
    build.prepare('clinic', tmp_path, tmp_path / 'data')
  (root / name).unlink()
  (root / name).symlink_to('/dev/zero')
  with pytest.raises(ValueError, match=f'{name} is a pipe or device'):
    build.prepare('clinic', tmp_path, tmp_path / 'data')


@pytest.mark.parametrize('name, old, new, words', [
  ('labels.csv', 'cast', 'ca\0st', r"control characters in the column name 'ca.*x00st'"),
  ('boxes.json', '{}', '[' * 100_000, 'boxes.json is not a COCO file')])
def test_odd_files_beside_a_custom_table_are_reported_in_one_line(name, old, new, words, tmp_path):
  root = write_clinic(tmp_path)
  (root / 'boxes.json').write_text('{}')
  edit(root / name, old, new)
  with pytest.raises(ValueError, match=words) as caught:
    build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert not plain_text.GARBLED.search(str(caught.value))


# Packed archives

@pytest.mark.parametrize('ending', ['zip', 'tar', 'tgz'])
def test_a_file_of_zeros_is_no_archive(ending, tmp_path):
  (tmp_path / f'set.{ending}').write_bytes(bytes(4096))
  with pytest.raises(unpack.Refused, match='the archive is empty'):
    unpack.unpack(tmp_path / f'set.{ending}', tmp_path / 'archives')
  assert list((tmp_path / 'archives').iterdir()) == []


def test_a_zip_that_calls_a_file_a_folder_is_refused(tmp_path):
  entry = zipfile.ZipInfo('a.txt')
  entry.external_attr = 0o040755 << 16
  with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as file:
    file.writestr(entry, b'something')
  with pytest.raises(unpack.Refused, match='is a folder but has contents'):
    unpack.unpack(tmp_path / 'set.zip', tmp_path / 'archives')


@pytest.mark.parametrize('name', ['x' * 300, 'x/' * 2000])
def test_a_name_too_long_for_the_disk_is_refused(name, tmp_path):
  path = tmp_path / 'set.zip'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr(name + 'x', b'something')
  with pytest.raises(unpack.Refused, match='a name that is too long'):
    unpack.unpack(path, tmp_path / 'archives')


@pytest.mark.parametrize('place, value, words', [
  (33, 1, 'its table lists 2 entries, its end record states 3'),  # a comment that swallows the next entry
  (45, 128, "'b' lies outside the file"), (46, 0, 'an entry without a name')])
def test_a_zip_whose_table_is_damaged_is_refused(place, value, words, tmp_path):
  path = tmp_path / 'set.zip'
  with zipfile.ZipFile(path, 'w') as file:
    for name in 'abc':
      file.writestr(name, b'something' * 9)
  raw = bytearray(path.read_bytes())
  raw[raw.index(b'PK\1\2', raw.index(b'PK\1\2') + 1) + place] = value
  path.write_bytes(raw)
  with pytest.raises(unpack.Refused, match=words) as caught:
    unpack.unpack(path, tmp_path / 'archives')
  assert str(path) in str(caught.value) and not plain_text.GARBLED.search(str(caught.value))


def test_a_disk_that_is_full_while_unpacking_is_named(tmp_path, monkeypatch):
  def fail(path, folder):
    raise OSError(errno.ENOSPC, 'No space left on device')
  monkeypatch.setattr(unpack, 'write_members', fail)
  with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as file:
    file.writestr('a.txt', b'something')
  with pytest.raises(OSError, match=f'No space left on device: .*{tmp_path.name}'):
    unpack.unpack(tmp_path / 'set.zip', tmp_path / 'archives')
  assert list((tmp_path / 'archives').iterdir()) == []


def test_damage_in_a_zip_is_reported_in_one_line(tmp_path):
  path = tmp_path / 'set.zip'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a\nb\r.txt', b'something')
  raw = bytearray(path.read_bytes())
  raw[30] = ord('x')  # its name in its own header is another than in the table
  path.write_bytes(raw)
  with pytest.raises(unpack.Refused, match='damaged') as caught:
    unpack.unpack(path, tmp_path / 'archives')
  assert not plain_text.GARBLED.search(str(caught.value))
