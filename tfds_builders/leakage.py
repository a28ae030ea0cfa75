"""Which radiographs lie in several datasets, or in several splits of one: what is known, and what is found.

    python -m tfds_builders.leakage kermany_pneumonia covid19_radiography --data_dir /prepared

A task is external only if none of its images was in the pretraining; `refuse_external` says no, and why.
"""
import argparse
import csv
import dataclasses
import hashlib
import itertools
import re
import sys
from concurrent import futures

import cv2
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_builders import build
from tfds_builders.common import dataset, fingerprints, index

# {archive: {archive it took images from: which}}, from their descriptions; names without a builder, too.
# TBX11K's imgs/extra has Shenzhen's and Montgomery's images; the builder leaves that folder out.
HOLDS = {
  'lung_masks': {'shenzhen_cxr': 'all 662 CHNCXR images', 'montgomery_cxr': 'all 138 MCUCXR images'},
  'rsna_pneumonia': {'nih_chest_xray': 'all 26,684 and 3,000 images'},
  'siim_pneumothorax': {'nih_chest_xray': 'all images'},
  'covid19_radiography': {
    'rsna_pneumonia': 'the 6,012 of Lung_Opacity and 8,851 of Normal',
    'kermany_pneumonia': 'the 1,345 of Viral Pneumonia and 1,341 of Normal'},
  'covidx': {'rsna_pneumonia': 'a part', 'nih_chest_xray': 'a part'},
}
PRINTS = 'prints.npz'  # beside the index, and made anew when that changes
TELLING = re.compile(r'(?=.*\d.*\d.*\d.*\d).{8,}')  # names that hardly two archives would give to different images
CHUNK = 256


class NotExternal(ValueError):
  """Images of a task were in the pretraining."""


@dataclasses.dataclass(frozen=True)
class Prints:
  """A prepared dataset to be compared: rows of its index, hashes (N,) uint64 and pixels (N, 1024) int8."""
  name: str
  rows: list
  hashes: np.ndarray
  pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pair:
  """Row i of one dataset and row j of the other: alike by their prints, of one telling name, or both."""
  i: int
  j: int
  alike: bool
  named: bool


def trace(name):
  """{archive: how its images came into `name`}, all the way down; `name` itself among them."""
  found = {name: name}
  for source, which in HOLDS.get(name, {}).items():
    for deeper, how in trace(source).items():
      found.setdefault(deeper, f'{name} has of {source} {which}' + (f'; {how}' if deeper != source else ''))
  return found


def explain(one, other):
  """Why two archives are known to have images in common, '' if they are not."""
  if one == other:
    return 'it is the same dataset'
  ours, theirs = trace(one), trace(other)
  reasons = [how for source in ours if source in theirs for how in (ours[source], theirs[source])
             if how not in (one, other)]
  return '; '.join(dict.fromkeys(reasons))


def refuse_external(name, pretrained, data_dir=None, size='256'):
  """Raises NotExternal if a dataset shares images with one of those pretrained on.

  Known overlaps count whether the images at hand are the shared ones or not. With a data_dir the prepared datasets
  are compared as well.

  Args:
    name: dataset of the task that is to be called external.
    pretrained: names of the datasets of the pretraining.
    data_dir: folder of prepared datasets, which then has to hold all of these.
  """
  for other in pretrained:
    if reason := explain(name, other):
      raise NotExternal(f'{name} is no external task after pretraining on {other}: {reason}. Report it as internal, or '
                        f'pretrain without {other}')
  if data_dir is None:
    return
  ours = take_prints(name, data_dir, size)
  for other in pretrained:
    theirs = take_prints(other, data_dir, size)
    if pairs := compare(ours, theirs):
      raise NotExternal(
        f'{name} is no external task after pretraining on {other}: {len({pair.i for pair in pairs}):,} of its '
        f'{len(ours.rows):,} images are there, too, such as {ours.rows[pairs[0].i]["image_id"]} = '
        f'{theirs.rows[pairs[0].j]["image_id"]}. Report it as internal, or pretrain without {other}')


def take_prints(name, data_dir, size='256'):
  """Prints of a prepared dataset, from `prints.npz` beside it or, with a progress bar, from its images."""
  path = build.locate(name, data_dir, size)
  rows = index.read(path)
  state = hashlib.sha256((path / index.NAME).read_bytes()).hexdigest()
  try:
    with np.load(path / PRINTS) as stored:
      if str(stored['state']) == state:
        return Prints(name, rows, stored['hashes'], stored['pixels'])
  except FileNotFoundError:
    pass
  builder = tfds.builder_from_directory(path)

  def take(raw):
    encoded = np.frombuffer(index.parse(builder, raw)['image'], np.uint8)
    return fingerprints.take(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE))

  prints = []
  with (futures.ThreadPoolExecutor(dataset.WORKERS) as pool,
        tqdm.tqdm(total=len(rows), desc=f'prints of {name}', unit=' images', disable=None, leave=False) as bar):
    raws = itertools.chain.from_iterable(index.scan(builder, split) for split in ('train', 'validation', 'test'))
    while chunk := list(itertools.islice(raws, CHUNK)):
      prints += pool.map(take, chunk)
      bar.update(len(chunk))
  hashes, pixels = np.array([print_[0] for print_ in prints], np.uint64), np.stack([print_[1] for print_ in prints])
  half = path / f'part.{PRINTS}'
  np.savez(half, state=state, hashes=hashes, pixels=pixels)
  half.rename(path / PRINTS)
  return Prints(name, rows, hashes, pixels)


def compare(one, other):
  """Pairs of images that two datasets have in common, or of different images of one; sorted by i, j."""
  first, second, _ = fingerprints.find_same((one.hashes, one.pixels), (other.hashes, other.pixels))
  alike = set(zip(first.tolist(), second.tolist(), strict=True))
  if one is other:
    alike = {(i, j) for i, j in alike if i < j}
    return [Pair(i, j, True, False) for i, j in sorted(alike)]
  theirs = telling_names(other)
  named = {(i, theirs[name]) for name, i in telling_names(one).items() if name in theirs}
  return [Pair(i, j, (i, j) in alike, (i, j) in named) for i, j in sorted(alike | named)]


def telling_names(prints):
  """{name of the file without its folder and ending: row}, of names that are telling and come once."""
  names = {}
  for place, row in enumerate(prints.rows):
    names.setdefault(row['image_id'].rsplit('/', 1)[-1].rsplit('.', 1)[0], []).append(place)
  return {name: places[0] for name, places in names.items() if len(places) == 1 and TELLING.fullmatch(name)}


def report(prints):
  """What a list of datasets share, with one another and between their own splits, as lines of a table."""
  table = [('of', 'also in', 'images', 'alike', 'same name', 'for example')]
  notes = []
  for one, other in itertools.combinations_with_replacement(prints, 2):
    pairs = compare(one, other)
    if one is other:
      across = [pair for pair in pairs if one.rows[pair.i]['split'] != one.rows[pair.j]['split']]
      notes.append(f'{one.name}: {len(pairs):,} pairs of images are alike, {len(across):,} of them in two splits')
      pairs = across
    elif not pairs:
      notes.append(f'{one.name} and {other.name}: none found'
                   + (f', though {reason}' if (reason := explain(one.name, other.name)) else ''))
    if pairs:
      table.append((
        one.name, 'another split' if one is other else other.name,
        f'{len({pair.i for pair in pairs}):,} of {len(one.rows):,}', f'{sum(pair.alike for pair in pairs):,}',
        f'{sum(pair.named for pair in pairs):,}',
        f'{one.rows[pairs[0].i]["image_id"]} = {other.rows[pairs[0].j]["image_id"]}'))
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
  return [*(lines if len(lines) > 1 else []), *notes]


def write_pairs(path, prints):
  """A CSV file of all pairs: dataset, split, image_id, patient, twice; alike, same_name."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    fields = ('split', 'image_id', 'patient')
    table.writerow([f'{field}{side}' for side in (1, 2) for field in ('dataset', *fields)] + ['alike', 'same_name'])
    for one, other in itertools.combinations_with_replacement(prints, 2):
      for pair in compare(one, other):
        table.writerow([one.name, *(one.rows[pair.i][field] for field in fields),
                        other.name, *(other.rows[pair.j][field] for field in fields), int(pair.alike), int(pair.named)])


def main(arguments=None):
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.leakage', description=__doc__.split('\n')[0])
  parser.add_argument('names', nargs='+', metavar='NAME', help='of prepared datasets')
  parser.add_argument('--data_dir', required=True, help='folder of prepared datasets')
  parser.add_argument('--size', default='256', choices=list(dataset.SIZES), help='that they were prepared at')
  parser.add_argument('--pairs', help='CSV file to list all pairs in')
  flags = parser.parse_args(arguments)
  absent = [name for name in flags.names if not build.is_prepared(build.locate(name, flags.data_dir, flags.size))]
  if absent:
    print(f'not prepared at size {flags.size} in {flags.data_dir}: {", ".join(absent)}', file=sys.stderr)
    return 2
  prints = [take_prints(name, flags.data_dir, flags.size) for name in dict.fromkeys(flags.names)]
  print(*report(prints), sep='\n')
  if flags.pairs:
    write_pairs(flags.pairs, prints)
  return 0


if __name__ == '__main__':
  sys.exit(main())
