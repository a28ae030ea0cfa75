"""Finds radiographs that are in several datasets, or in several splits of one dataset.

    python -m tfds_builders.leakage kermany_pneumonia covid19_radiography --data_dir /prepared

A task is external only if none of its images was used in pretraining. `check_external` raises an error otherwise.
"""
import argparse
import csv
import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
import re
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent import futures
from typing import Any

from tfds_builders.common import exits

if __name__ == '__main__':
  exits.stop_on_interrupt()

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_builders import build
from tfds_builders.common import build_command, dataset, fingerprints, images, index, outputs, records, splits

# {archive: {archive that it took images from: which images}}, from their descriptions. Some have no builder here.
# TBX11K's imgs/extra holds images of Shenzhen and Montgomery, but its builder leaves that folder out.
KNOWN_OVERLAPS = {
  'lung_masks': {'shenzhen_cxr': 'all 662 CHNCXR images', 'montgomery_cxr': 'all 138 MCUCXR images'},
  'rsna_pneumonia': {'nih_chest_xray': 'all 29,684 images'},
  'siim_pneumothorax': {'nih_chest_xray': 'all images'},
  'covid19_radiography': {
    'rsna_pneumonia': '6,012 images of Lung_Opacity and 8,851 of Normal',
    'kermany_pneumonia': '1,345 images of Viral Pneumonia and 1,341 of Normal'},
  'covidx': {'rsna_pneumonia': 'some images', 'nih_chest_xray': 'some images'},
}
# {dataset: the datasets that it shares images with} where MUSCLE pretrains on the latter and tests on the former.
MUSCLE_OVERLAPS = {'lung_masks': {'shenzhen_cxr', 'montgomery_cxr'}}
CACHE = 'fingerprints.npz'  # beside index.csv; computed again when the index changes
# A file name that two archives would hardly give to different images: at least 8 characters with 4 digits.
DISTINCTIVE = re.compile(r'(?=.*\d.*\d.*\d.*\d).{8,}')
CHUNK = 256
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what np.load raises for a damaged file

log = logging.getLogger(__name__)


class NotExternal(ValueError):
  """Images of a task were used in pretraining."""


@dataclasses.dataclass(frozen=True)
class Fingerprints:
  """A prepared dataset for comparison: rows of its index, hashes (N,) uint64 and pixels (N, 1024) int8."""
  name: str
  rows: list
  hashes: np.ndarray
  pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pair:
  """Row i of one dataset and row j of another: similar by fingerprint, with the same distinctive name, or both."""
  i: int
  j: int
  similar: bool
  same_name: bool


Comparison = tuple[Fingerprints, Fingerprints, list[Pair]]


def trace_sources(name: str) -> dict[str, str]:
  """{archive: how its images came into `name`}, followed through all archives between; `name` itself included."""
  found = {name: name}
  for source, which in KNOWN_OVERLAPS.get(name, {}).items():
    for deeper, how in trace_sources(source).items():
      found.setdefault(deeper, f'{name} took {which} from {source}' + (f'; {how}' if deeper != source else ''))
  return found


def explain_overlap(one: str, other: str) -> str:
  """Why two archives are known to share images; '' if they are not."""
  if one == other:
    return 'it is the same dataset'
  ours, theirs = trace_sources(one), trace_sources(other)
  reasons = [how for source in ours if source in theirs for how in (ours[source], theirs[source])
             if how not in (one, other)]
  return '; '.join(dict.fromkeys(reasons))


def check_external(
    name: str, pretrained: Sequence[str], data_dir: str | os.PathLike[str] | None = None, size: str = '256') -> None:
  """Raises NotExternal if a dataset shares images with one that was used in pretraining.

  Known overlaps count, even if the images at hand are not the shared ones. If a data_dir is given, the images of the
  prepared datasets are compared too.

  Args:
    name: dataset of the task that is meant to be external.
    pretrained: names of the pretraining datasets.
    data_dir: folder of prepared datasets, which must hold all of these; None compares no images.
    size: at which they are prepared.
  """
  for other in pretrained:
    if reason := explain_overlap(name, other):
      raise NotExternal(f'{name} is not external after pretraining on {other}: {reason}. Report it as internal, or '
                        f'pretrain without {other}')
  if data_dir is None:
    return
  ours = load_fingerprints(name, data_dir, size)
  for other in pretrained:
    theirs = load_fingerprints(other, data_dir, size)
    if pairs := find_pairs(ours, theirs):
      raise NotExternal(
        f'{name} is not external after pretraining on {other}: {len({pair.i for pair in pairs}):,} of its '
        f'{len(ours.rows):,} images are also in {other}, for example {ours.rows[pairs[0].i]["image_id"]} = '
        f'{theirs.rows[pairs[0].j]["image_id"]}. Report it as internal, or pretrain without {other}')


def load_fingerprints(name: str, data_dir: str | os.PathLike[str], size: str = '256') -> Fingerprints:
  """Fingerprints of a prepared dataset, from the cache beside it or, with a progress bar, from its images."""
  path = build.locate(name, data_dir, size)
  rows = index.read(path)
  state = hashlib.sha256((path / index.NAME).read_bytes()).hexdigest()
  try:
    with np.load(path / CACHE) as stored:
      if str(stored['state']) == state:
        return Fingerprints(name, rows, stored['hashes'], stored['pixels'])
  except FileNotFoundError:
    pass
  except DAMAGE as error:
    log.warning('%s cannot be used (%s) and is made again', path / CACHE, error)
  builder = tfds.builder_from_directory(path)

  def compute(raw: bytes) -> tuple[np.uint64, np.ndarray]:
    return fingerprints.fingerprint(images.decode_stored(index.parse(builder, raw)['image']))

  computed: list[tuple[np.uint64, np.ndarray]] = []
  with (futures.ThreadPoolExecutor(records.WORKERS) as pool,
        tqdm.tqdm(total=len(rows), desc=f'fingerprints of {name}', unit=' images', disable=None, leave=False) as bar):
    raws = itertools.chain.from_iterable(index.scan(builder, split) for split in splits.FRACTIONS)
    while chunk := list(itertools.islice(raws, CHUNK)):
      computed += pool.map(compute, chunk)
      bar.update(len(chunk))
  hashes, pixels = np.array([one[0] for one in computed], np.uint64), np.stack([one[1] for one in computed])
  save(path / CACHE, state=state, hashes=hashes, pixels=pixels)
  return Fingerprints(name, rows, hashes, pixels)


def save(path: pathlib.Path, **arrays: Any) -> None:
  """Writes the cache of fingerprints, unless the folder cannot be written: prepared datasets are often read-only."""
  try:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='part.') as folder:
      partial = pathlib.Path(folder, path.name)
      np.savez(partial, **arrays)
      partial.rename(path)
  except OSError as error:
    log.warning('the fingerprints are not kept for the next comparison: %s cannot be written (%s)', path,
                error.strerror or error)


def find_pairs(one: Fingerprints, other: Fingerprints) -> list[Pair]:
  """Pairs of the same image in two datasets, or of two images within one; sorted by i, j."""
  first, second, _ = fingerprints.find_matches((one.hashes, one.pixels), (other.hashes, other.pixels))
  similar = set(zip(first.tolist(), second.tolist(), strict=True))
  if one is other:
    similar = {(i, j) for i, j in similar if i < j}
    return [Pair(i, j, True, False) for i, j in sorted(similar)]
  theirs = distinctive_names(other)
  same_name = {(i, theirs[name]) for name, i in distinctive_names(one).items() if name in theirs}
  return [Pair(i, j, (i, j) in similar, (i, j) in same_name) for i, j in sorted(similar | same_name)]


def distinctive_names(prints: Fingerprints) -> dict[str, int]:
  """{file name without folder and suffix: row}, of the distinctive names that occur once."""
  names: dict[str, list[int]] = {}
  for number, row in enumerate(prints.rows):
    names.setdefault(row['image_id'].rsplit('/', 1)[-1].rsplit('.', 1)[0], []).append(number)
  return {name: numbers[0] for name, numbers in names.items() if len(numbers) == 1 and DISTINCTIVE.fullmatch(name)}


def compare(prints: Sequence[Fingerprints]) -> list[Comparison]:
  """Compares each dataset with itself and with every other one."""
  return [(one, other, find_pairs(one, other)) for one, other in itertools.combinations_with_replacement(prints, 2)]


def report(comparisons: Sequence[Comparison]) -> list[str]:
  """What datasets share with one another, and between their own splits, as printed lines."""
  table = [('dataset', 'also in', 'images', 'similar', 'same name', 'example')]
  notes = []
  for one, other, pairs in comparisons:
    if one is other:
      across = [pair for pair in pairs if one.rows[pair.i]['split'] != one.rows[pair.j]['split']]
      notes.append(f'{one.name}: {len(pairs):,} pair{"s" * (len(pairs) != 1)} of similar images, {len(across):,} of '
                   'them across splits')
      pairs = across
    elif not pairs:
      notes.append(f'{one.name} and {other.name}: no shared images found'
                   + (f', although {reason}' if (reason := explain_overlap(one.name, other.name)) else ''))
    if pairs:
      table.append((
        one.name, 'another split' if one is other else other.name,
        f'{len({pair.i for pair in pairs}):,} of {len(one.rows):,}', f'{sum(pair.similar for pair in pairs):,}',
        f'{sum(pair.same_name for pair in pairs):,}',
        f'{one.rows[pairs[0].i]["image_id"]} = {other.rows[pairs[0].j]["image_id"]}'))
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
  return [*(lines if len(lines) > 1 else []), *notes]


def write_pairs(path: str | os.PathLike[str], comparisons: Sequence[Comparison]) -> None:
  """A CSV file of all pairs: dataset, split, image_id and patient of both images, then similar and same_name."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    fields = ('split', 'image_id', 'patient')
    table.writerow([f'{field}{side}' for side in (1, 2) for field in ('dataset', *fields)] + ['similar', 'same_name'])
    for one, other, pairs in comparisons:
      for pair in pairs:
        table.writerow([
          one.name, *(one.rows[pair.i][field] for field in fields),
          other.name, *(other.rows[pair.j][field] for field in fields), int(pair.similar), int(pair.same_name)])


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns an exit code (`exits`)."""
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.leakage', description=(__doc__ or '').split('\n')[0])
  parser.add_argument('names', nargs='+', metavar='NAME', help='names of prepared datasets')
  parser.add_argument('--data_dir', required=True, help='folder of prepared datasets')
  parser.add_argument('--size', default='256', choices=list(dataset.SIZES),
                      help='size the datasets were prepared at (default: %(default)s)')
  parser.add_argument('--pairs', metavar='FILE', help='CSV file to write all pairs to')
  flags = parser.parse_args(arguments)
  folders = {name: build.locate(name, flags.data_dir, flags.size) for name in flags.names}
  if absent := [name for name, folder in folders.items() if not build.is_prepared(folder)]:
    print(*(f'{name} is not prepared at size {flags.size} in {flags.data_dir}: run {build_command.show(folders[name])}'
            for name in absent), sep='\n', file=sys.stderr)
    return exits.REFUSED
  for folder in folders.values():
    index.check_prepared(folder)
  if flags.pairs:
    outputs.check_output(flags.pairs, '--pairs')
  prints = [load_fingerprints(name, flags.data_dir, flags.size) for name in dict.fromkeys(flags.names)]
  comparisons = compare(prints)
  print(*report(comparisons), sep='\n')
  if flags.pairs:
    write_pairs(flags.pairs, comparisons)
  return 0


if __name__ == '__main__':
  sys.exit(main())
