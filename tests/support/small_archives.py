"""Lays out real radiographs from the folder beside the checkout as the archives of `configs/table.py:real_small`.

    python -m tests.support.small_archives archives

Writes kermany_pneumonia and knee_oa (nearly whole, 128 px), lung_masks, and two datasets without a builder: `teeth`
(panoramic radiographs with boxes) and `covid_chest` (chest radiographs with a finding and the boxes of both lungs).
"""

import argparse
import csv
import json
import pathlib
import shutil
import subprocess
import sys

import cv2

from tests.support.paths import XRAYS

SMALL = XRAYS.with_name('xrays_small')
TEETH = ('molar', 'premolar', 'canine', 'incisor')


def lay_out(folder: pathlib.Path) -> None:
  subprocess.run([sys.executable, SMALL / 'lay_out.py', folder], check=True)
  lungs = 'Lung Segmentation'
  shutil.copytree(XRAYS / 'chest_xray_masks_and_labels' / lungs, folder / 'lung_masks' / lungs, dirs_exist_ok=True)
  write_teeth(folder / 'teeth')
  write_covid(folder / 'covid_chest')


def write_teeth(folder: pathlib.Path) -> None:
  """Every image is of another patient, as far as is known."""
  shutil.copytree(XRAYS / 'dental_teeth' / 'images', folder / 'images', dirs_exist_ok=True)
  images, annotations = [], []
  for number, path in enumerate(sorted((folder / 'images').iterdir())):
    height, width = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).shape
    images.append({'id': number, 'file_name': path.name, 'width': width, 'height': height})
    for line in (XRAYS / 'dental_teeth' / 'labels_yolo' / path.name).with_suffix('.txt').read_text().splitlines():
      tooth, x, y, w, h = line.split()
      size = float(w) * width, float(h) * height
      corner = float(x) * width - size[0] / 2, float(y) * height - size[1] / 2
      annotations.append({'id': len(annotations), 'image_id': number, 'category_id': int(tooth) + 1,
                          'bbox': [*corner, *size]})
  write_boxes(folder, images, annotations, TEETH)
  write_labels(folder, [('image', 'patient'), *((image['file_name'], image['file_name']) for image in images)])


def write_covid(folder: pathlib.Path) -> None:
  shutil.copytree(XRAYS / 'covid_chestxray' / 'images', folder / 'images', dirs_exist_ok=True)
  boxes = json.loads((XRAYS / 'covid_chestxray' / 'annotations_lung_boxes.json').read_text())
  write_boxes(folder, boxes['images'], boxes['annotations'], [kind['name'] for kind in boxes['categories']])
  with open(XRAYS / 'covid_chestxray' / 'labels.csv', newline='', encoding='utf-8') as file:
    rows = [(row['file'], row['patientid'], row['covid']) for row in csv.DictReader(file)]
  write_labels(folder, [('image', 'patient', 'covid'), *rows])


def write_boxes(folder: pathlib.Path, images: list, annotations: list, names: list | tuple) -> None:
  (folder / 'boxes.json').write_text(json.dumps({
    'images': images, 'annotations': annotations,
    'categories': [{'id': number, 'name': name} for number, name in enumerate(names, 1)]}))


def write_labels(folder: pathlib.Path, rows: list[tuple[str, ...]]) -> None:
  with open(folder / 'labels.csv', 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(rows)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', type=pathlib.Path)
  lay_out(parser.parse_args().folder)
