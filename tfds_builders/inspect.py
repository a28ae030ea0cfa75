"""Shows a prepared dataset: what is in it, as a table, and how it looks, on a sheet with masks and boxes drawn.

    python -m tfds_builders.inspect nih_chest_xray --data_dir /prepared --sheet nih.png

The rows of the table count images: those with a finding, with a box of a kind, with a mask of a class.
"""
import argparse
import collections
import io
import pathlib
import statistics
import sys

import PIL.Image
import tensorflow_datasets as tfds
import tqdm

from tfds_builders import build
from tfds_builders.common import contact_sheet, dataset, index, splits

SPLITS = tuple(splits.SHARES)
TEXTS = ('part', 'view', 'sex')
SHOWN = 8  # of the different values of a text field
DAMAGE = 10  # lines of damage that are printed


class Survey:
  """Counts over a dataset: `table[row][split]`, `sizes` [(height, width)], `texts[field][value]`, `values[split]`."""

  def __init__(self):
    self.table = collections.defaultdict(collections.Counter)
    self.texts = collections.defaultdict(collections.Counter)
    self.values = collections.defaultdict(list)
    self.ages, self.sizes, self.patients = [], [], collections.defaultdict(set)

  def add(self, split, record, labels):
    """`labels` is what `label` says of the record."""
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


def label(record, about):
  """What a record shows, as rows of the table: {name: None}, in the order of the metadata."""
  rows = {}
  if 'present' in record:
    for name, present, known in zip(about['findings'], record['present'], record['label_mask'], strict=True):
      if not known:
        rows[f'{name}: unknown'] = None
      elif present:
        rows[name] = None
  if 'objects' in record:
    rows |= dict.fromkeys(f'box of {about["box_classes"][kind]}' for kind in record['objects']['class_id'])
  if 'mask' in record:
    there = contact_sheet.decode(record['mask']).ravel()
    rows |= {f'mask of {name}': None for value, name in enumerate(about['mask']) if value and (there == value).any()}
    if (there == dataset.UNANNOTATED).any():
      rows['mask with unannotated pixels'] = None
  return rows


def survey(path, picture_count=0):
  """Reads every record of a prepared version once.

  Returns:
    Survey, and up to `picture_count` [(split, record)] in which the labels take turns, rare ones first.
  """
  builder = tfds.builder_from_directory(path)
  about, seen, shelf = builder.info.metadata, Survey(), collections.defaultdict(list)
  total = sum(builder.info.splits[split].num_examples for split in SPLITS)
  with tqdm.tqdm(total=total, desc=f'inspect {builder.name}', unit=' images', disable=None, leave=False) as bar:
    for split in SPLITS:
      for raw in index.scan(builder, split):
        record = index.parse(builder, raw)
        labels = label(record, about)
        seen.add(split, record, labels)
        for name in labels or ['none']:
          if len(shelf[name]) < picture_count:
            shelf[name].append((split, record))
        bar.update()
  return seen, take_turns(shelf, picture_count)


def take_turns(shelf, count):
  """`count` of the (split, record) on the shelves, each once, one from each shelf in turn, short shelves first."""
  chosen = {}
  shelves = [list(shelf[name]) for name in sorted(shelf, key=lambda name: (len(shelf[name]), name))]
  while any(shelves):
    for pile in shelves:
      if pile and len(chosen) < count:
        split, record = pile.pop(0)
        chosen.setdefault(record['image_id'], (split, record))
      elif pile:
        return list(chosen.values())
  return list(chosen.values())


def describe(path, seen):
  """The survey in words, as lines."""
  info = tfds.builder_from_directory(path).info
  rows = [('', *SPLITS), ('images', *(f'{seen.table["images"][split]:,}' for split in SPLITS)),
          ('patients', *(f'{len(seen.patients[split]):,}' for split in SPLITS))]
  indexed = index.read(path)
  for rule in ('paper', 'official'):
    count = collections.Counter(row[rule] for row in indexed)
    if any(count[split] for split in SPLITS):
      rows.append((f'images by rule {rule}', *(f'{count[split]:,}' for split in SPLITS)))
  rows += [(name, *(f'{seen.table[name][split]:,}' for split in SPLITS)) for name in order(seen, info.metadata)]
  if any(seen.values.values()):
    title = f'{info.metadata["value"]["name"]} ({info.metadata["value"]["unit"]}), median (range)'
    rows.append((title, *(spread(seen.values[split]) for split in SPLITS)))
  widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
  lines = [f'{info.name} {info.version}, stored size {info.metadata["size"]}: {path}']
  lines += ['  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(
    row[1:], widths[1:], strict=True))]).rstrip() for row in rows]
  for side, pixels in (('height', [height for height, _ in seen.sizes]), ('width', [width for _, width in seen.sizes])):
    lines.append(f'{side} in pixels, median (range): {spread(pixels)}')
  if seen.ages:
    lines.append(f'age in years of {len(seen.ages):,} images, median (range): {spread(seen.ages)}')
  for field in TEXTS:
    if set(seen.texts[field]) != {'unknown'}:
      counts = seen.texts[field].most_common()
      rest = f' and {len(counts) - SHOWN} more' if len(counts) > SHOWN else ''
      lines.append(f'{field}: {", ".join(f"{value} {count:,}" for value, count in counts[:SHOWN])}{rest}')
  for title, table in (('rejected (rejects.csv)', 'rejects'), ('left out', 'left_out')):
    lines += [f'{title}: {count:,} {reason}' for reason, count in info.metadata[table].items()]
  return lines


def order(seen, about):
  """Rows of the table but the first, in the order of the metadata."""
  names = [row for name in about['findings'] for row in (name, f'{name}: unknown')]
  names += ['boxes in all', *(f'box of {name}' for name in about['box_classes'])]
  names += [f'mask of {name}' for name in about['mask']] + ['mask with unannotated pixels']
  return [name for name in names if name in seen.table]


def spread(numbers):
  return f'{statistics.median(numbers):g} ({min(numbers):g}-{max(numbers):g})' if numbers else ''


def main(arguments=None):
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.inspect', description=__doc__.split('\n')[0])
  parser.add_argument('name', help='of a prepared dataset')
  parser.add_argument('--data_dir', required=True, help='folder of prepared datasets')
  parser.add_argument('--size', default='256', choices=list(dataset.SIZES), help='that it was prepared at')
  parser.add_argument('--sheet', help='PNG file to write pictures to; without it none are drawn')
  parser.add_argument('--images', type=int, default=24, help='pictures on the sheet')
  parser.add_argument('--verify', action='store_true', help='only compare every record with its SHA-256 in index.csv')
  flags = parser.parse_args(arguments)
  path = build.locate(flags.name, flags.data_dir, flags.size)
  if not build.is_prepared(path):
    print(f'{flags.name} is not prepared at size {flags.size} in {flags.data_dir} (no {path}): see '
          f'python -m tfds_builders.build --help', file=sys.stderr)
    return 2
  if flags.verify:
    return verify(path)
  seen, chosen = survey(path, flags.images if flags.sheet else 0)
  print(*describe(path, seen), sep='\n')
  if flags.sheet:
    about = tfds.builder_from_directory(path).info.metadata
    contact_sheet.draw(chosen, about).save(flags.sheet)
    print(f'{len(chosen)} pictures: {pathlib.Path(flags.sheet).absolute()}')
  return 0


def verify(path):
  """Prints whether what is stored is what was written; exit code 1 if it is not."""
  bad = index.find_damage(path)
  if not bad:
    print(f'{path}: every record is as it was written')
    return 0
  print(f'{path}: {len(bad)} damaged, prepare it again with python -m tfds_builders.build --overwrite', *bad[:DAMAGE],
        sep='\n  ', file=sys.stderr)
  return 1


if __name__ == '__main__':
  sys.exit(main())
