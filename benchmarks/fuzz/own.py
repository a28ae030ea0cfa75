"""Damaged tables, masks and boxes of a custom dataset."""

import functools
import json
import pathlib

import numpy as np
import PIL.Image

from benchmarks.fuzz import archives as archive_cases
from benchmarks.fuzz.values import Run
from tfds_builders.common import archives
from tfds_builders.custom import custom

NAME, PATIENTS = 'clinic', 8
HEIGHT, WIDTH = 20, 30  # px


def make(folder: pathlib.Path) -> Run:
  """Cases of custom datasets."""
  root = folder / NAME
  if not root.is_dir():
    write(root)
  _, _, classes, box_classes = custom.read_schema(root)
  clean = archive_cases.describe_clean(
    root, folder, archives.list_files(custom.make_archive(NAME), root),
    functools.partial(custom.read_archive, classes=classes, box_classes=box_classes))

  def run(rng, case, report):
    return archive_cases.build_damaged(rng, case, report, NAME, root, clean)
  return run


def write(root: pathlib.Path) -> None:
  """Writes two images per patient with every column that a table may have, a mask each, and boxes of two classes."""
  rng = np.random.default_rng(0)
  for folder in ('images/a', 'masks/a'):
    (root / folder).mkdir(parents=True)
  lines = ['image,patient,study,part,view,sex,age,fracture,cast,value (mm),split']
  coco = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'plate'}, {'id': 2, 'name': 'screw'}]}
  for i in range(2 * PATIENTS):
    PIL.Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH), np.uint8)).save(root / f'images/a/{i}.png')
    PIL.Image.fromarray(rng.integers(0, 3, (HEIGHT, WIDTH), np.uint8)).save(root / f'masks/a/{i}.png')
    lines.append(f'a/{i}.png,p{i // 2},s{i // 2},hand,frontal,{"FM"[i % 2]},{40 + i},{i % 3 == 0:d},0,{i}.5,')
    coco['images'].append({'id': i, 'file_name': f'a/{i}.png', 'width': WIDTH, 'height': HEIGHT})
    coco['annotations'].append({'image_id': i, 'category_id': 1 + i % 2, 'bbox': [2, 3, 5 + i % 5, 4]})
  (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
  (root / 'classes.txt').write_text('background\nbone\nmetal\n')
  (root / 'boxes.json').write_text(json.dumps(coco))
