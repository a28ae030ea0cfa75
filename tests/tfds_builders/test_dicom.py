"""The DICOM reader against pydicom's own VOI functions, known pixels, and damaged files."""

import io

import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom import pixels, uid

from tests.support import dicoms, pictures
from tests.support.paths import XRAYS
from tfds_builders.common import decoded, dicom, images, plain_text

REAL = XRAYS / 'dicom_cr'


def read(header, folder):
  return images.read(dicoms.save(header, folder / 'image.dcm'))


def rise(grey):
  return np.diff(grey.ravel().astype(int))


def test_12_bits_are_scaled_between_percentiles(tmp_path):
  stored = dicoms.ramp()
  np.testing.assert_array_equal(read(dicoms.make(stored), tmp_path), decoded.scale(stored))


def test_monochrome1_is_inverted(tmp_path):
  """In MONOCHROME1 small values are shown white; the same picture in MONOCHROME2 has them black."""
  stored = dicoms.ramp()
  inverted = read(dicoms.make(stored, kind='MONOCHROME1'), tmp_path)
  assert (rise(inverted) <= 0).all() and inverted[0, 0] == 255 and inverted[-1, -1] == 0
  np.testing.assert_array_equal(inverted, 255 - read(dicoms.make(stored), tmp_path))


@pytest.mark.parametrize('function', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
@pytest.mark.parametrize('several', [False, True])
def test_a_window_is_applied_as_pydicom_applies_it(function, several, tmp_path):
  """Signed 16 bits with a rescale, as CT and some CR have; the first of several windows counts."""
  centre, width = ([300, 0], [900, 5]) if several else (300, 900)
  header = dicoms.make(dicoms.ramp(low=-2000, high=2000, kind=np.int16), 16, RescaleSlope=0.5, RescaleIntercept=100,
                       WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
  values = pixels.apply_modality_lut(header.pixel_array, header)
  shown = pixels.apply_windowing(values, header)
  low, high = -(2 ** 15) * 0.5 + 100, (2 ** 15 - 1) * 0.5 + 100  # what pydicom spreads a window over
  grey = read(header, tmp_path)
  np.testing.assert_allclose(grey, (shown - low) / (high - low) * 255, atol=0.51)
  assert len(np.unique(grey)) > 100


@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
def test_a_voi_table_goes_before_a_window(kind, tmp_path):
  header = dicoms.make(dicoms.ramp(), kind=kind, WindowCenter=1, WindowWidth=2)
  table = pydicom.Dataset()
  curve = (1023 * np.linspace(0, 1, 3000) ** 2).astype(np.uint16)
  table.LUTDescriptor, table.LUTData = [len(curve), 500, 10], curve.tolist()
  table['LUTDescriptor'].VR = table['LUTData'].VR = 'US'
  header.VOILUTSequence = [table]
  expected = pixels.apply_voi(header.pixel_array, header) / 1023 * 255
  grey = read(header, tmp_path).astype(float)
  np.testing.assert_allclose(255 - grey if kind == 'MONOCHROME1' else grey, expected, atol=0.51)


@pytest.mark.parametrize('centre, width', [(60000, 10), (0, 0), (2000, 1)])
def test_a_window_that_saturates_nearly_everything_is_ignored(centre, width, tmp_path):
  stored = dicoms.ramp()
  grey = read(dicoms.make(stored, WindowCenter=centre, WindowWidth=width), tmp_path)
  np.testing.assert_array_equal(grey, decoded.scale(stored))


def test_8_bits_without_a_window_stay_as_they_are(tmp_path):
  stored = dicoms.ramp(low=30, high=90, kind=np.uint8)
  np.testing.assert_array_equal(read(dicoms.make(stored, 8), tmp_path), stored)


def test_padding_is_black_and_does_not_influence_the_scale(tmp_path):
  stored = dicoms.ramp(low=-500, high=500, kind=np.int16)
  padded = stored.copy()
  padded[:, 40:] = -32000
  grey = read(dicoms.make(padded, 16, kind='MONOCHROME1', PixelPaddingValue=-32000), tmp_path)
  assert (grey[:, 40:] == 0).all()
  np.testing.assert_array_equal(grey[:, :40], 255 - decoded.scale(stored[:, :40]))


def test_bits_above_bits_stored_are_ignored(tmp_path):
  """Old files keep an overlay there."""
  stored = dicoms.ramp()
  drawn = stored.copy()
  drawn[5:10] |= 0xF000
  np.testing.assert_array_equal(read(dicoms.make(drawn), tmp_path), read(dicoms.make(stored), tmp_path))


@pytest.mark.parametrize('room', [8, 16, 32])
@pytest.mark.parametrize('sign', 'ui')
def test_stored_bits_are_found_wherever_they_lie_in_a_word(room, sign):
  """Every BitsStored and HighBit, with other bits set around them."""
  rng, dtype = np.random.default_rng(0), np.dtype(f'{sign}{room // 8}')
  everything = 2**room - 1
  for bits in range(1, room + 1):
    low, high = (0, 2**bits - 1) if sign == 'u' else (-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    values = np.linspace(low, high, 200).round().astype(np.int64)
    for shift in range(room - bits + 1):
      field = (2**bits - 1) << shift
      words = (values << shift & field) | (rng.integers(0, 2**62, 200) & everything & ~field)
      header = pydicom.Dataset()
      header.BitsStored, header.HighBit = bits, bits - 1 + shift
      found = dicom.extract_bits(header, words.astype(f'u{room // 8}').view(dtype))
      np.testing.assert_array_equal(found, values, err_msg=f'{bits} bits, {shift} above the bottom')


@pytest.mark.parametrize('kind', ['RGB', 'YBR_FULL', 'YBR_FULL_422'])
@pytest.mark.parametrize('keep_rgb', [False, True])
def test_the_jpeg_stream_decides_about_its_colour_space_and_not_the_header(kind, keep_rgb, tmp_path):
  blocks = np.kron(np.random.default_rng(0).integers(0, 255, (5, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
  header = dicoms.make(blocks[..., 0].copy(), 8, kind, SamplesPerPixel=3, PlanarConfiguration=0)
  stream = pictures.encode(blocks, 'JPEG', quality=97, keep_rgb=keep_rgb)
  grey = read(dicoms.enclose(header, stream, uid.JPEGBaseline8Bit), tmp_path)
  expected = np.asarray(PIL.Image.fromarray(blocks).convert('L')).astype(int)
  np.testing.assert_allclose(grey, expected, atol=10)  # JPEG is lossy; the wrong colours are more than 100 off


@pytest.mark.parametrize('how', ['rle', 'jpeg lossless', 'jpeg-ls', 'jpeg 2000'])
def test_a_wrong_high_bit_of_compressed_pixels_does_no_harm(how, tmp_path):
  path = dicoms.compress(dicoms.make(dicoms.ramp()), how, tmp_path / 'image.dcm')
  header = pydicom.dcmread(path)
  header.HighBit = 15
  np.testing.assert_array_equal(read(header, tmp_path), decoded.scale(dicoms.ramp()))


@pytest.mark.parametrize('how, bits', [
  ('rle', 12), ('jpeg lossless', 12), ('jpeg-ls', 12), ('jpeg 2000', 12), ('jpeg baseline', 8), ('jpeg 2000', 8)])
def test_compressed_pixels_are_those_compressed(how, bits, tmp_path):
  stored = dicoms.ramp() if bits == 12 else dicoms.ramp(low=3, high=250, kind=np.uint8)
  plain = read(dicoms.make(stored, bits, 'MONOCHROME1'), tmp_path)
  path = dicoms.compress(dicoms.make(stored, bits, 'MONOCHROME1'), how, tmp_path / 'compressed.dcm')
  assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
  np.testing.assert_allclose(images.read(path), plain, atol=2 if how == 'jpeg baseline' else 0)


def test_colour_gives_its_luma(tmp_path):
  colours = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
  header = dicoms.make(colours[..., 0], 8, 'RGB', SamplesPerPixel=3, PlanarConfiguration=0)
  header.PixelData = colours.tobytes()
  expected = np.asarray(PIL.Image.fromarray(colours).convert('L'))
  np.testing.assert_array_equal(read(header, tmp_path), expected)


def test_a_dicom_file_is_stored_as_a_reduced_png(tmp_path):
  path = dicoms.save(dicoms.make(dicoms.ramp()), tmp_path / 'image.dcm')
  stored, shape = images.read_stored(path, 30, keep_jpeg=True)
  assert shape == (20, 30) and PIL.Image.open(io.BytesIO(stored)).format == 'PNG'


# Damaged and unsupported files

@pytest.mark.parametrize('how', ['raw', 'rle', 'jpeg lossless', 'jpeg-ls', 'jpeg 2000'])
@pytest.mark.parametrize('share', [0.3, 0.6, 0.9, 0.98])
def test_a_truncated_file_is_unreadable(how, share, tmp_path):
  noise = np.random.default_rng(0).integers(0, 4095, (60, 60)).astype(np.uint16)
  header, path = dicoms.make(noise), tmp_path / 'image.dcm'
  dicoms.save(header, path) if how == 'raw' else dicoms.compress(header, how, path)
  path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
  with pytest.raises(decoded.Unreadable):
    images.read(path)


def test_an_image_too_large_is_refused_before_its_pixels_are_decoded(tmp_path, monkeypatch):
  monkeypatch.setattr(decoded, 'MAX_PIXELS', 40 * 60 - 1)
  monkeypatch.setattr(pydicom.Dataset, 'pixel_array', property(lambda _: pytest.fail('decoded')))
  with pytest.raises(decoded.Unreadable, match='too large: 60 x 40'):
    read(dicoms.make(dicoms.ramp()), tmp_path)


@pytest.mark.parametrize('how', ['jpeg lossless', 'jpeg-ls', 'jpeg 2000'])
def test_a_stream_of_another_size_than_the_header_says_is_refused_before_it_is_decoded(how, tmp_path, monkeypatch):
  path = dicoms.compress(dicoms.make(dicoms.ramp()), how, tmp_path / 'image.dcm')
  header = pydicom.dcmread(path)
  header.Rows, header.Columns = 5, 7
  monkeypatch.setattr(pydicom.Dataset, 'pixel_array', property(lambda _: pytest.fail('decoded')))
  with pytest.raises(decoded.Unreadable, match='7 x 5 in the header, 60 x 40'):
    read(header, tmp_path)


@pytest.mark.parametrize('elements, reason', [
  (dict(NumberOfFrames=2), 'several frames: 2'), (dict(PhotometricInterpretation='PALETTE COLOR'), 'PALETTE COLOR'),
  (dict(Rows=400), 'unreadable DICOM'), (dict(BitsAllocated=13), 'unreadable DICOM')])
def test_unsupported_dicom_files_are_unreadable(elements, reason, tmp_path):
  with pytest.raises(decoded.Unreadable, match=reason):
    read(dicoms.make(dicoms.ramp(), **elements), tmp_path)


@pytest.mark.parametrize('reason, told', [
  ('decoder: ' + 'no ' * 80, 'RuntimeError decoder: ' + 'no ' * 79 + 'no'), ('word ' * 90, 'word word ...'),
  ('x' * 400, 'xxx...')])
def test_a_long_reason_ends_with_a_whole_word(reason, told, tmp_path, monkeypatch):
  header = dicoms.make(dicoms.ramp())
  def fail(_):
    raise RuntimeError(reason)
  monkeypatch.setattr(pydicom.Dataset, 'pixel_array', property(fail))
  with pytest.raises(decoded.Unreadable) as caught:
    read(header, tmp_path)
  assert str(caught.value).endswith(told) and len(str(caught.value)) <= plain_text.MAX_REASON


def test_a_file_without_pixels_is_unreadable(tmp_path):
  header = dicoms.make(dicoms.ramp())
  del header.PixelData
  with pytest.raises(decoded.Unreadable):
    read(header, tmp_path)


def test_a_deflated_file_is_refused_and_not_inflated(tmp_path):
  header = dicoms.make(dicoms.ramp())
  header.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
  with pytest.raises(decoded.Unreadable, match='Deflated'):
    read(header, tmp_path)


# Real radiographs

@pytest.mark.skipif(not REAL.exists(), reason='the real files lie beside the checkout on some machines only')
def test_real_files_decode_equally_with_every_compression():
  grey = {path.stem: images.read(path) for path in REAL.glob('*.dcm') if path.stem != 'RG3_JPLY'}
  assert {name: image.shape for name, image in grey.items() if name < 'RG3'} == {
    'RG1_J2KI': (1955, 1841), 'RG2_J2KI': (2140, 1760)}
  for name in ('RG3_JPLL', 'RG3_JLSL'):
    np.testing.assert_array_equal(grey[name], grey['RG3_RLE'])
  assert np.abs(grey['RG3_J2KI'].astype(int) - grey['RG3_RLE']).mean() < 1  # lossy
  assert grey['RG1_J2KI'][900:1100, 900:1000].mean() > grey['RG1_J2KI'][300:500, 1200:1400].mean()  # spine and lung
  with pytest.raises(decoded.Unreadable):  # 12 bits in lossy JPEG, which no decoder here reads
    images.read(REAL / 'RG3_JPLY.dcm')
