import io

import cv2
import numpy as np
import PIL.Image
import pytest

from tfds_builders.common import images

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
  with pytest.raises(images.Unreadable):
    images.read(path)


def test_a_file_that_is_not_an_image_is_unreadable(tmp_path):
  (tmp_path / 'x.png').write_bytes(b'<html>please log in</html>')
  for path in (tmp_path / 'x.png', tmp_path / 'absent.png'):
    with pytest.raises(images.Unreadable):
      images.read(path)


def test_an_image_too_large_is_refused_by_its_header(tmp_path, monkeypatch):
  monkeypatch.setattr(images, 'MAX_PIXELS', 90 * 120 - 1)
  with pytest.raises(images.Unreadable, match='too large: 120 x 90'):
    images.read(save(tmp_path, GREY))


def test_rgba_gives_its_first_channel(tmp_path):
  rgba = np.stack([GREY, 255 - GREY, GREY // 2, GREY // 3], -1)
  np.testing.assert_array_equal(images.read(save(tmp_path, rgba)), GREY)


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
