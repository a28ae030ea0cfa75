import io

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from tests.support import pictures
from tfds_builders.common import decoded, image_files, images

RNG = np.random.default_rng(0)
GREY = (np.add.outer(np.arange(90), np.arange(120)) + RNG.integers(0, 9, (90, 120))).astype(np.uint8)


def save(folder, image, kind='PNG', **options):
  path = folder / f'image.{kind.lower()}'
  image = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
  image.save(path, kind, **options)
  return path


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP'])
@pytest.mark.parametrize('share', [0.02, 0.5, 0.98])
def test_a_truncated_file_is_unreadable(tmp_path, kind, share):
  path = save(tmp_path, GREY, kind)
  path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
  with pytest.raises(decoded.Unreadable):
    images.read(path)


def test_a_file_that_is_not_an_image_is_unreadable(tmp_path):
  (tmp_path / 'x.png').write_bytes(b'<html>please log in</html>')
  for path in (tmp_path / 'x.png', tmp_path / 'absent.png'):
    with pytest.raises(decoded.Unreadable):
      images.read(path)


def test_an_image_too_large_is_refused_by_its_header(tmp_path, monkeypatch):
  monkeypatch.setattr(decoded, 'MAX_PIXELS', 90 * 120 - 1)
  with pytest.raises(decoded.Unreadable, match='too large: 120 x 90'):
    images.read(save(tmp_path, GREY))


def test_rgba_gives_its_first_channel(tmp_path):
  """519 files of NIH's archive are RGBA."""
  rgba = np.stack([GREY, 255 - GREY, GREY // 2, GREY // 3], -1)
  np.testing.assert_array_equal(images.read(save(tmp_path, rgba)), GREY)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_is_read_upright_with_its_size(orientation, tmp_path):
  """Compared with a table of row and column flips, and with Pillow."""
  exif, tag = pictures.make_exif(orientation), {'t274': orientation}
  chunk = (b'eXIf', exif.tobytes()[6:])
  deep, colour = GREY.astype(np.uint16) * 100, np.repeat(GREY[..., None], 3, 2)
  upright = pictures.turn_upright(GREY, orientation)
  files = {
    'jpeg': (pictures.encode(GREY, 'JPEG', quality=100, exif=exif), upright),
    'png': (pictures.encode(GREY, exif=exif), upright),
    'png, eXIf after pixels': (pictures.make_png(GREY, None, chunk), upright),
    'png of 16 bits': (pictures.make_png(deep, None, chunk), decoded.scale(pictures.turn_upright(deep, orientation))),
    'rgb of 16 bits': (pictures.make_png(colour * np.uint16(257), None, chunk), decoded.scale(upright)),
    'webp': (pictures.encode(colour, 'WEBP', lossless=True, exif=exif), upright),
    **{f'tiff {deflate} {order}': (pictures.make_tiff(GREY, order=order, deflate=deflate, **tag), upright)
       for deflate in (False, True) for order in '<>'},
    'tiff of 16 bits': (pictures.make_tiff(deep, **tag), decoded.scale(pictures.turn_upright(deep, orientation)))}
  for name, (raw, expected) in files.items():
    path = tmp_path / name
    path.write_bytes(raw)
    found = images.read(path)
    assert image_files.read_size(path) == found.shape == expected.shape, name
    np.testing.assert_allclose(found, expected.astype(int), atol=2 if name == 'jpeg' else 1, err_msg=name)
  shown = PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / 'jpeg'))
  np.testing.assert_array_equal(images.read(tmp_path / 'jpeg'), np.asarray(shown))


def test_a_turned_image_is_stored_upright_without_its_orientation(tmp_path):
  large = np.tile(GREY, (3, 3))
  for kind in ('PNG', 'JPEG'):
    stored, shape = images.read_stored(save(tmp_path, large, kind, exif=pictures.make_exif(6)), keep_jpeg=True)
    image = PIL.Image.open(io.BytesIO(stored))
    assert shape == image.size[::-1] == (360, 270) and image.format == 'PNG' and not image.getexif()


def test_damaged_exif_is_ignored(tmp_path):
  path = tmp_path / 'image.jpeg'
  path.write_bytes(pictures.encode(GREY, 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\xffnot a directory'))
  assert images.read(path).shape == image_files.read_size(path) == GREY.shape


def test_the_page_that_is_no_copy_is_read_wherever_it_lies(tmp_path):
  small, deep = GREY[::3, ::3], GREY.astype(np.uint16) * 100
  path = tmp_path / 'image.tiff'
  for full, expected in ((GREY, GREY), (deep, decoded.scale(deep))):
    path.write_bytes(pictures.make_tiff(small.astype(full.dtype), pages=[(full, {})], t254=1))
    np.testing.assert_array_equal(images.read(path), expected)
  path.write_bytes(pictures.make_tiff(GREY, pages=[(GREY, {}), (small, {'t254': 1})]))
  with pytest.raises(decoded.Unreadable, match='several pages: 2'):
    images.read(path)


def test_a_large_tiff_is_refused_by_its_header_whoever_decodes_it(tmp_path, monkeypatch):
  monkeypatch.setattr(decoded, 'MAX_PIXELS', 90 * 120 - 1)
  for dtype in (np.uint8, np.uint16):
    (tmp_path / 'image.tiff').write_bytes(pictures.make_tiff(GREY.astype(dtype)))
    with pytest.raises(decoded.Unreadable, match='too large: 120 x 90'):
      images.read(tmp_path / 'image.tiff')


@pytest.mark.parametrize('deflate', [False, True])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_a_truncated_tiff_of_16_bits_is_unreadable(deflate, share, tmp_path):
  """Its directory comes after its pixels, so a file with a whole directory loses pixels."""
  raw = pictures.make_tiff(np.random.default_rng(0).integers(0, 65535, (90, 120), np.uint16), deflate=deflate)
  (tmp_path / 'image.tiff').write_bytes(raw[:int(len(raw) * share)])
  with pytest.raises(decoded.Unreadable):
    images.read(tmp_path / 'image.tiff')


@pytest.mark.parametrize('kind', ['PNG', 'BMP'])
@pytest.mark.parametrize('mode', ['L', 'RGB', 'P'])
def test_grey_stored_as_colour_keeps_its_grey(tmp_path, mode, kind):
  np.testing.assert_array_equal(images.read(save(tmp_path, PIL.Image.fromarray(GREY).convert(mode), kind)), GREY)


def test_16_bits_are_scaled_between_percentiles_not_truncated(tmp_path):
  deep = np.linspace(1000, 9000, 90 * 120).reshape(90, 120).astype(np.uint16)
  grey = images.read(save(tmp_path, deep))
  assert grey.dtype == np.uint8 and grey.min() == 0 and grey.max() == 255
  assert (np.diff(grey.ravel().astype(int)) >= 0).all()


def test_a_large_one_channel_png_keeps_its_bytes(tmp_path):
  large = np.tile(GREY, (3, 3))
  path = save(tmp_path, large)
  assert images.read_stored(path, 512) == (path.read_bytes(), large.shape)


def test_a_small_image_is_stored_uncompressed_with_equal_pixels(tmp_path):
  stored, shape = images.read_stored(save(tmp_path, GREY), 256)
  assert shape == GREY.shape and len(stored) > GREY.size
  np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(stored))), GREY)


@pytest.mark.parametrize('kept', [False, True])
def test_a_grey_jpeg_reads_back_equally_as_jpeg_and_as_png(tmp_path, kept):
  path = save(tmp_path, GREY, 'JPEG')
  stored, _ = images.read_stored(path, keep_jpeg=kept)
  assert stored.startswith(b'\xff\xd8' if kept else b'\x89PNG')
  back = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)  # as TFDS does
  assert back.ndim == 2
  np.testing.assert_array_equal(back, images.read(path))


def test_the_longer_side_is_reduced_and_the_aspect_kept(tmp_path):
  stored, shape = images.read_stored(save(tmp_path, GREY), 60)
  assert shape == (45, 60) == PIL.Image.open(io.BytesIO(stored)).size[::-1]


def test_a_mask_is_fitted_to_the_image_without_new_classes_or_shift():
  mask = np.zeros((40, 60), np.uint8)
  mask[10:20, 30:50] = 2
  small = images.fit_mask(mask, (20, 30))
  expected = np.zeros((20, 30), np.uint8)
  expected[5:10, 15:25] = 2
  np.testing.assert_array_equal(small, expected)


@pytest.mark.parametrize('mask, shape, fits', [
  ((96, 80), (96, 80), True), ((48, 40), (96, 80), True), ((300, 250), (96, 80), True), ((95, 80), (96, 80), True),
  ((7, 10), (20, 30), True), ((3000, 10), (256, 1), True), ((2500, 2048), (256, 210), True),
  ((80, 96), (96, 80), False), ((96, 96), (96, 80), False), ((96, 90), (96, 80), False), ((30, 20), (20, 30), False)])
def test_a_mask_of_another_aspect_than_its_image_is_rejected(mask, shape, fits):
  mask = np.zeros(mask, np.uint8)
  if fits:
    assert images.fit_mask(mask, shape, 0.02).shape == shape
  else:
    with pytest.raises(decoded.Unreadable, match='mask of another shape than its image: .* pixels, the image has'):
      images.fit_mask(mask, shape, 0.02)


def test_a_png_with_a_wrong_checksum_is_called_damaged():
  raw = bytearray(cv2.imencode('.png', np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes())
  raw[raw.index(b'IDAT') + 8] ^= 1
  with pytest.raises(decoded.Unreadable, match='the PNG is damaged or incomplete .checksum of IDAT.$'):
    image_files.check_png(bytes(raw))
