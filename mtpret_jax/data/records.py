"""Decodes the images and masks of prepared records. NumPy only.

Letters: S the side of the square, px.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from mtpret_jax.data import plain_png
from tfds_builders.common import build_command

cv2.setNumThreads(0)  # records are decoded in many threads already


def decode_image(encoded: bytes, size: int) -> np.ndarray:
  """PNG or JPEG bytes -> (S, S, 1) uint8, see `stretch`."""
  return stretch(decode_grey(encoded), size)


def stretch(pixels: np.ndarray, size: int) -> np.ndarray:
  """(H, W) uint8 -> (S, S, 1) uint8. The image is stretched to a square, because padding would reveal the dataset to
  the network."""
  if pixels.shape != (size, size):
    shrinking = pixels.shape[0] * pixels.shape[1] > size * size
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
  return pixels[..., None]


def decode_mask(encoded: bytes, size: int) -> np.ndarray:
  """PNG bytes -> (S, S) uint8, 255 where not annotated. Stretched as by `decode_image`, but by nearest neighbour."""
  pixels = decode_grey(encoded)
  if pixels.shape != (size, size):
    # NEAREST_EXACT samples at pixel centres, as INTER_AREA and INTER_LINEAR do; INTER_NEAREST is off by half a pixel.
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
  return pixels


def decode_grey(encoded: bytes) -> np.ndarray:
  """PNG or JPEG bytes -> (H, W) uint8. Raises ValueError for bytes that do not decode."""
  pixels = plain_png.read(encoded)
  if pixels is None:
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
  if pixels is None:
    command = build_command.show('DATA_DIR/NAME/SIZE/VERSION', overwrite=True)
    raise ValueError(f'a stored image cannot be decoded, so the prepared dataset is damaged: prepare it again with '
                     f'{command}')
  return pixels


def describe_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """Who and what the image shows: {image_id, patient, study, sex, view, part} as text, '' where unknown, and `age` in
  years, NaN where unknown."""
  words: dict[str, Any] = {field: read_text(record[field])
                           for field in ('image_id', 'patient', 'study', 'sex', 'view', 'part')}
  return words | {'age': float(record['age'])}


def name_record(record: Mapping[str, Any]) -> str:
  """'dataset image_id', for messages."""
  return f'{read_text(record.get("source", ""))} {read_text(record.get("image_id", ""))}'.strip() or 'a record'


def read_text(text: bytes | str) -> str:
  return text.decode() if isinstance(text, bytes) else str(text)
