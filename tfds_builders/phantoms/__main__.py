"""python -m tfds_builders.phantoms --archives=DIR writes miniature archives; --sheet shows them, --bench times them."""

import argparse
import time

import cv2
import numpy as np
from PIL import Image

from tfds_builders.phantoms import ARCHIVES, render, write


def main():
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.phantoms', description=__doc__)
  parser.add_argument('--archives', help='folder to write the archives into')
  parser.add_argument('--names', nargs='+', default=list(ARCHIVES), choices=list(ARCHIVES), metavar='NAME',
                      help=f'which archives (default: all): {", ".join(ARCHIVES)}')
  parser.add_argument('--images', type=int, default=200, help='images of each archive')
  parser.add_argument('--size', type=int, default=256, help='pixels on the longer side')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--sheet', help='write a labelled contact sheet to this PNG')
  parser.add_argument('--bench', action='store_true', help='print images/s of each anatomy on one core')
  asked = parser.parse_args()
  if not (asked.archives or asked.sheet or asked.bench):
    parser.error('nothing to do: give --archives, --sheet or --bench')
  names = asked.names
  if asked.bench:
    bench(names, asked.size)
  if asked.sheet:
    Image.fromarray(sheet(names, asked.size, asked.seed)).save(asked.sheet)
  for name in names if asked.archives else ():
    print(write(name, asked.archives, asked.images, asked.size, asked.seed))


def bench(names, size, images=20):
  """The best of five runs, in processor time: other work on the machine only ever makes it slower."""
  cv2.setNumThreads(1)
  for name in names:
    best = 0.0
    for seed in range(5):
      start = time.process_time()
      for _ in render(name, images, size, seed):
        pass
      best = max(best, images / (time.process_time() - start))
    print(f'{name}: {best:.0f} images/s at {size} pixels on one core')


def sheet(names, size, seed, columns=7, rows=2):
  """Pictures of each archive with their labels below; boxes are drawn in."""
  lines = []
  for name in names:
    tiles = [tile(radiograph, size) for _, radiograph in render(name, columns * rows, size, seed)]
    lines += [np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)]
  return np.vstack(lines)


def tile(radiograph, size):
  grey = radiograph.image
  canvas = np.zeros((size + 16, size, 3), np.uint8)
  fit = min(size / max(grey.shape), 1)
  picture = cv2.resize(grey, None, fx=fit, fy=fit, interpolation=cv2.INTER_AREA)
  canvas[:picture.shape[0], :picture.shape[1]] = picture[..., None]
  for _, x, y, w, h in radiograph.boxes:
    corners = [round(v * fit) for v in (x, y, x + w, y + h)]
    cv2.rectangle(canvas, tuple(corners[:2]), tuple(corners[2:]), (255, 90, 60), 1)
  words = ', '.join(sorted(radiograph.findings)) or radiograph.part.lower()
  words += f' {radiograph.value:.0f} months' if radiograph.value is not None else ''
  words += f' grade {radiograph.grade}' if radiograph.grade is not None else ''
  cv2.putText(canvas, words, (3, size + 12), cv2.FONT_HERSHEY_SIMPLEX, .36, (255, 230, 120), 1, cv2.LINE_AA)
  return canvas


if __name__ == '__main__':
  main()
