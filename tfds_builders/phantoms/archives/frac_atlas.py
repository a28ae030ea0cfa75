"""FracAtlas in miniature, without hips. All views are frontal. Of the annotations, only COCO and YOLO are written."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from tfds_builders.phantoms.exposure import Exposure, Radiograph
from tfds_builders.phantoms.layout import Archive, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_limb

HEADER = ('image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique')
COLUMNS = ('hand', 'leg', 'hip', 'shoulder')
# {part of the phantoms: parts of the archive}. Legs and hands are the most frequent, as in the archive.
PARTS = {'LEG': ('leg',), 'HAND': ('hand',), 'ANKLE': ('leg',), 'WRIST': ('hand',), 'HUMERUS': ('hand', 'shoulder'),
         'FINGER': ('hand',), 'SHOULDER': ('shoulder',), 'FOREARM': ('hand',)}
ORDER = ('LEG', 'HAND', 'ANKLE', 'WRIST', 'LEG', 'HUMERUS', 'ANKLE', 'FINGER', 'LEG', 'SHOULDER', 'FOREARM')
# Quirks of the archive, by the number of the patient. The last two become rejects. They come so late that an archive of
# any size stays within the share of rejects that a build tolerates.
TURNED = 4        # the outline was drawn on the image as its EXIF orientation shows it
CONTRADICTED = 22  # in the folder Fractured, but not fractured according to the table
TRUNCATED = 41    # the file ends early
ORIENTATION = 8   # EXIF: the displayed image is the stored one, turned by 90 degrees to the left


def plan(seed: int) -> Iterator[Exposure]:
  """Every third image shows a fracture; a few images with and without one show hardware."""
  for patient in itertools.count():
    fractured, hardware = patient % 3 == 1, patient % 10 in (0, 7)
    requested = ('fracture',) * fractured + ('hardware',) * hardware
    number = patient + patient // 9  # numbers are missing in the archive too
    folder = 'Fractured' if fractured else 'Non_fractured'
    yield Exposure(f'FracAtlas/images/{folder}/IMG{number:07d}.jpg', patient, 0, requested, ORDER[patient % len(ORDER)])


def is_multiscan(exposure: Exposure) -> bool:
  return exposure.patient % 8 == 7


def render(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """One exposure, or two beside each other. Boxes are those of fractures."""
  shots = [render_limb(seed, name, dataclasses.replace(exposure, number=number), size // 2, vendor)
           for number in (0, 1)] if is_multiscan(exposure) else [render_limb(seed, name, exposure, size, vendor)]
  height, left, boxes = max(shot.image.shape[0] for shot in shots), 0, []
  for shot in shots:
    boxes += [('fracture', left + x, y, w, h) for finding, x, y, w, h in shot.boxes if finding == 'fracture']
    left += shot.image.shape[1]
  findings = frozenset(('fractured',) if 'fracture' in exposure.requested else ())
  return Radiograph(
    join([shot.image for shot in shots], height), exposure.patient, findings,
    {key: join([shot.masks[key] for shot in shots], height) for key in shots[0].masks}, tuple(boxes), view='frontal',
    part=exposure.part)


def join(images: Sequence[np.ndarray], height: int) -> np.ndarray:
  """Images beside each other, black below those that are less high."""
  return np.hstack([np.pad(image, ((0, height - image.shape[0]), (0, 0))) for image in images])


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """Most files have three equal channels. One is truncated."""
  path = root / exposure.path
  path.parent.mkdir(parents=True, exist_ok=True)
  exif = Image.Exif()
  if exposure.patient == TURNED:
    exif[ExifTags.Base.Orientation] = ORIENTATION
  Image.fromarray(radiograph.image).convert('L' if exposure.patient % 7 == 5 else 'RGB').save(
    path, quality=92, exif=exif)
  if exposure.patient == TRUNCATED:
    data = path.read_bytes()
    path.write_bytes(data[:len(data) * 4 // 5])


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Writes the table, the outlines as COCO and the boxes as YOLO, and the split of the images with a fracture."""
  base = root / 'FracAtlas'
  for folder in ('images/Fractured', 'images/Non_fractured', 'Annotations/COCO JSON', 'Annotations/YOLO',
                 'Utilities/Fracture Split'):
    (base / folder).mkdir(parents=True, exist_ok=True)
  write_rows(base / 'dataset.csv', HEADER, [make_row(*pair) for pair in pairs])
  ill = [(exposure, radiograph) for exposure, radiograph in pairs if radiograph.findings]
  (base / 'Annotations/COCO JSON/COCO_fracture_masks.json').write_text(json.dumps(make_coco(ill)))
  for exposure, radiograph in pairs:
    shape, boxes = displayed(exposure, radiograph)
    lines = [f'0 {(x + w / 2) / shape[1]:.4f} {(y + h / 2) / shape[0]:.4f} {w / shape[1]:.4f} {h / shape[0]:.4f}\n'
             for x, y, w, h in boxes]
    (base / f'Annotations/YOLO/{exposure.stem}.txt').write_text(''.join(lines))
  for number, split in enumerate(('train', 'valid', 'test')):
    rows = [(exposure.file_name,) for i, (exposure, _) in enumerate(ill) if max(i % 10 - 7, 0) == number]
    write_rows(base / f'Utilities/Fracture Split/{split}.csv', 'image_id', rows)


def make_row(exposure: Exposure, radiograph: Radiograph) -> tuple:
  """The row of an image in dataset.csv."""
  parts = PARTS[exposure.part]
  fractured = bool(radiograph.findings) and exposure.patient != CONTRADICTED
  return (exposure.file_name, *(int(column in parts) for column in COLUMNS), int(len(parts) > 1),
          int('hardware' in exposure.requested), int(is_multiscan(exposure)), int(fractured), len(radiograph.boxes),
          1, 0, 0)


def displayed(exposure: Exposure, radiograph: Radiograph) -> tuple[tuple[int, int], list[tuple]]:
  """(height, width) and boxes (x, y, w, h) of an image as its EXIF orientation shows it."""
  (height, width), boxes = radiograph.image.shape, [box for _, *box in radiograph.boxes]
  if exposure.patient != TURNED:
    return (height, width), [tuple(box) for box in boxes]
  return (width, height), [(y, width - x - w, h, w) for x, y, w, h in boxes]


def make_coco(pairs: Sequence[tuple[Exposure, Radiograph]]) -> dict[str, Any]:
  """A COCO table as published: outlines (here rhombs) and their bounding boxes, in pixels of the displayed image."""
  images: list[dict[str, Any]] = []
  annotations: list[dict[str, Any]] = []
  for number, (exposure, radiograph) in enumerate(pairs, 1):
    (height, width), boxes = displayed(exposure, radiograph)
    images.append({'id': number, 'width': width, 'height': height, 'file_name': exposure.file_name})
    for x, y, w, h in boxes:
      outline = [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]
      annotations.append({'id': len(annotations), 'iscrowd': 0, 'image_id': number, 'category_id': 0,
                          'segmentation': [outline], 'bbox': [float(side) for side in (x, y, w, h)], 'area': w * h / 2})
  return {'info': {'description': 'my-project-name'}, 'images': images, 'annotations': annotations,
          'categories': [{'id': 0, 'name': 'fractured'}]}


ARCHIVE = Archive(
  Vendor(gain=1.15, gamma=1.05, detail=0.4, mark=0.05, shutter=0.6, low=2, photons=1.5e4, blur=0.7),
  plan, render, save, write_tables,
)
