"""Shows a prepared dataset: a table of its labels, a check with warnings, and a sheet of images with masks and boxes.

    python -m tfds_builders.inspect nih_chest_xray --data_dir /prepared --sheet nih.png

The table counts images: those with a finding, with a box of a class, with a mask of a class. `sanity` makes the check.
"""
import argparse
import collections
import io
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tfds_builders.common import exits

if __name__ == '__main__':
  exits.stop_on_interrupt()

import PIL.Image
import tensorflow_datasets as tfds
import tqdm

from tfds_builders import build, sanity
from tfds_builders.common import (
  build_command,
  contact_sheet,
  dataset,
  images,
  index,
  label_columns,
  outputs,
  records,
  splits,
)

SPLITS = tuple(splits.FRACTIONS)
TEXTS = ('part', 'view', 'sex')
MAX_VALUES = 8  # different values of a text field that are printed
MAX_DAMAGE = 10  # damaged records that are printed


class Survey:
  """Statistics of a dataset.

  Attributes:
    table: {row: {split: images}}.
    texts: {text field: {value: images}}.
    values: {split: [regression value, ...]}.
    patients: {split: {patient, ...}}.
    ages: in years, where known.
    sizes: [(height, width), ...] in pixels.
    report: what `sanity` finds.
  """

  def __init__(self, report: sanity.Report) -> None:
    self.report = report
    self.table: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    self.texts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    self.values: dict[str, list[float]] = collections.defaultdict(list)
    self.patients: dict[str, set] = collections.defaultdict(set)
    self.ages: list[float] = []
    self.sizes: list[tuple[int, int]] = []

  def add(self, split: str, record: dict[str, Any], labels: Sequence[str]) -> None:
    """Counts a record; `labels` are its rows of the table, from `list_labels`."""
    self.table['images'][split] += 1
    self.patients[split].add(record['patient'])
    for name in labels:
      self.table[name][split] += 1
    if 'objects' in record:
      self.table['boxes in all'][split] += len(record['objects']['class_id'])
    if 'value' in record:
      self.values[split].append(float(record['value'][0]))
    if record['age'] == record['age']:
      self.ages.append(float(record['age']))
    for field in TEXTS:
      self.texts[field][record[field].decode() or 'unknown'] += 1
    with PIL.Image.open(io.BytesIO(record['image'])) as image:  # reads the header only
      self.sizes.append((image.height, image.width))


def list_labels(record: dict[str, Any], metadata: Mapping[str, Any]) -> list[str]:
  """The rows of the table that a record counts in, in the order of the metadata."""
  rows: dict[str, None] = {}  # a dict keeps the order and drops repetitions
  if 'present' in record:
    for name, present, known in zip(metadata['findings'], record['present'], record['label_mask'], strict=True):
      if not known:
        rows[f'{name}: unknown'] = None
      elif present:
        rows[name] = None
  if 'objects' in record:
    rows |= dict.fromkeys(
      f'box of {metadata["box_classes"][class_id]}' for class_id in record['objects']['class_id'])
  if 'mask' in record:
    mask = images.decode_stored(record['mask']).ravel()
    rows |= {f'mask of {name}': None
             for value, name in enumerate(metadata['mask']) if value and (mask == value).any()}
    if (mask == label_columns.UNANNOTATED).any():
      rows['mask with unannotated pixels'] = None
  return list(rows)


def survey(
    path: str | os.PathLike[str], picture_count: int = 0) -> tuple[Survey, list[tuple[str, dict[str, Any]]]]:
  """Reads every record of a prepared version once.

  Returns:
    The statistics, and up to `picture_count` [(split, record), ...] that show as many different labels as possible.
  """
  builder = tfds.builder_from_directory(path)
  metadata, stats = builder.info.metadata, Survey(sanity.Report(path))
  by_label: dict[str, list] = collections.defaultdict(list)
  total = sum(builder.info.splits[split].num_examples for split in SPLITS)
  with tqdm.tqdm(total=total, desc=f'inspect {builder.name}', unit=' images', disable=None, leave=False) as bar:
    for split in SPLITS:
      for position, raw in enumerate(index.scan(builder, split)):
        record = index.parse(builder, raw)
        labels = list_labels(record, metadata)
        stats.add(split, record, labels)
        stats.report.add(split, position, record)
        for name in labels or ['none']:
          if len(by_label[name]) < picture_count:
            by_label[name].append((split, record))
        bar.update()
  return stats, choose_pictures(by_label, picture_count)


def choose_pictures(
    by_label: Mapping[str, Sequence[tuple[str, dict[str, Any]]]],
    count: int) -> list[tuple[str, dict[str, Any]]]:
  """Chooses `count` different (split, record), one per label in turn, rare labels first."""
  chosen: dict[str, tuple[str, dict[str, Any]]] = {}
  queues = [list(by_label[name]) for name in sorted(by_label, key=lambda name: (len(by_label[name]), name))]
  while any(queues):
    for queue in queues:
      if queue and len(chosen) < count:
        split, record = queue.pop(0)
        chosen.setdefault(record['image_id'], (split, record))
      elif queue:
        return list(chosen.values())
  return list(chosen.values())


def describe(path: str | os.PathLike[str], stats: Survey) -> list[str]:
  """The statistics as printed lines."""
  info = tfds.builder_from_directory(path).info
  table = stats.table
  rows: list[tuple] = [('', *SPLITS), ('images', *(f'{table["images"][split]:,}' for split in SPLITS)),
                       ('patients', *(f'{len(stats.patients[split]):,}' for split in SPLITS))]
  indexed, shared = index.read(path), {}
  for rule in ('paper', 'official'):
    count = collections.Counter(row[rule] for row in indexed)
    if any(count[split] for split in SPLITS):
      rows.append((f'images by rule {rule}', *(f'{count[split]:,}' for split in SPLITS)))
    patient_of = {row['image_id']: row['patient'] for row in indexed}
    shared[rule] = splits.count_shared_patients(
      patient_of, {row['image_id']: row[rule] for row in indexed if row[rule]})
  rows += [(name, *(f'{table[name][split]:,}' for split in SPLITS)) for name in list_rows(table, info.metadata)]
  if any(stats.values.values()):
    title = f'{info.metadata["value"]["name"]} ({info.metadata["value"]["unit"]}), median (range)'
    rows.append((title, *(sanity.format_range(stats.values[split]) for split in SPLITS)))
  widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
  lines = [f'{info.name} {info.version}, stored size {info.metadata["size"]}: {path}']
  lines += ['  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(
    row[1:], widths[1:], strict=True))]).rstrip() for row in rows]
  for side, pixels in (('height', [height for height, _ in stats.sizes]),
                       ('width', [width for _, width in stats.sizes])):
    lines.append(f'{side} in pixels, median (range): {sanity.format_range(pixels)}')
  lines += [f'patients in more than one split by rule {rule}: {count:,}' for rule, count in shared.items() if count]
  if stats.ages:
    lines.append(f'age in years of {len(stats.ages):,} images, median (range): {sanity.format_range(stats.ages)}')
  for field in TEXTS:
    if set(stats.texts[field]) != {'unknown'}:
      counts = stats.texts[field].most_common()
      rest = f' and {len(counts) - MAX_VALUES} more' if len(counts) > MAX_VALUES else ''
      lines.append(f'{field}: {", ".join(f"{value} {count:,}" for value, count in counts[:MAX_VALUES])}{rest}')
  return [*lines, *records.list_missing_images(info.metadata), *stats.report.describe()]


def list_rows(table: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
  """Rows of the table below 'images', in the order of the metadata."""
  names = [row for name in metadata['findings'] for row in (name, f'{name}: unknown')]
  names += ['boxes in all', *(f'box of {name}' for name in metadata['box_classes'])]
  names += [f'mask of {name}' for name in metadata['mask']] + ['mask with unannotated pixels']
  return [name for name in names if name in table]


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns 1 if records are damaged, else an exit code of `exits`."""
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.inspect', description=(__doc__ or '').split('\n')[0])
  parser.add_argument('name', help='name of a prepared dataset')
  parser.add_argument('--data_dir', required=True, help='folder of prepared datasets')
  parser.add_argument('--size', default='256', choices=list(dataset.SIZES),
                      help='size the dataset was prepared at (default: %(default)s)')
  parser.add_argument('--sheet', help='PNG file to draw images into; without it, only the table is printed')
  parser.add_argument('--images', type=int, default=24, help='images on the sheet (default: %(default)s)')
  parser.add_argument('--verify', action='store_true',
                      help='check every record against its SHA-256 in index.csv, and do nothing else')
  flags = parser.parse_args(arguments)
  if flags.images < 1:
    parser.error(f'--images {flags.images} leaves the sheet empty: give at least 1')
  path = build.locate(flags.name, flags.data_dir, flags.size)
  if not build.is_prepared(path):
    print(f'{flags.name} is not prepared at size {flags.size} in {flags.data_dir} (no {path}). Prepare it with '
          f'{build_command.show(path)}', file=sys.stderr)
    return 2
  index.check_prepared(path)
  if flags.verify:
    return verify(path)
  if flags.sheet:
    outputs.check_picture(flags.sheet, '--sheet')
  stats, chosen = survey(path, flags.images if flags.sheet else 0)
  print(*describe(path, stats), sep='\n')
  if flags.sheet:
    metadata = tfds.builder_from_directory(path).info.metadata
    contact_sheet.draw(chosen, metadata).save(flags.sheet)
    print(f'{len(chosen)} images drawn: {pathlib.Path(flags.sheet).absolute()}')
  return 0


def verify(path: pathlib.Path) -> int:
  """Prints whether all records are as written; returns the exit code, 1 if some are damaged."""
  damage = index.find_damage(path)
  if not damage:
    print(f'{path}: every record is intact')
    return 0
  print(f'{path}: {len(damage)} damaged records; prepare it again with {build_command.show(path, overwrite=True)}',
        *damage[:MAX_DAMAGE], sep='\n  ', file=sys.stderr)
  return 1


if __name__ == '__main__':
  sys.exit(main())
