"""A record as the builder wrote it -> arrays of fixed shape."""

import cv2
import numpy as np

cv2.setNumThreads(0)  # records are decoded in many threads already


def decode_image(encoded, size):
  """PNG or JPEG bytes -> (size, size, 1) uint8, squashed to the square: padding would tell the datasets apart."""
  pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
  if pixels is None:
    raise ValueError('a stored image does not decode: the prepared dataset is damaged; build it again with --overwrite')
  if pixels.shape != (size, size):
    shrinking = pixels.shape[0] * pixels.shape[1] > size * size
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
  return pixels[..., None]
