"""The table "What is read" in docs/own-data.md, cell by cell: each row has files, and what they must give."""

import io
import re

import cv2
import numpy as np
import PIL.Image
import pytest

from tests.support import dicoms, pictures
from tests.support.paths import ROOT
from tfds_builders.common import decoded, images, masks

REJECTED = None
H, W = 12, 20
RAMP = np.linspace(0, 255, H * W).reshape(H, W).round()  # an image
DEEP = np.linspace(300, 4000, H * W).reshape(H, W)  # one of more than 8 bits
COLOURS = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
SHAPE = np.zeros((H, W), np.uint8)  # a mask of two classes
SHAPE[2:7, 3:15] = 1
CLASSES = SHAPE.copy()  # a mask of three classes
CLASSES[5:10, 10:18] = 2
GREEN, RED = (0, 200, 0), (90, 0, 0)
TURNED = 6  # an orientation with another shape, neither its own inverse nor a flip; test_images.py has all eight


def tiff(samples, bits=None, **options):
  return pictures.make_tiff(np.asarray(samples), bits, **options)


def png(samples, bits=None, *chunks):
  return pictures.make_png(np.asarray(samples), bits, *chunks)


def jpeg(image, **options):
  return pictures.encode(image, 'JPEG', quality=100, **options)


def jpeg2000(colours):
  """A lossless file of 16 bits, which Pillow cannot write."""
  return cv2.imencode('.jp2', colours[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()


def luma(colours):
  return np.asarray(PIL.Image.fromarray(colours).convert('L'))


def scaled(values):
  return decoded.scale(np.asarray(values, np.float64))


def scaled_luma(colours):
  return decoded.scale(colours.astype(np.float32) @ np.array(decoded.LUMA, np.float32))


def upright(values, orientation=TURNED):
  return pictures.turn_upright(values, orientation)


def exif(orientation=TURNED):
  return pictures.make_exif(orientation)


def palette(indices, *colours, kind='PNG'):
  return pictures.encode(pictures.make_palette(indices, colours), kind)


def tiff_palette(indices, *colours):
  """A TIFF whose colours have 8 bits instead of 16, as some programs write them."""
  return tiff(indices, photometric=3, t320=np.pad(colours, ((0, 256 - len(colours)), (0, 0))).T.ravel().tolist())


def with_alpha(colours, alpha):
  return np.dstack([colours, alpha])


def paint(foreground, colour=GREEN, background=(0, 0, 0)):
  return np.where(foreground[..., None] > 0, np.array(colour, np.uint8), np.array(background, np.uint8))


def dcm(stored, bits=None, kind='MONOCHROME2', **elements):
  out = io.BytesIO()
  stored = np.asarray(stored)
  plain = stored if stored.ndim == 2 else stored[..., 0]
  header = dicoms.make(np.ascontiguousarray(plain), bits or 8 * stored.itemsize, kind, **elements)
  if stored.ndim == 3:
    header.SamplesPerPixel, header.PlanarConfiguration = 3, elements.get('PlanarConfiguration', 0)
    header.PixelData = (np.moveaxis(stored, -1, 0) if header.PlanarConfiguration else stored).tobytes()
  header.save_as(out, enforce_file_format=True)
  return out.getvalue()


def dicom_palette(indices, colours):
  """PALETTE COLOR with entries of 16 bits."""
  elements = {}
  for name, column in zip(('Red', 'Green', 'Blue'), np.transpose(colours), strict=True):
    elements[f'{name}PaletteColorLookupTableDescriptor'] = [len(column), 0, 16]
    elements[f'{name}PaletteColorLookupTableData'] = (column.astype(np.uint16) * 257).tobytes()
  return dcm(indices, kind='PALETTE COLOR', **elements)


def dicom_422(ycc):
  """YBR_FULL_422, in which two neighbours share their colour."""
  pairs = ycc.reshape(H, W // 2, 2, 3)
  header = dicoms.make(ycc[..., 0].copy(), 8, 'YBR_FULL_422', SamplesPerPixel=3, PlanarConfiguration=0)
  header.PixelData = np.concatenate([pairs[..., 0], pairs[:, :, 0, 1:]], -1).tobytes()
  out = io.BytesIO()
  header.save_as(out, enforce_file_format=True)
  return out.getvalue()


def to_ycc(colours):
  return np.asarray(PIL.Image.fromarray(colours).convert('YCbCr'))


def raise_bits(stored):
  """12 bits at the top of 16, with an overlay below."""
  return stored << 4 | np.uint16(5)


def animate(kind):
  frames = [PIL.Image.fromarray(np.full((H, W), level, np.uint8)) for level in (0, 200)]
  return pictures.encode(frames[0], kind, save_all=True, append_images=frames[1:])


def make_rows():
  """{title: ([(file, expected image)], [(file, expected mask of two classes)], [(file, of three classes)])}."""
  white = SHAPE * np.uint8(255)
  words, signed = DEEP.astype(np.uint16), (DEEP - 2000).astype(np.int16)
  blocks = np.repeat(COLOURS[:, ::2], 2, axis=1)
  deep_colours = COLOURS.astype(np.uint16) * 100
  deep_large = np.tile(deep_colours, (4, 3, 1))
  grey3 = np.repeat(CLASSES[..., None], 3, axis=2)
  turned = (b'eXIf', exif().tobytes()[6:])
  small_copy = [(SHAPE[::2, ::2] * np.uint8(255), {'t254': 1})]
  smooth = np.linspace(0, 255, 96 * 64).reshape(96, 64).astype(np.uint8)
  smooth_rgb = PIL.Image.fromarray(smooth).convert('RGB')
  big_mask = np.kron(SHAPE, np.ones((16, 16), np.uint8))
  return {
    'grey, 1 bit': (
      [(png(SHAPE, 1), white), (tiff(SHAPE, 1), white),
       (pictures.encode(PIL.Image.fromarray(SHAPE > 0), 'BMP'), white)],
      [(png(SHAPE, 1), SHAPE), (tiff(SHAPE, 1), SHAPE)], [(png(SHAPE, 1), SHAPE), (tiff(SHAPE, 1), SHAPE)]),
    'grey, 2 or 4 bits': (
      [(png(CLASSES, 2), CLASSES * 85), (png(CLASSES, 4), CLASSES * 17), (tiff(CLASSES, 4), CLASSES * 17)],
      [(png(SHAPE, 2), SHAPE), (png(SHAPE * 3, 2), SHAPE), (tiff(SHAPE * 15, 4), SHAPE)],
      [(png(CLASSES, 2), CLASSES), (png(CLASSES, 4), CLASSES), (tiff(CLASSES, 4), CLASSES),
       (png(CLASSES + 1, 2), REJECTED)]),
    'grey, 8 bits': (
      [(png(RAMP.astype(np.uint8)), RAMP), (tiff(RAMP.astype(np.uint8), order='>'), RAMP)],
      [(png(SHAPE), SHAPE), (png(white), SHAPE), (png(SHAPE * 200), SHAPE), (png(CLASSES), REJECTED),
       (png(SHAPE * 2), REJECTED), (png(SHAPE * 100 + 100), REJECTED),
       (png(np.where(CLASSES == 2, 255, SHAPE).astype(np.uint8)), np.where(CLASSES == 2, 255, SHAPE))],
      [(png(CLASSES), CLASSES), (png(CLASSES * 3), REJECTED),
       (png(np.where(CLASSES == 2, 255, SHAPE).astype(np.uint8)), np.where(CLASSES == 2, 255, SHAPE))]),
    'grey, more bits or signed; TIFF: 10 to 64 bits or floating point': (
      [(png(words), scaled(words)),
       *((tiff(values, bits, order=order, deflate=deflate), scaled(values)) for order in '<>' for deflate in (0, 1)
         for values, bits in ((words, 12), (words, 14), (words, 16), (signed, 16), (DEEP.astype(np.uint32) * 10**6, 32),
                              (signed.astype(np.int32), 32), (DEEP.astype(np.float32), 32), (DEEP, 64),
                              (np.rint(RAMP - 128).astype(np.int8), 8)))],
      [(png(SHAPE.astype(np.uint16)), SHAPE), (png(SHAPE * np.uint16(65535)), SHAPE),
       (tiff(SHAPE.astype(np.int32)), SHAPE), (tiff(SHAPE.astype(np.float32)), SHAPE),
       (tiff(SHAPE.astype(np.float32) / 2), REJECTED), (tiff(-SHAPE.astype(np.int16)), REJECTED)],
      [(png(CLASSES.astype(np.uint16)), CLASSES), (tiff(CLASSES.astype(np.uint16), 12), CLASSES),
       (tiff(CLASSES.astype(np.int32), order='>', deflate=True), CLASSES), (tiff(CLASSES.astype(np.float32)), CLASSES),
       (png(CLASSES * np.uint16(300)), REJECTED)]),
    'TIFF in which 0 is white, of any depth': (
      [*((tiff(values, bits, photometric=0, order=order, planes=planes), 255 - scaled(values))
         for order in '<>' for planes in (1, 2)
         for values, bits in ((words, 12), (words, 16), (signed, 16), (DEEP.astype(np.uint32), 32), (DEEP, 64),
                              (DEEP.astype(np.float32), 32))),
       *((tiff(RAMP.astype(np.uint8), photometric=0, planes=planes, deflate=deflate), 255 - RAMP)
         for planes in (1, 2) for deflate in (0, 1)),
       (tiff(SHAPE, 1, photometric=0), 255 - white), (tiff(CLASSES, 2, photometric=0), 255 - CLASSES * 85)],
      [(tiff(1 - SHAPE, 1, photometric=0), SHAPE), (tiff(255 - white, photometric=0), SHAPE),
       (tiff(65535 - SHAPE * np.uint16(65535), photometric=0), SHAPE), (tiff(SHAPE, photometric=0), REJECTED)],
      [(tiff(CLASSES, photometric=0), REJECTED), (tiff(SHAPE, 1, photometric=0), REJECTED)]),
    'palette': (
      [(palette(CLASSES, (0, 0, 0), RED, GREEN, kind=kind), luma(paint(SHAPE, RED) * (CLASSES < 2)[..., None].astype(
        np.uint8) + paint(CLASSES == 2))) for kind in ('PNG', 'TIFF', 'BMP', 'GIF')] + [
        (tiff_palette(SHAPE, (0, 0, 0), GREEN), luma(paint(SHAPE))),
        (palette(SHAPE, (0,) * 3, (255,) * 3, kind='BMP'), white)],
      [(palette(SHAPE, (0, 0, 0), RED), SHAPE), (palette(SHAPE, (0, 0, 0), (0, 0, 0)), SHAPE),
       (palette(SHAPE, (0,) * 3, (255,) * 3, kind='BMP'), SHAPE), (tiff_palette(SHAPE, (0,) * 3, RED), SHAPE),
       (palette(SHAPE, (9, 9, 200), RED), SHAPE), (palette(SHAPE, (255,) * 3, (0,) * 3), REJECTED),
       (palette(3 - SHAPE, (1, 2, 3), (9, 8, 7), (255,) * 3, (0,) * 3), SHAPE),
       (palette(SHAPE * 2, (0, 0, 0), GREEN, RED), SHAPE), (palette(CLASSES, (0, 0, 0), RED, GREEN), REJECTED)],
      [(palette(CLASSES, (0, 0, 0), RED, GREEN), CLASSES), (palette(CLASSES, *[(0, 0, 0)] * 3), CLASSES),
       (palette(CLASSES, (0,) * 3, (255,) * 3, (128,) * 3), CLASSES),
       (palette(SHAPE, (0,) * 3, (2,) * 3), SHAPE * 2),  # an optimised grey file
       (palette(CLASSES * 2, *[RED] * 5), REJECTED)]),
    'RGB, YCbCr, CMYK': (
      [(png(COLOURS), luma(COLOURS)), (tiff(COLOURS, photometric=2), luma(COLOURS)),
       (jpeg(PIL.Image.fromarray(blocks), subsampling=0), luma(blocks)),
       (jpeg(smooth_rgb.convert('CMYK')), smooth),
       (pictures.encode(PIL.Image.fromarray(COLOURS).convert('CMYK'), 'TIFF'), luma(COLOURS))],
      [(png(paint(SHAPE)), SHAPE), (png(paint(SHAPE, RED)), SHAPE), (png(paint(SHAPE, (0, 0, 1))), SHAPE),
       (png(np.repeat(SHAPE[..., None], 3, 2)), SHAPE), (png(paint(SHAPE, RED, (255,) * 3)), REJECTED),
       (png(grey3), REJECTED)],
      [(png(grey3), CLASSES), (png(paint(SHAPE)), REJECTED)]),
    'RGB of 16 bits': (
      [(png(deep_colours), scaled_luma(deep_colours)),
       *((tiff(deep_colours, photometric=2, order=order, deflate=deflate), scaled_luma(deep_colours))
         for order in '<>' for deflate in (0, 1)),
       (jpeg2000(deep_large), scaled_luma(deep_large))],
      [(png(paint(SHAPE).astype(np.uint16)), SHAPE), (tiff(paint(SHAPE).astype(np.uint16), photometric=2), SHAPE)],
      [(png(grey3.astype(np.uint16)), CLASSES), (png(paint(SHAPE).astype(np.uint16)), REJECTED)]),
    'grey or RGB with alpha': (
      [(png(with_alpha(RAMP, RAMP[::-1]).astype(np.uint8)), RAMP), (png(with_alpha(COLOURS, white)), COLOURS[..., 0]),
       (png(with_alpha(DEEP, DEEP[::-1]).astype(np.uint16)), scaled(words)),
       (png(with_alpha(deep_colours, words)), scaled(deep_colours[..., 0])),
       (tiff(with_alpha(RAMP, RAMP[::-1]).astype(np.uint8), extra=[2]), RAMP),
       (tiff(with_alpha(deep_colours, words), photometric=2, extra=[2]), scaled(deep_colours[..., 0])),
       (pictures.encode(pictures.make_palette(SHAPE, [RED, GREEN]), transparency=b'\0\x80'),
        luma(paint(SHAPE, GREEN, RED)))],
      [(png(with_alpha(paint(SHAPE), np.full((H, W), 255, np.uint8))), SHAPE),
       (png(with_alpha(paint(SHAPE, RED, (255,) * 3), white)), SHAPE), (png(with_alpha(white, white)), SHAPE),
       (png(with_alpha(paint(SHAPE), white).astype(np.uint16) * 256), SHAPE)],
      [(png(with_alpha(CLASSES, np.full((H, W), 255, np.uint8))), CLASSES), (png(with_alpha(grey3, white)), REJECTED),
       (png(with_alpha(CLASSES, (CLASSES > 0) * np.uint8(255))), CLASSES)]),
    'a picture in the alpha channel only': (
      [(png(with_alpha(np.zeros((H, W, 3)), RAMP).astype(np.uint8)), REJECTED),
       (png(with_alpha(np.full((H, W), 9), RAMP).astype(np.uint8)), REJECTED)],
      [(png(with_alpha(np.zeros((H, W, 3), np.uint8), white)), SHAPE),
       (png(with_alpha(np.full((H, W), 255, np.uint8), white)), SHAPE)],
      [(png(with_alpha(np.zeros((H, W), np.uint8), white)), REJECTED)]),
    'EXIF orientation (JPEG, PNG, WebP), TIFF tag 274': (
      [(jpeg(smooth, exif=exif()), upright(smooth)),
       (pictures.encode(smooth, exif=exif()), upright(smooth)),
       (pictures.encode(smooth_rgb, 'WEBP', lossless=True, exif=exif()), upright(smooth)),
       (tiff(smooth, t274=TURNED), upright(smooth)), (tiff(words, t274=TURNED), scaled(upright(words))),
       (png(deep_colours, None, turned), scaled_luma(upright(deep_colours)))],
      [(png(white, None, turned), upright(SHAPE)), (tiff(white, t274=TURNED), upright(SHAPE))],
      [(png(CLASSES, None, turned), upright(CLASSES)), (tiff(CLASSES, t274=TURNED), upright(CLASSES))]),
    'several pages or frames': (
      [(tiff(white, pages=[(white, {})]), REJECTED), *((animate(kind), REJECTED) for kind in ('GIF', 'PNG', 'WEBP'))],
      [(tiff(white, pages=[(white, {})]), REJECTED), (tiff(white, pages=small_copy), SHAPE)],
      [(tiff(CLASSES, pages=[(CLASSES, {})]), REJECTED)]),
    'JPEG': (
      [(jpeg(smooth), smooth), (jpeg(smooth_rgb), smooth)],
      [(pictures.encode(big_mask * np.uint8(255), 'JPEG', quality=50), big_mask),
       (pictures.encode(paint(big_mask, (255, 0, 0)), 'JPEG', quality=95, subsampling=0), big_mask),
       (pictures.encode(big_mask * np.uint8(40), 'JPEG', quality=75), REJECTED)],
      [(jpeg(CLASSES), REJECTED)]),
    'CMYK JPEG without an Adobe marker, TIFF without tag 262, Lab, 12-bit JPEG, 16-bit floats': (
      *([(re.sub(b'\xff\xee\0\x0eAdobe', b'\xff\xee\0\x0eadobe', jpeg(PIL.Image.fromarray(COLOURS).convert('CMYK'))),
          REJECTED),
         (tiff(COLOURS, photometric=8), REJECTED), (tiff(RAMP.astype(np.float16)), REJECTED),
         (tiff(white, t262=None), REJECTED), (tiff(words, t262=None), REJECTED),
         (re.sub(b'\xff\xc0\0\x0b\x08', b'\xff\xc0\0\x0b\x0c', jpeg(smooth)), REJECTED)] for _ in range(3)),),
    'TIFF with separate planes': (
      [(tiff(COLOURS, photometric=2, planes=2), luma(COLOURS)),
       (tiff(deep_colours, photometric=2, planes=2), REJECTED)],
      [(tiff(paint(SHAPE), photometric=2, planes=2), SHAPE)], [(tiff(grey3, photometric=2, planes=2), CLASSES)]),
    'DICOM, `MONOCHROME2`': (
      [(dcm(RAMP.astype(np.uint8)), RAMP), (dcm(words, 12), scaled(words)), (dcm(signed, 13), scaled(signed)),
       (dcm(CLASSES, 2), CLASSES * 85),
       (dcm(words, 12, WindowCenter=2048, WindowWidth=4000, VOILUTFunction='LINEAR_EXACT'),
        (words / 4000 - 0.012).clip(0, 1) * 255),
       (dcm(RAMP.astype(np.uint8), RescaleSlope=-1, RescaleIntercept=255), 255 - RAMP),
       (dcm(words, 12, RescaleSlope=-1, RescaleIntercept=0), 255 - scaled(words)),
       (dcm(words, 12, RescaleSlope=0, RescaleIntercept=0), scaled(words))],
      [(dcm(SHAPE), SHAPE), (dcm(white), SHAPE), (dcm(SHAPE.astype(np.uint16), WindowCenter=9, WindowWidth=3), SHAPE)],
      [(dcm(CLASSES), CLASSES), (dcm(CLASSES.astype(np.uint16), 12), CLASSES)]),
    'DICOM, `MONOCHROME1`': (
      [(dcm(RAMP.astype(np.uint8), kind='MONOCHROME1'), 255 - RAMP),
       (dcm(words, 12, 'MONOCHROME1'), 255 - scaled(words))],
      [(dcm(white, kind='MONOCHROME1'), REJECTED)], [(dcm(CLASSES, kind='MONOCHROME1'), REJECTED)]),
    'DICOM, `HighBit` above `BitsStored` - 1': (
      [(dcm(raise_bits(words), 12, HighBit=15), scaled(words)),
       (dcm(raise_bits(words), 12, 'MONOCHROME1', HighBit=15), 255 - scaled(words)),
       (dcm(words, 12, HighBit=15), scaled(words)),  # the header is wrong: bits below the stored ones, none above
       (dcm(words, 12, HighBit=3), scaled(words))],
      [(dcm(SHAPE * np.uint16(16), 12, HighBit=15), SHAPE)], [(dcm(CLASSES * np.uint16(16), 12, HighBit=15), CLASSES)]),
    'DICOM, overlay in unused bits': (
      [(dcm(words | np.uint16(0xA000) * SHAPE, 12), scaled(words)),
       (dcm((signed & np.int16(0x1FFF)) | np.int16(0x4000) * SHAPE, 13), scaled(signed))],
      [(dcm(SHAPE | np.uint16(0xA000), 12), SHAPE)], [(dcm(CLASSES | np.uint16(0xA000), 12), CLASSES)]),
    'DICOM, `PALETTE COLOR`': (
      [(dicom_palette(SHAPE, [RED, GREEN]), luma(paint(SHAPE, GREEN, RED)))],
      [(dicom_palette(SHAPE, [RED, (0, 0, 0)]), SHAPE)],
      [(dicom_palette(CLASSES, [RED, (0, 0, 0), GREEN]), CLASSES)]),
    'DICOM, `RGB`, `YBR_FULL`, `YBR_FULL_422`, `YBR_ICT`, `YBR_RCT`': (
      [*((dcm(COLOURS, kind='RGB', PlanarConfiguration=planes), luma(COLOURS)) for planes in (0, 1)),
       *((dcm(to_ycc(COLOURS), kind='YBR_FULL', PlanarConfiguration=planes), luma(COLOURS)) for planes in (0, 1)),
       (dicom_422(to_ycc(blocks)), luma(blocks)), (dcm(deep_colours, kind='RGB'), scaled_luma(deep_colours))],
      [(dcm(paint(SHAPE), kind='RGB'), SHAPE)],
      [(dcm(grey3, kind='RGB'), CLASSES), (dcm(paint(SHAPE), kind='RGB'), REJECTED)]),
    'DICOM of several frames, or with another photometric interpretation': (
      *([(dcm(np.vstack([SHAPE, SHAPE]), Rows=H, NumberOfFrames=2), REJECTED), (dcm(COLOURS, kind='HSV'), REJECTED),
         (dcm(COLOURS, kind='MONOCHROME1'), REJECTED), (dcm(COLOURS, kind='YBR_PARTIAL_420'), REJECTED)]
        for _ in range(3)),)}


ROWS = make_rows()
COLUMNS = {'image': images.read, 'mask of two classes': lambda path: masks.read(path, 2),
           'mask of more classes': lambda path: masks.read(path, 3)}


def read_table():
  """{title: {column: cell}} of the table in the documentation."""
  section = (ROOT / 'docs/own-data.md').read_text().split('## What is read')[1].split('\n## ')[0]
  lines = [line.strip('|').split('|') for line in section.splitlines() if line.startswith('|')]
  (_, *columns), _, *rows = ([cell.strip() for cell in line] for line in lines)
  return {title: dict(zip(columns, cells, strict=True)) for title, *cells in rows}


def test_the_table_has_a_test_for_every_row():
  assert list(read_table()) == list(ROWS)


@pytest.mark.parametrize('column', COLUMNS)
@pytest.mark.parametrize('title', ROWS)
def test_a_cell_of_the_table_is_true(title, column, tmp_path):
  examples = ROWS[title][list(COLUMNS).index(column)]
  assert read_table()[title][column].startswith('rejected') == (examples[0][1] is REJECTED)
  for number, (raw, expected) in enumerate(examples):
    path = tmp_path / f'{number}.png'  # the ending does not count
    path.write_bytes(raw)
    if expected is REJECTED:
      with pytest.raises(decoded.Unreadable):
        COLUMNS[column](path)
    else:
      found = COLUMNS[column](path)
      assert found.dtype == np.uint8
      # Conversions between colour spaces are rounded, JPEG is lossy, and ties of a scale may fall to either side.
      tolerance = 0 if column != 'image' else 3 if raw[:2] == b'\xff\xd8' else 1
      np.testing.assert_allclose(found, np.asarray(expected, float), atol=tolerance, err_msg=f'example {number}')
