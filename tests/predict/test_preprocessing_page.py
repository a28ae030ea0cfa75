"""The function in docs/python-api.md with which others prepare images gives what the network gets here."""

import cv2
import numpy as np
import PIL.Image
import pytest

from mtpret_jax.augment.views import make_plain
from mtpret_jax.data.records import stretch
from mtpret_jax.predict.reading import read_image
from tests.docs.commands import BLOCK
from tests.support import pictures
from tests.support.paths import ROOT


@pytest.fixture(scope='module')
def preprocess():
  block, = (block['text'] for block in BLOCK.finditer((ROOT / 'docs' / 'python-api.md').read_text())
            if 'def preprocess' in block['text'])
  names = {}
  exec(block[:block.index('\n\n\nimage = ')], names)
  return names['preprocess']


@pytest.mark.parametrize('shape', [(300, 420), (420, 301), (70, 50), (40, 500)])
@pytest.mark.parametrize('stored, size, view', [('256', 64, 56), ('512', 256, 224), ('original', 144, 160)])
def test_the_steps_of_the_page_give_the_input_of_the_network(preprocess, shape, stored, size, view, tmp_path):
  ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) / sum(shape) * 200
  grey = (ramp + np.random.default_rng(0).integers(0, 50, shape)).astype(np.uint8)
  for name, raw in {'grey.png': pictures.encode(grey), 'turned.jpg': pictures.encode(
      PIL.Image.fromarray(np.stack([grey, 255 - grey, grey // 2], -1)), 'JPEG', exif=pictures.make_exif(6))}.items():
    (tmp_path / name).write_bytes(raw)
    ours = make_plain(stretch(read_image(tmp_path / name, stored).image, size)[None], view, 'float32')[0, ..., 0]
    theirs = preprocess(tmp_path / name, None if stored == 'original' else int(stored), size, view)
    np.testing.assert_allclose(theirs, ours, atol=2e-5, err_msg=name)


def test_more_bits_are_scaled_as_the_page_says(tmp_path):
  deep = np.random.default_rng(0).integers(100, 3000, (60, 80)).astype(np.uint16)
  cv2.imwrite(str(tmp_path / 'deep.png'), deep)
  low, high = np.percentile(deep, [0.5, 99.5])
  scaled = np.rint(np.clip((deep - low) / (high - low), 0, 1) * 255)
  np.testing.assert_array_equal(read_image(tmp_path / 'deep.png', '256').image, scaled)
