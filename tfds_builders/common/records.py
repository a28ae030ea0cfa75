"""From the entries of an archive to stored records: splits them, decodes the images, counts and lists the rejects."""
import collections
import csv
import dataclasses
import functools
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_builders.common import archives, dataset, decoded, images, index, label_columns, plain_text, splits

TOLERATED = 0.05  # fraction of an archive that may be rejected before the build fails
WORKERS = min(32, os.cpu_count() or 1)  # decoding threads; Pillow, OpenCV and zlib release the GIL
PREFETCH = 4 * WORKERS  # images decoded ahead; limits memory

log = logging.getLogger(__name__)


class TooManyRejects(ValueError):
  """A larger fraction of the archive is bad than is tolerated."""


class EmptyMasks(ValueError):
  """No mask of the dataset marks anything."""


def split_generators(
    builder: tfds.core.GeneratorBasedBuilder, archive: archives.Archive, manual_dir: str | os.PathLike[str],
    read_archive: Callable[[pathlib.Path, dict[str, int]], dataset.Contents]) -> dict[str, Any]:
  """Reads the tables of an archive, splits its images by patient and returns TFDS's split generators.

  Args:
    builder: the TFDS builder.
    archive: what the archive looks like on disk.
    manual_dir: folder that holds the archives.
    read_archive: function (root, {relative path: bytes}) -> (entries, rejects, {reason: images left out}).

  Returns:
    {'train': examples, 'validation': examples, 'test': examples}

  Raises:
    archives.ArchiveMissing: no such archive below `manual_dir`.
    TooManyRejects: too many rejects already in the tables.
    ValueError: a split would be empty.
  """
  root = archives.find_root(archive, manual_dir)
  files = archives.list_files(archive, root)
  entries, rejects, left_out = clean_entries(root, files, read_archive)
  builder.info.metadata.update(archive=archives.fingerprint(root, files), left_out=left_out)
  builder.entries, builder.rejects = entries, rejects
  builder.total = len(entries) + len(rejects)
  check_rejects(builder)
  builder.split_rules, builder.strata = assign_splits(entries), assign_strata(entries)
  patient_of = {entry.image_id: entry.patient for entry in entries}
  split_of = builder.split_rules['patient']
  by_split = {split: [entry for entry in entries if split_of[entry.image_id] == split] for split in splits.FRACTIONS}
  empty = [split for split in by_split if not by_split[split]]
  if empty:
    raise ValueError(f'{builder.name}: {root} holds {len(entries)} images of {len(set(patient_of.values()))} patients, '
                     f'which leaves {empty} empty. A split by patient needs at least three patients.')
  return {split: builder._generate_examples(split, root, by_split[split]) for split in by_split}


def clean_entries(
    root: pathlib.Path, files: dict[str, int],
    read_archive: Callable[[pathlib.Path, dict[str, int]], dataset.Contents]) -> dataset.Contents:
  """`read_archive`, with garbled and duplicate entries among the rejects."""
  entries, rejects, left_out = read_archive(root, files)
  entries, garbled = drop_garbled(entries, root)
  entries, duplicates = drop_duplicates(entries, root)
  return entries, [*rejects, *garbled, *duplicates], left_out


def assign_splits(entries: Sequence[dataset.Entry]) -> dict[str, dict[str, str]]:
  """The split of each image by each rule: {'patient' | 'paper' | 'official': {image_id: split}}.

  An image that a rule puts in no split is missing from that rule's dict.
  """
  split_of = splits.split_by_patient((entry.patient, entry.stratum) for entry in entries)
  return {
    'patient': {entry.image_id: split_of[entry.patient] for entry in entries},
    'paper': splits.split_by_paper((entry.image_id, entry.paper_group) for entry in entries),
    'official': splits.split_by_archive(
      (entry.image_id, entry.patient, entry.stratum, entry.official_split) for entry in entries)}


def assign_strata(entries: Sequence[dataset.Entry]) -> dict[str, str]:
  """{image_id: stratum of its patient}, see `splits.stratify`."""
  strata = splits.stratify((entry.patient, entry.stratum) for entry in entries)
  stratum_of = {patient: name for name, patients in strata.items() for patient in patients}
  return {entry.image_id: stratum_of[entry.patient] for entry in entries}


def drop_garbled(
    entries: Iterable[dataset.Entry], root: pathlib.Path) -> tuple[list[dataset.Entry], list[dataset.Reject]]:
  """Rejects entries without an image or patient name, and those whose texts are too long or not one line each."""
  good, garbled = [], []
  for entry in entries:
    texts = [entry.image_id, entry.patient, *(text for text in entry.fields.values() if isinstance(text, str))]
    if not entry.image_id.strip() or not entry.patient.strip():
      garbled.append(reject(entry, root, 'empty image or patient name'))
    elif any(plain_text.GARBLED.search(text) or len(text) > dataset.MAX_TEXT for text in texts):
      garbled.append(reject(entry, root, 'text with control characters or too long'))
    else:
      good.append(entry)
  return good, garbled


def drop_duplicates(
    entries: Iterable[dataset.Entry], root: pathlib.Path) -> tuple[list[dataset.Entry], list[dataset.Reject]]:
  """Keeps the first entry of each image_id and rejects the others."""
  first: dict[str, dataset.Entry] = {}
  duplicates = []
  for entry in entries:
    kept = first.setdefault(entry.image_id, entry)
    if kept is not entry:
      is_copy = all(getattr(kept, name) == getattr(entry, name) for name in ('patient', 'fields', 'official_split'))
      duplicates.append(reject(entry, root, f'duplicate image_id{"" if is_copy else " with other values"}'))
  return list(first.values()), duplicates


def reject(entry: dataset.Entry, root: pathlib.Path, reason: str) -> dataset.Reject:
  return dataset.Reject(entry.image_id, entry.path.relative_to(root).as_posix(), reason)


def generate_records(
    builder: tfds.core.GeneratorBasedBuilder, split: str, root: pathlib.Path,
    entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (image_id, record) of the readable entries; adds the others to `builder.rejects` and writes rejects.csv.

  Raises:
    TooManyRejects: more than the tolerated fraction of the archive is bad, or no image of this split can be read.
  """
  make, unreadable = record_maker(builder), 0
  title = f'{builder.name} {split}'
  with (futures.ThreadPoolExecutor(WORKERS) as pool,
        tqdm.tqdm(total=len(entries), desc=title, unit=' images', disable=None, leave=False) as bar):
    for entry, record in map_with_prefetch(pool, make, entries):
      bar.update()
      if isinstance(record, decoded.Unreadable):
        builder.rejects.append(reject(entry, root, str(record)))
        check_rejects(builder)
        unreadable += 1
      else:
        yield entry.image_id, record
  if unreadable == len(entries):  # TFDS would fail too, but without the reason
    raise TooManyRejects(
      f'{title}: none of its {unreadable} images in {root} can be read; last: {builder.rejects[-1]}')
  write_rejects(builder)


def record_maker(
    builder: tfds.core.GeneratorBasedBuilder) -> Callable[[dataset.Entry], dict[str, Any] | decoded.Unreadable]:
  """make_record for one builder, with only the entry left to pass. It pickles, so other processes can run it."""
  features = builder.info.features
  return functools.partial(make_record, source=builder.name, size=builder.builder_config.name,
                           has_mask='mask' in features, has_boxes='objects' in features)


def map_with_prefetch(
    pool: futures.Executor, make: Callable[[dataset.Entry], Any],
    entries: Iterable[dataset.Entry]) -> Iterator[tuple[dataset.Entry, Any]]:
  """Yields (entry, make(entry)) in order, while the pool works on the next PREFETCH entries."""
  waiting: collections.deque = collections.deque()
  for entry in entries:
    waiting.append((entry, pool.submit(make, entry)))
    if len(waiting) == PREFETCH:
      entry, record = waiting.popleft()
      yield entry, record.result()
  for entry, record in waiting:
    yield entry, record.result()


def make_record(
    entry: dataset.Entry, source: str, size: str, has_mask: bool,
    has_boxes: bool) -> dict[str, Any] | decoded.Unreadable:
  """The record of one entry, as `dataset.dataset_info` describes it. Returns, not raises, Unreadable."""
  try:
    image, shape = images.read_stored(entry.path, dataset.SIZES[size], keep_jpeg=size == 'original')
    record = {
      'image': image, 'image_id': entry.image_id, 'patient': f'{source}:{entry.patient}', 'study': '',
      'source': source, 'part': '', 'view': '', 'sex': '', 'age': dataset.UNKNOWN_AGE, **entry.fields,
    }
    if has_mask:
      mask = entry.mask() if entry.mask else np.full(shape, label_columns.UNANNOTATED, np.uint8)
      record['mask'] = images.encode(images.fit_mask(mask, shape, entry.mask_stretch))
  except decoded.Unreadable as error:
    return error
  if record['study']:
    record['study'] = f'{source}:{record["study"]}'
  if has_boxes:
    record['objects'] = [
      {'box': tfds.features.BBox(ymin=y0, xmin=x0, ymax=y1, xmax=x1), 'class_id': class_name}
      for class_name, y0, x0, y1, x1 in entry.objects]
  return record


def check_masks(builder: tfds.core.GeneratorBasedBuilder, path: pathlib.Path) -> None:
  """Reads the masks that were written to `path`, until one marks something.

  Raises:
    EmptyMasks: none does, although the archive has masks. Nothing is left behind.
  """
  rejected = {reject.image_id: reject for reject in builder.rejects}
  with_mask = [entry.image_id for entry in builder.entries if entry.mask]
  masked = [image_id for image_id in with_mask if image_id not in rejected]
  if not with_mask:
    return
  if not masked:
    shutil.rmtree(path)
    reject = rejected[with_mask[0]]
    raise EmptyMasks(f'{builder.name}: all of its {len(with_mask)} images with a mask are rejected, such as '
                     f'{reject.path or reject.image_id}: {reject.reason}')
  written = tfds.builder_from_directory(path)
  for split in splits.FRACTIONS:
    for raw in index.scan(written, split):
      mask = images.decode_stored(index.parse(written, raw)['mask'])
      if ((mask > 0) & (mask != label_columns.UNANNOTATED)).any():
        return
  shutil.rmtree(path)
  raise EmptyMasks(f'{builder.name}: all of its {len(masked)} masks are empty, such as that of {masked[0]}: every '
                   'pixel is background or not annotated. See "What is read" in docs/own-data.md for what a mask may '
                   'hold')


def check_rejects(builder: tfds.core.GeneratorBasedBuilder) -> None:
  """Counts the rejects by reason in the metadata and logs the last one.

  Raises:
    TooManyRejects: more than the tolerated fraction.
  """
  rejects = builder.rejects
  counts = dict(collections.Counter(reject.reason.split(':')[0] for reject in rejects))
  builder.info.metadata['rejects'] = counts
  tolerated = getattr(builder, 'tolerated', TOLERATED)
  if len(rejects) > tolerated * builder.total:
    some = '; '.join(f'{reject.path or reject.image_id}: {reject.reason}' for reject in rejects[:3])
    raise TooManyRejects(
      f'{builder.name}: {len(rejects)} of {builder.total} items are bad {counts}, more than the tolerated fraction '
      f'{tolerated}. First: {some}. Complete the archive, or accept the loss with --tolerated FRACTION')
  if rejects:
    log.warning('%s: %d rejected so far, last: %s', builder.name, len(rejects), rejects[-1])


def write_rejects(builder: tfds.core.GeneratorBasedBuilder) -> None:
  """Writes rejects.csv beside the records. TFDS renames the unfinished folder with it at the end."""
  with open(pathlib.Path(builder.data_dir, 'rejects.csv'), 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    table.writerow(['image_id', 'path', 'reason'])
    table.writerows(sorted(dataclasses.astuple(reject) for reject in builder.rejects))


def summarise(path: str | os.PathLike[str]) -> str:
  """A few lines on a prepared dataset: images per split, size, rejects, images left out, patients in two splits."""
  info = tfds.builder_from_directory(path).info
  counts = ', '.join(f'{name} {split.num_examples:,}' for name, split in info.splits.items())
  lines = [f'{path}: {counts} images, {info.dataset_size / 2**20:,.1f} MiB']
  lines += [f'  {line}' for line in [
    *list_missing_images(info.metadata), *list_official_split(path), *list_shared_patients(path)]]
  return '\n'.join(lines)


def list_official_split(path: str | os.PathLike[str]) -> list[str]:
  """A line with the images of the archive's own split, which is not the one that the records are stored in."""
  counts = collections.Counter(row['official'] for row in index.read(path) if row['official'])
  shown = ', '.join(f'{name} {counts[name]:,}' for name in splits.FRACTIONS if counts[name])
  return [f'with data.split=official: {shown} images'] if shown else []


def list_shared_patients(path: str | os.PathLike[str]) -> list[str]:
  """A line if the official split has patients in more than one split."""
  rows = [row for row in index.read(path) if row['official']]
  patient_of, split_of = ({row['image_id']: row[column] for row in rows} for column in ('patient', 'official'))
  shared = splits.count_shared_patients(patient_of, split_of)
  return [f'with data.split=official only: {shared:,} patients have images in more than one split '
          f'({splits.describe_shared_patients(patient_of, split_of)}); they stay where the archive puts them'
          ] if shared else []


def list_missing_images(metadata: Mapping[str, Any]) -> list[str]:
  """How many images of the archive were rejected or left out and why, as printed lines."""
  return [f'{title}: {count:,} {reason}'
          for title, table in (('rejected (see rejects.csv)', 'rejects'), ('left out', 'left_out'))
          for reason, count in metadata[table].items()]
