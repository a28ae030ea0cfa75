"""FracAtlas: X-rays of arms, legs, hips and shoulders; some show a fracture, with boxes around each."""
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, coco_boxes, dataset, records, tables

TABLE = 'dataset.csv'
COCO = 'Annotations/COCO JSON/COCO_fracture_masks.json'
CATEGORY = 'fractured'  # the only one in the JSON
PARTS = ('hand', 'leg', 'hip', 'shoulder')
VIEWS = ('frontal', 'lateral', 'oblique')
IMAGE = re.compile(r'images/(?P<folder>Fractured|Non_fractured)/(?P<name>[^/]+\.jpg)', re.IGNORECASE)

ARCHIVE = archives.Archive(
  name='frac_atlas', marker='images/Non_fractured',
  files=('images', COCO, TABLE),
  layout=f'FracAtlas/images/{{Fractured,Non_fractured}}/*.jpg, FracAtlas/{TABLE}, FracAtlas/{COCO}.',
  download='FracAtlas.zip from https://doi.org/10.6084/m9.figshare.22363012 (CC BY 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of frac_atlas; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://doi.org/10.6084/m9.figshare.22363012', findings=('fractured',),
      box_classes=('fracture',), box_negatives=('fractured',),
      boxes='around the outline of each fracture; images without a fracture have none')

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. Folder, table and boxes must agree on whether there is a
  fracture.

  Raises:
    ValueError: the table or the JSON file is missing or not what it should be.
  """
  absent = [path for path in (TABLE, COCO) if path not in files]
  if absent:
    raise ValueError(f'{root} has no {" and no ".join(absent)}: unpack the whole archive')
  rows, rejects = read_rows(root / TABLE)
  coco = coco_boxes.read_coco(root / COCO, (CATEGORY,))
  drawn, crowds = coco.boxes, sum(coco.left_out.values())
  rejects += [dataset.Reject(stem(name), COCO, reason) for name, reason in coco.rejected]
  entries, seen = [], set()
  for path in files:
    match = IMAGE.fullmatch(path)
    name = match['name'] if match else ''
    seen.add(name)
    if not match:
      rejects += [] if path in (TABLE, COCO) else [dataset.Reject('', path, 'not an image of this archive')]
    elif name not in rows:
      rejects.append(dataset.Reject(stem(name), path, 'image without row'))
    elif reason := find_contradiction(match['folder'], rows[name], drawn.get(name, [])):
      rejects.append(dataset.Reject(stem(name), path, reason))
    else:
      entries.append(make_entry(root / path, rows[name], drawn.get(name, [])))
  rejects += [dataset.Reject(stem(name), TABLE, 'row without image') for name in rows if name not in seen]
  rejects += [dataset.Reject(stem(name), COCO, 'row without image') for name in drawn if name not in seen | rows.keys()]
  return entries, rejects, {coco_boxes.CROWD_LEFT_OUT: crowds} if crowds else {}


def read_rows(path: pathlib.Path) -> tuple[dict[str, dict[str, str]], list[dataset.Reject]]:
  """{file name: row of the table} and rejects; of several rows of an image the first counts."""
  table, ragged = tables.read_table(path, ('image_id', 'fractured', 'mixed', *PARTS, *VIEWS))
  rows: dict[str, dict[str, str]] = {}
  rejects = [dataset.Reject('', TABLE, reason) for reason in ragged]
  for row in table:
    if rows.setdefault(row['image_id'], row) is not row:
      rejects.append(dataset.Reject(stem(row['image_id']), TABLE, 'duplicate row'))
  return rows, rejects


def find_contradiction(folder: str, row: Mapping[str, str], objects: Sequence[boxes.Box]) -> str:
  """Why the label of an image cannot be trusted; '' if folder, table and boxes agree."""
  fractured = folder.lower() == 'fractured'
  if tables.read_flag(row['fractured']) is not fractured:
    return f'folder and table disagree: in {folder}, but fractured is {row["fractured"]!r}'
  return 'box on an image without a fracture' if objects and not fractured else ''


def make_entry(path: pathlib.Path, row: Mapping[str, str], objects: Sequence[boxes.Box]) -> dataset.Entry:
  """One image. Its boxes were drawn on the image as displayed, upright, which is how `images.read` gives it."""
  shown = {column for column, cell in row.items() if tables.read_flag(cell)}
  label = 'fractured' if 'fractured' in shown else 'not fractured'
  parts = [part for part in PARTS if part in shown]
  part = 'mixed' if 'mixed' in shown or len(parts) > 1 else ''.join(parts)
  return dataset.Entry(
    image_id=path.stem, patient=path.stem, path=path, stratum=f'{part} {label}', paper_group=label,
    objects=tuple(('fracture', *sides) for _, *sides in objects),
    fields={'part': part, 'view': '+'.join(view for view in VIEWS if view in shown),
            'present': [float(label == 'fractured')], 'label_mask': [True]})


def stem(path: str) -> str:
  """File name without its suffix."""
  return path.rsplit('.', 1)[0]
