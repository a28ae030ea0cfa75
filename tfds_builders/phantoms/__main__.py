"""Writes miniature archives of phantom radiographs, draws a contact sheet of them, or times the rendering.

    python -m tfds_builders.phantoms --archives DIR
"""

import argparse
import sys
import time
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from tfds_builders.common import exits, outputs
from tfds_builders.phantoms import ARCHIVES, Radiograph, render, write


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns an exit code (`exits`)."""
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.phantoms', description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--archives', help='folder to write the archives into')
  parser.add_argument('--names', nargs='+', default=list(ARCHIVES), choices=list(ARCHIVES), metavar='NAME',
                      help=f'archives (default: all): {", ".join(ARCHIVES)}')
  parser.add_argument('--images', type=int, default=200, help='images per archive (default: %(default)s)')
  parser.add_argument('--size', type=int, default=256, help='longer side in pixels (default: %(default)s)')
  parser.add_argument('--seed', type=int, default=0, help='seed of all random numbers (default: %(default)s)')
  parser.add_argument('--variation', type=float, default=0.0,
                      help='differences between exposures, 0 to 1 (default: %(default)s)')
  parser.add_argument('--sheet', help='PNG file for a labelled contact sheet')
  parser.add_argument('--bench', action='store_true', help='print images per second on one core')
  flags = parser.parse_args(arguments)
  if not (flags.archives or flags.sheet or flags.bench):
    parser.error('give at least one of --archives, --sheet and --bench')
  if flags.sheet:
    outputs.check_picture(flags.sheet, '--sheet')
  names = flags.names
  if flags.bench:
    bench(names, flags.size, flags.variation)
  if flags.sheet:
    Image.fromarray(sheet(names, flags.size, flags.seed, flags.variation)).save(flags.sheet)
  for name in names if flags.archives else ():
    print(write(name, flags.archives, flags.images, flags.size, flags.seed, variation=flags.variation))
  return 0


def bench(names: Sequence[str], size: int, variation: float = 0.0, images: int = 20) -> None:
  """Prints the best of five runs in CPU time: other load on the machine can only slow a run down."""
  cv2.setNumThreads(1)
  for name in names:
    best = 0.0
    for seed in range(5):
      start = time.process_time()
      for _ in render(name, images, size, seed, variation):
        pass
      best = max(best, images / (time.process_time() - start))
    print(f'{name}: {best:.0f} images/s at {size} pixels on one core')


def sheet(
    names: Sequence[str], size: int, seed: int, variation: float = 0.0, columns: int = 7, rows: int = 2) -> np.ndarray:
  """(H, W, 3) uint8: images of each archive with boxes drawn in and labels below."""
  lines = []
  for name in names:
    tiles = [tile(radiograph, size) for _, radiograph in render(name, columns * rows, size, seed, variation)]
    lines += [np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)]
  return np.vstack(lines)


def tile(radiograph: Radiograph, size: int) -> np.ndarray:
  """One image with boxes and its labels below."""
  grey = radiograph.image
  canvas = np.zeros((size + 16, size, 3), np.uint8)
  zoom = min(size / max(grey.shape), 1)
  picture = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
  canvas[:picture.shape[0], :picture.shape[1]] = picture[..., None]
  for _, x, y, w, h in radiograph.boxes:
    corners = [round(v * zoom) for v in (x, y, x + w, y + h)]
    cv2.rectangle(canvas, tuple(corners[:2]), tuple(corners[2:]), (255, 90, 60), 1)
  words = ', '.join(sorted(radiograph.findings)) or radiograph.part.lower()
  words += f' {radiograph.value:.0f} months' if radiograph.value is not None else ''
  words += f' grade {radiograph.grade}' if radiograph.grade is not None else ''
  cv2.putText(canvas, words, (3, size + 12), cv2.FONT_HERSHEY_SIMPLEX, .36, (255, 230, 120), 1, cv2.LINE_AA)
  return canvas


if __name__ == '__main__':
  sys.exit(main())
