"""TBX11K in miniature."""

import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_chest

ACTIVE, LATENT = 'ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis'
CATEGORIES = (ACTIVE, LATENT, 'PulmonaryTuberculosis')  # the third is never used
GROUPS = ('health', ACTIVE, 'sick', LATENT, 'health', ACTIVE, 'both', 'test', 'sick', ACTIVE)
UNBOXED = 9  # the patient without a box, like tb1199 in the archive
ORIGINAL_SCALE = 2840 / 512  # XML boxes are in pixels of the original images, which are this much larger


def plan(seed: int) -> Iterator[Exposure]:
  for patient in itertools.count():
    group, rng = GROUPS[patient % len(GROUPS)], seeded_rng(seed, 'tbx plan', patient)
    other = (FINDINGS[int(rng.integers(len(FINDINGS)))],)
    requested = {'health': (), 'sick': other, 'both': (ACTIVE, LATENT), 'test': ()}.get(group, (group,))
    name = {'health': f'health/h{patient + 1:04d}', 'sick': f'sick/s{patient + 1:04d}',
            'test': f'test/test_{patient + 1:04d}'}.get(group, f'tb/tb{patient + 1:04d}')
    yield Exposure(f'TBX11K/imgs/{name}.png', patient, 0, requested, age=int(rng.integers(18, 80)))


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  save_png(root, exposure, radiograph, 'RGB')


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Writes JSON tables with boxes in image pixels, XML files in original pixels, lists, and one image of DA."""
  base = root / 'TBX11K'
  for folder in ('annotations/json', 'annotations/xml', 'lists', 'imgs/extra/da+db/train', 'imgs/test'):
    (base / folder).mkdir(parents=True, exist_ok=True)
  (base / 'imgs/extra/da+db/train/n11.png').write_bytes((root / pairs[0][0].path).read_bytes())
  labelled = [(number, exposure, radiograph) for number, (exposure, radiograph) in enumerate(pairs, 1)
              if '/test/' not in exposure.path]
  for _, exposure, radiograph in labelled:
    if '/tb/' in exposure.path:
      write_voc(base / 'annotations/xml', exposure, radiograph)
  splits = {'train': [row for row in labelled if row[1].patient % 5 != 4],
            'val': [row for row in labelled if row[1].patient % 5 == 4], 'trainval': labelled}
  for split, rows in splits.items():
    (base / f'annotations/json/TBX11K_{split}.json').write_text(json.dumps(make_coco(rows)))
    (base / f'lists/TBX11K_{split}.txt').write_text(''.join(f'{relative_name(exposure)}\n' for _, exposure, _ in rows))


def relative_name(exposure: Exposure) -> str:
  """Path below imgs/."""
  return exposure.path.removeprefix('TBX11K/imgs/')


def list_boxes(exposure: Exposure, radiograph: Radiograph) -> list[tuple]:
  """[(category, x, y, w, h), ...] of the tuberculosis in an image."""
  return [] if exposure.patient == UNBOXED else [box for box in radiograph.boxes if box[0] in CATEGORIES]


def make_coco(rows: Sequence[tuple[int, Exposure, Radiograph]]) -> dict[str, Any]:
  """A COCO table as published, without `info` and `segmentation`."""
  images = [{'id': number, 'file_name': relative_name(exposure), 'width': radiograph.image.shape[1],
             'height': radiograph.image.shape[0], 'date_captured': '2020-06-24 12:42:41.793194', 'license': 1,
             'coco_url': '', 'flickr_url': ''}
            for number, exposure, radiograph in rows]
  boxes = [(number, category, box, radiograph.image.shape) for number, exposure, radiograph in rows
           for category, *box in list_boxes(exposure, radiograph)]
  annotations = [{'id': i, 'image_id': number, 'category_id': CATEGORIES.index(category) + 1, 'iscrowd': 0,
                  'area': box[2] * box[3], 'bbox': [float(side) for side in box], 'width': width, 'height': height}
                 for i, (number, category, box, (height, width)) in enumerate(boxes, 1)]
  categories = [{'id': i, 'name': word, 'supercategory': 'Tuberculosis'} for i, word in enumerate(CATEGORIES, 1)]
  return {'categories': categories, 'images': images, 'annotations': annotations}


def write_voc(folder: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """Writes the VOC file of an image, with boxes in whole pixels of the original image."""
  height, width = (round(side * ORIGINAL_SCALE) for side in radiograph.image.shape)
  objects = ''
  for category, x, y, w, h in list_boxes(exposure, radiograph):
    x0, y0 = math.floor(x * ORIGINAL_SCALE), math.floor(y * ORIGINAL_SCALE)
    x1, y1 = math.ceil((x + w) * ORIGINAL_SCALE), math.ceil((y + h) * ORIGINAL_SCALE)
    objects += (f'<object><name>{category}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>'
                f'<ymax>{y1}</ymax></bndbox></object>')
  stem = exposure.stem
  (folder / f'{stem}.xml').write_text(
    f'<annotation><filename>{stem}.png</filename><size><width>{width}</width><height>{height}</height>'
    f'<depth>3</depth></size>{objects}</annotation>')


ARCHIVE = Archive(
  Vendor(gain=1.15, gamma=0.9, detail=0.45, mark=0.05, shutter=0.4, photons=2e4, scatter=0.3, low=3),
  plan, render_chest, save, write_tables,
)
