"""What an archive in miniature is, and how its files are written."""

import csv
import dataclasses
from collections.abc import Callable

from PIL import Image

from tfds_builders.phantoms.physics import Vendor


@dataclasses.dataclass(frozen=True)
class Archive:
  """plan(seed) yields Shots, patient by patient, endlessly.  take(seed, name, shot, size, vendor) makes the Radiograph.
  save(root, shot, radiograph) writes its files.  index(root, pairs) writes the tables and the archive's oddities, given
  (shot, Radiograph without pixels) of all images in order.
  """

  vendor: Vendor
  plan: Callable
  take: Callable
  save: Callable
  index: Callable


def save_png(root, shot, radiograph, mode='L'):
  path = root / shot.path
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(radiograph.image).convert(mode).save(path, compress_level=1)


def write_rows(path, header, rows):
  """A CSV table as the archives have them: the header verbatim, nothing quoted that need not be."""
  with open(path, 'w', newline='') as out:
    if header:
      out.write(header + '\n')
    csv.writer(out, lineterminator='\n').writerows(rows)


def leave_fork(path):
  """The resource fork that macOS leaves beside a file it has packed: it bears the image's name and is none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.with_name('._' + path.name).write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ' + bytes(50))
