"""TBX11K: chest X-rays, healthy, with tuberculosis or with another disease, with boxes around tuberculosis."""
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, coco_boxes, dataset, plain_text, records, voc

BOX_CLASSES = ('ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis')
FINDINGS = ('tuberculosis', 'active', 'latent', 'other disease')
IMAGE = re.compile(r'imgs/((?:health|sick|tb)/[^/]+\.png)')
TABLES = ('TBX11K_train', 'TBX11K_val', 'TBX11K_trainval')  # the third repeats the first two; it may be the only one

ARCHIVE = archives.Archive(
  name='tbx11k', marker='imgs/tb',
  files=('imgs', 'annotations', 'lists'),
  layout='TBX11K/imgs/{health,sick,tb}/*.png, TBX11K/annotations/json/TBX11K_{train,val}.json (or '
         'TBX11K_trainval.json, or annotations/xml/*.xml with lists/*.txt).',
  download='TBX11K.zip, linked from https://github.com/yun-liu/Tuberculosis, or Kaggle usmanshams/tbx-11 '
           '(non-commercial; the stated licences differ).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of tbx11k; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://mmcheng.net/tb/', findings=FINDINGS, box_classes=BOX_CLASSES,
      box_negatives=('tuberculosis',), boxes='on all images with tuberculosis but one; no other image has any')

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out: unlabelled test images, and images of other archives."""
  pictures = {match[1]: path for path in files if (match := IMAGE.fullmatch(path))}
  tables = [path for name in TABLES if (path := f'annotations/json/{name}.json') in files]
  table, rejects, crowds = read_tables(root, tables) if tables else (*read_lists(root, files, pictures), 0)
  official = read_official(root, files)
  entries = []
  for name, objects in table.items():
    if name in pictures and objects is not None:
      entries.append(make_entry(root / pictures[name], name, objects, official.get(name, '')))
    elif name not in pictures:
      rejects.append(dataset.Reject(stem(name), name or 'annotations', 'row without image'))
  rejects += [dataset.Reject(stem(name), pictures[name], 'image without row') for name in pictures if name not in table]
  left_out = {coco_boxes.CROWD_LEFT_OUT: crowds,
              'test image without label': sum(path.startswith('imgs/test/') for path in files),
              'image of another archive (imgs/extra)': sum(path.startswith('imgs/extra/') for path in files)}
  known = ('imgs/test/', 'imgs/extra/', 'annotations/', 'lists/')
  rejects += [dataset.Reject('', path, 'not an image of this archive') for path in files
              if not path.startswith(known) and not IMAGE.fullmatch(path)]
  return entries, rejects, {reason: count for reason, count in left_out.items() if count}


def make_entry(
    path: pathlib.Path, name: str, objects: Sequence[boxes.Box], official_split: str) -> dataset.Entry:
  """The folder says whether there is tuberculosis, the boxes whether it is active or latent; unknown without a box."""
  folder, classes = name.split('/')[0], {class_name for class_name, *_ in objects}
  ill, known = folder == 'tb', folder != 'tb' or bool(objects)
  present = [ill, BOX_CLASSES[0] in classes, BOX_CLASSES[1] in classes, folder == 'sick']
  return dataset.Entry(
    image_id=stem(name), patient=stem(name), path=path, objects=tuple(objects),
    stratum=' '.join([folder, *sorted(classes)]), paper_group='' if ill else None, official_split=official_split,
    # The archive does not state whether a patient with tuberculosis also has another disease.
    fields={'part': 'chest', 'present': [float(yes) for yes in present], 'label_mask': [True, known, known, not ill]})


def read_official(root: pathlib.Path, files: Mapping[str, int]) -> dict[str, str]:
  """{file_name: 'train' | 'test'} from the archive's lists. Its own test labels are hidden, so `val` is the test."""
  lists = {f'lists/{TABLES[0]}.txt': 'train', f'lists/{TABLES[1]}.txt': 'test'}
  return {name: split for path, split in lists.items() if path in files
          for name in plain_text.read_text(root / path).split()}


def read_tables(
    root: pathlib.Path,
    tables: Sequence[str]) -> tuple[dict[str, list[boxes.Box] | None], list[dataset.Reject], int]:
  """{file_name: boxes}, rejects and the number of crowds from the JSON tables. Boxes are in pixels of the images."""
  found: dict[str, list[boxes.Box] | None] = {}
  rejects, crowds = [], 0
  for path in tables:
    drawn = coco_boxes.read_coco(root / path, BOX_CLASSES)
    rejects += [dataset.Reject(stem(name), path, reason) for name, reason in drawn.rejected if name not in found]
    crowds += sum(count for name, count in drawn.left_out.items() if name not in found)
    found = {**drawn.boxes, **found}
  return found, rejects, crowds


def read_lists(
    root: pathlib.Path, files: Mapping[str, int],
    pictures: Mapping[str, str]) -> tuple[dict[str, list[boxes.Box] | None], list[dataset.Reject]]:
  """{file_name: boxes} and rejects from the lists and the XML files; None if the XML is unreadable."""
  sheets = {stem(path): path for path in files if path.startswith('annotations/xml/') and path.endswith('.xml')}
  if not sheets:
    raise ValueError(f'{root} has neither annotations/json/{TABLES[0]}.json nor annotations/xml/*.xml: no boxes')
  lists = [path for path in files if path in [f'lists/{name}.txt' for name in TABLES]]
  names = dict.fromkeys(line for path in lists for line in plain_text.read_text(root / path).split())
  found: dict[str, list[boxes.Box] | None] = {}
  rejects = []
  for name in names or pictures:
    sheet = sheets.get(stem(name))
    try:
      found[name], rejected = voc.read_voc(root / sheet, BOX_CLASSES) if sheet else ([], [])
    except ValueError as error:
      found[name], rejected = None, [f'unreadable XML: {error}']
    rejects += [dataset.Reject(stem(name), sheet or '', reason) for reason in rejected]
  return found, rejects


def stem(path: str) -> str:
  """File name without folder and suffix."""
  return path.rsplit('/', 1)[-1].rsplit('.', 1)[0]
