"""Uncompressed PNG, compared with OpenCV and Pillow. All other images are left to OpenCV."""

import io

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from mtpret_jax.data import plain_png
from mtpret_jax.data.records import decode_grey
from tfds_builders.common.images import encode

rng = np.random.default_rng(0)


def draw(*shape):
  return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize('shape', [(1, 1), (3, 500), (256, 200), (257, 256), (700, 512)])
def test_pixels_equal_those_of_opencv_and_pillow(shape):
  image = draw(*shape)
  encoded = encode(image, plain=True)
  np.testing.assert_array_equal(plain_png.read(encoded), image)
  np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE), image)
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), image)


def write(image, **options):
  file = io.BytesIO()
  (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, 'PNG', compress_level=0, **options)
  return file.getvalue()


def filter_rows():
  how = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
  return cv2.imencode('.png', draw(40, 30), how)[1].tobytes()


@pytest.mark.parametrize('encoded', [
  encode(draw(40, 30)), filter_rows(), write(draw(40, 30, 3)), write(draw(40, 30, 4)),
  write(Image.fromarray(draw(40, 30)).convert('LA')), write(Image.fromarray(draw(40, 30)).convert('P')),
  write(Image.fromarray(draw(40, 30)).convert('1')), write(rng.integers(0, 65536, (40, 30)).astype(np.uint16)),
  write(draw(40, 30), dpi=(72, 72)), cv2.imencode('.jpg', draw(40, 30))[1].tobytes(), b'', b'no image'])
def test_any_other_image_is_left_to_opencv(encoded):
  assert plain_png.read(encoded) is None


@pytest.mark.parametrize('at, name', [
  (12, 'type of the first chunk'), (28, 'interlaced'), (37, 'type of the second chunk'), (41, 'zlib method'),
  (42, 'zlib flags'), (43, 'type of the block'), (44, 'length of block'), (46, 'its inverse'), (48, 'filter of a row')])
def test_another_structure_is_left_to_opencv(at, name):
  encoded = bytearray(encode(draw(20, 15), plain=True))
  assert plain_png.read(bytes(encoded)) is not None
  encoded[at] ^= 2
  assert plain_png.read(bytes(encoded)) is None, name


def test_truncated_bytes_are_not_read():
  encoded = encode(draw(20, 15), plain=True)
  whole = encoded.index(b'IEND') + 4
  for length in range(whole):
    assert plain_png.read(encoded[:length]) is None
  with pytest.raises(ValueError, match='cannot be decoded.*--archives DIR --data_dir DATA_DIR --size SIZE --overwrite'):
    decode_grey(encoded[:50])


@pytest.mark.parametrize('side', ['width', 'height'])
def test_an_image_without_pixels_is_not_read(side):
  encoded = bytearray(encode(draw(1, 1), plain=True))
  at = {'width': 16, 'height': 20}[side]
  encoded[at:at + 4] = bytes(4)
  assert plain_png.read(bytes(encoded)) is None


def test_array_record_verifies_a_checksum_of_the_record(tmp_path):
  """So the checksums of the PNG need not be verified."""
  records = [encode(draw(100, 100), plain=True) for _ in range(3)]
  writer = ArrayRecordWriter(str(tmp_path / 'whole'), 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()
  stored, noticed = (tmp_path / 'whole').read_bytes(), 0
  for at in rng.integers(0, len(stored), 60):
    damaged = bytearray(stored)
    damaged[at] ^= 1 << int(rng.integers(8))
    (tmp_path / 'damaged').write_bytes(damaged)
    try:
      reader = ArrayRecordReader(str(tmp_path / 'damaged'))
      assert [reader.read([place])[0] for place in range(3)] == records  # the bit lay in padding
    except RuntimeError:
      noticed += 1
  assert noticed > 10
