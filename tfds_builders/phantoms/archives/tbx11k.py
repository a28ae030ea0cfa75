"""TBX11K in miniature."""

import itertools
import json
import math

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_chest

ACTIVE, LATENT = 'ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis'
CATEGORIES = (ACTIVE, LATENT, 'PulmonaryTuberculosis')  # the third is never used
WHO = ('health', ACTIVE, 'sick', LATENT, 'health', ACTIVE, 'both', 'test', 'sick', ACTIVE)
UNBOXED = 9  # this patient's box was forgotten, as tb1199's in the archive
FILM = 2840 / 512  # pixels of the first films, which the XML files count in, for one of the images


def plan(seed):
  for patient in itertools.count():
    who, rng = WHO[patient % len(WHO)], dice(seed, 'tbx plan', patient)
    other = (FINDINGS[int(rng.integers(len(FINDINGS)))],)
    asked = {'health': (), 'sick': other, 'both': (ACTIVE, LATENT), 'test': ()}.get(who, (who,))
    name = {'health': f'health/h{patient + 1:04d}', 'sick': f'sick/s{patient + 1:04d}',
            'test': f'test/test_{patient + 1:04d}'}.get(who, f'tb/tb{patient + 1:04d}')
    yield Shot(f'TBX11K/imgs/{name}.png', patient, 0, asked, age=int(rng.integers(18, 80)))


def save(root, shot, radiograph):
  save_png(root, shot, radiograph, 'RGB')


def index(root, pairs):
  """JSON tables with boxes in the frame of the images, XML files in that of the films, lists, one image of DA."""
  base = root / 'TBX11K'
  for folder in ('annotations/json', 'annotations/xml', 'lists', 'imgs/extra/da+db/train', 'imgs/test'):
    (base / folder).mkdir(parents=True, exist_ok=True)
  (base / 'imgs/extra/da+db/train/n11.png').write_bytes((root / pairs[0][0].path).read_bytes())
  labelled = [(number, shot, seen) for number, (shot, seen) in enumerate(pairs, 1) if '/test/' not in shot.path]
  for _, shot, seen in labelled:
    if '/tb/' in shot.path:
      write_voc(base / 'annotations/xml', shot, seen)
  sides = {'train': [row for row in labelled if row[1].patient % 5 != 4],
           'val': [row for row in labelled if row[1].patient % 5 == 4], 'trainval': labelled}
  for side, rows in sides.items():
    (base / f'annotations/json/TBX11K_{side}.json').write_text(json.dumps(tabulate(rows)))
    (base / f'lists/TBX11K_{side}.txt').write_text(''.join(f'{name(shot)}\n' for _, shot, _ in rows))


def name(shot):
  return shot.path.removeprefix('TBX11K/imgs/')


def list_boxes(shot, seen):
  """(category, x, y, w, h) of what an archive of tuberculosis boxes."""
  return [] if shot.patient == UNBOXED else [box for box in seen.boxes if box[0] in CATEGORIES]


def tabulate(rows):
  """A table as published: COCO's keys, but neither `info` nor `segmentation`."""
  images = [{'id': number, 'file_name': name(shot), 'width': seen.image.shape[1], 'height': seen.image.shape[0],
             'date_captured': '2020-06-24 12:42:41.793194', 'license': 1, 'coco_url': '', 'flickr_url': ''}
            for number, shot, seen in rows]
  boxes = [(number, category, box, seen.image.shape) for number, shot, seen in rows
           for category, *box in list_boxes(shot, seen)]
  annotations = [{'id': i, 'image_id': number, 'category_id': CATEGORIES.index(category) + 1, 'iscrowd': 0,
                  'area': box[2] * box[3], 'bbox': [float(side) for side in box], 'width': width, 'height': height}
                 for i, (number, category, box, (height, width)) in enumerate(boxes, 1)]
  categories = [{'id': i, 'name': word, 'supercategory': 'Tuberculosis'} for i, word in enumerate(CATEGORIES, 1)]
  return {'categories': categories, 'images': images, 'annotations': annotations}


def write_voc(folder, shot, seen):
  height, width = (round(side * FILM) for side in seen.image.shape)
  objects = ''.join(
    f'<object><name>{category}</name><bndbox><xmin>{math.floor(x * FILM)}</xmin><ymin>{math.floor(y * FILM)}</ymin>'
    f'<xmax>{math.ceil((x + w) * FILM)}</xmax><ymax>{math.ceil((y + h) * FILM)}</ymax></bndbox></object>'
    for category, x, y, w, h in list_boxes(shot, seen))
  stem = shot.path.rsplit('/', 1)[1].removesuffix('.png')
  (folder / f'{stem}.xml').write_text(
    f'<annotation><filename>{stem}.png</filename><size><width>{width}</width><height>{height}</height>'
    f'<depth>3</depth></size>{objects}</annotation>')


ARCHIVE = Archive(
  Vendor(gain=1.15, gamma=0.9, detail=0.45, mark=0.05, shutter=0.4, photons=2e4, scatter=0.3, low=3), plan, take_chest,
  save, index,
)
