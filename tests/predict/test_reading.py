"""What predict reads is what a builder stores, pixel by pixel: every format, array and data set."""

import copy

import cv2
import numpy as np
import PIL.Image
import pydicom
import pytest

from mtpret_jax.data.records import decode_grey
from mtpret_jax.data.sources import open_source
from mtpret_jax.predict import reading
from tests.support import dicoms, pictures
from tfds_builders import build
from tfds_builders.common import dataset, images, records

H, W = 300, 420  # larger than 256, smaller than 512
GREY = (np.add.outer(np.arange(H), np.arange(W)) / 3 + np.random.default_rng(0).integers(0, 9, (H, W))).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 14 + 300
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2], -1)
FILES = {
  'grey.png': pictures.encode(GREY),
  'small.png': pictures.encode(GREY[::4, ::4]),
  'deep.png': cv2.imencode('.png', DEEP)[1].tobytes(),
  'colours.png': pictures.encode(COLOURS),
  'rgba.png': pictures.encode(np.dstack([COLOURS, GREY])),
  'palette.png': pictures.encode(PIL.Image.fromarray(COLOURS).quantize(64)),
  'grey.jpg': pictures.encode(GREY, 'JPEG', quality=90),
  'colours.jpg': pictures.encode(COLOURS, 'JPEG', quality=90),
  'turned.jpg': pictures.encode(GREY, 'JPEG', quality=90, exif=pictures.make_exif(6)),
  'grey.tif': pictures.make_tiff(GREY),
  'white.tif': pictures.make_tiff(DEEP, photometric=0, deflate=True),
  'turned.tif': pictures.make_tiff(DEEP, t274=8),
  'float.tif': pictures.make_tiff(DEEP.astype(np.float32) / 7),
  'colours.bmp': pictures.encode(COLOURS, 'BMP')}
DICOMS = {
  'mono2.dcm': dicoms.make(DEEP), 'mono1.dcm': dicoms.make(DEEP, kind='MONOCHROME1'),
  'window.dcm': dicoms.make(DEEP, 12, WindowCenter=1500, WindowWidth=900),
  'signed.dcm': dicoms.make(DEEP.astype(np.int16) - 2000, 16, RescaleSlope=2, RescaleIntercept=-5),
  'padded.dcm': dicoms.make(np.where(GREY > 20, DEEP, 0).astype(np.uint16), 12, PixelPaddingValue=0),
  'eight.dcm': dicoms.make(GREY, 8)}
ENCODINGS = ('rle', 'jpeg 2000', 'jpeg lossless', 'jpeg-ls')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """{name: path} of a file of each format."""
  folder = tmp_path_factory.mktemp('clinic') / 'clinic' / 'images'
  folder.mkdir(parents=True)
  for name, raw in FILES.items():
    (folder / name).write_bytes(raw)
  for name, header in DICOMS.items():
    dicoms.save(header, folder / name)
  for how in ENCODINGS:
    dicoms.compress(dicoms.make(DEEP), how, folder / f'{how.replace(" ", "-")}.dcm')
  return {path.name: path for path in sorted(folder.iterdir())}


def make_record(path, size):
  return records.make_record(dataset.Entry('i', 'p', path), 'clinic', size, False, False)


@pytest.mark.parametrize('size', ['256', '512', 'original'])
def test_pixels_are_those_of_the_record(files, size):
  assert len(files) == len(FILES) + len(DICOMS) + len(ENCODINGS)
  for name, path in files.items():
    found = reading.read_image(path, size)
    np.testing.assert_array_equal(found.image, decode_grey(make_record(path, size)['image']), err_msg=name)
    assert (found.height, found.width) == images.read(path).shape and found.name == str(path), name
    assert (found.height > found.width) == name.startswith('turned'), name


def test_a_built_dataset_has_these_pixels(files, tmp_path):
  folder = next(iter(files.values())).parents[1]
  (folder / 'labels.csv').write_text('image,patient,ill\n' + ''.join(
    f'{name},p{place},{place % 2}\n' for place, name in enumerate(files)))
  build.prepare('clinic', folder.parent, tmp_path, size='256')
  stored = {}
  for split in ('train', 'validation', 'test'):
    source = open_source('clinic', tmp_path, '256', split)
    stored |= {record['image_id'].decode(): record['image'] for record in map(source.records.__getitem__,
                                                                             range(len(source)))}
  assert len(stored) == len(files)
  for name, path in files.items():
    encoded = stored.get(path.stem) or stored[name]
    np.testing.assert_array_equal(reading.read_image(str(path), '256').image, decode_grey(encoded), err_msg=name)


def test_a_data_set_is_read_as_its_file_and_not_changed(files):
  for name, path in files.items():
    if name.endswith('.dcm'):
      header = pydicom.dcmread(path)
      before, pixels = copy.deepcopy(header), header.pixel_array.copy()
      found = reading.read_image(header, '256')
      np.testing.assert_array_equal(found.image, reading.read_image(path, '256').image, err_msg=name)
      assert found.name == header.SOPInstanceUID and header == before, name
      np.testing.assert_array_equal(header.pixel_array, pixels, err_msg=name)


@pytest.mark.parametrize('array, name', [
  (GREY, 'grey.png'), (GREY[..., None], 'grey.png'), (GREY / np.float32(255), 'grey.png'), (GREY / 255, 'grey.png'),
  (DEEP, 'deep.png'), (DEEP.astype(np.int16), 'deep.png'), (COLOURS, 'colours.png'),
  (np.dstack([COLOURS, GREY]), 'rgba.png'), (COLOURS / 255, 'colours.png'),
  (np.repeat(GREY[..., None], 3, 2), 'grey.png')])
def test_an_array_is_read_as_the_file_with_its_pixels(files, array, name):
  found = reading.read_image(array, '256')
  np.testing.assert_array_equal(found.image, reading.read_image(files[name], '256').image)
  assert (found.height, found.width, found.warning) == (H, W, '')


@pytest.mark.parametrize('source, reason', [
  (GREY.astype(float), 'floats must be from 0 .* from 0 to 2.*: divide by'), (GREY / 255 - 0.1, 'from -0.1 to'),
  (np.full((9, 9), np.nan), 'NaN'), (GREY.astype(int), 'array of int64 is no image: give uint8, uint16 or int16'),
  (GREY > 9, 'array of bool'), (GREY[None], r'\(1, 300, 420\).*axes must be \(height, width\)'),
  (COLOURS.transpose(2, 0, 1), 'axes must be'), (GREY[0], 'axes must be'), (np.zeros((0, 9), np.uint8), 'no pixels'),
  (np.zeros((9, 9), complex), 'array of complex128'), ('absent.png', 'No such file'), (b'png', 'type bytes cannot'),
  (None, 'of type NoneType cannot be read: give a path'),
  (PIL.Image.fromarray(GREY), 'of type Image cannot be read: give a path'),
  (pydicom.Dataset(), 'TransferSyntaxUID')])
def test_what_is_no_image_is_refused_in_a_line(source, reason):
  with pytest.raises(reading.Unreadable, match=reason) as refused:
    reading.read_image(source, '256')
  assert '\n' not in str(refused.value)


@pytest.mark.parametrize('array, doubt', [
  (np.full((40, 40), 7, np.uint8), 'same value'), ((GREY > 99).astype(np.uint8), 'all values are 0 and 1'),
  (GREY.astype(np.uint16), 'no value is above 255')])
def test_what_can_hardly_be_a_radiograph_is_doubted(array, doubt):
  assert doubt in reading.read_image(array, '256').warning


def test_threads_keep_the_order_and_pass_on_what_is_unreadable(files):
  paths = [*files.values()] * 3 + ['absent.png', *files.values()]
  found = list(reading.read_images(paths, '256'))
  assert isinstance(found[3 * len(files)], reading.Unreadable)
  assert [one.name for one in found if isinstance(one, reading.Reading)] == [str(path) for path in paths
                                                                            if path != 'absent.png']
