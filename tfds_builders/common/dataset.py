"""What all builders share: the one record schema, and the way from a list of images to records."""
import collections
import csv
import dataclasses
import functools
import logging
import math
import os
import pathlib
from collections.abc import Callable
from concurrent import futures

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_builders.common import archives, images, splits

VERSION = tfds.core.Version('1.0.0')
SIZES = {'256': 256, '512': 512, 'original': None}  # builder config: pixels of the longer side at most
CONFIGS = [  # the first is the default
  tfds.core.BuilderConfig(name='256', description='longer side at most 256 pixels'),
  tfds.core.BuilderConfig(name='512', description='longer side at most 512 pixels'),
  tfds.core.BuilderConfig(name='original', description='pixels as in the archive'),
]
TOLERATED = 0.05  # share of an archive that may be bad before a build fails
UNKNOWN_AGE = math.nan
UNANNOTATED = 255  # in masks
LINE = 300  # characters of a text in a record or reject
WORKERS = min(32, os.cpu_count() or 1)  # threads that decode; Pillow, OpenCV and zlib let go of the interpreter lock
AHEAD = 4 * WORKERS  # images read ahead; bounds what waits in memory

log = logging.getLogger(__name__)


class TooManyRejects(ValueError):
  """More of an archive is bad than is tolerated."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One image of an archive, before its pixels are read.

  Attributes:
    image_id: unique in the dataset.
    patient: unique in the archive; the source is put before it in records.
    path: of the image file.
    stratum: label the splits are balanced by.
    fields: further fields of the record: study, part, view, sex, age, present, known, value.
    mask: reads the HW uint8 mask; any size, brought to the image's. Where others of the dataset have one and this
      image has none, nothing of it is annotated.
    objects: ((kind, y0, x0, y1, x1), ...), the box relative to the image.
    group: class within which the rule `paper` splits; None if the papers left the image out.
    official: 'train', 'validation' or 'test' as the archive itself splits, '' where it does not.
  """
  image_id: str
  patient: str
  path: pathlib.Path
  stratum: str = ''
  fields: dict = dataclasses.field(default_factory=dict)
  mask: Callable | None = None
  objects: tuple = ()
  group: str | None = ''
  official: str = ''


@dataclasses.dataclass(frozen=True)
class Reject:
  """Something of an archive that did not become part of a record; the reason is counted up to its first colon.

  What cannot be printed is escaped and what is longer than LINE cut: names and cells of an archive may hold anything.
  """
  image_id: str
  path: str
  reason: str

  def __post_init__(self):
    for name, text in dataclasses.asdict(self).items():
      object.__setattr__(self, name, archives.escape(text)[:LINE])


def describe(builder, homepage, findings=(), value=None, mask=(), box_classes=(), relation='independent', **notes):
  """DatasetInfo of a builder: the fields every record has, and those of the annotations this dataset has.

  | field | type | meaning |
  |---|---|---|
  | image | HW1 uint8, PNG | one grey channel |
  | image_id, patient, study | text | patient and study begin with the source; study is '' where unknown |
  | source, part, view | text | dataset; part of the body; projection, '' where unknown |
  | sex, age | text, float32 | 'F', 'M' or ''; years, NaN where unknown |
  | present, known | (T,) float32, (T,) bool | T findings, 0 or 1; present is 0 where it is not known |
  | value | (1,) float32 | |
  | mask | HW1 uint8, PNG | 0 background, 1... classes, 255 not annotated |
  | objects | list of {box, kind} | box (y0, x0, y1, x1) in 0-1; TFDS reads it as {'box': [...], 'class_id': [...]} |

  Args:
    findings: names of the T findings.
    value: {'name': str, 'unit': str}.
    mask: names of the classes of a mask from 0 on.
    box_classes: names of the classes of boxes.
    relation: of the findings: 'independent', any may be present; 'exclusive', exactly one is; 'ordinal', exactly one
      is, and their order means more and more.
    notes: further entries of the metadata, which has `findings`, `relation`, `value`, `mask`, `box_classes`, `size` and
      `split` whether used or not, and after a build `archive`, `rejects` and `left_out`.
  """
  features = tfds.features
  fields = {
    'image': features.Image(shape=(None, None, 1), encoding_format='png'),
    **{name: features.Text() for name in ('image_id', 'patient', 'study', 'source', 'part', 'view', 'sex')},
    'age': features.Scalar(np.float32),
  }
  if findings:
    fields['present'] = features.Tensor(shape=(len(findings),), dtype=np.float32)
    fields['label_mask'] = features.Tensor(shape=(len(findings),), dtype=np.bool_)
  if value:
    fields['value'] = features.Tensor(shape=(1,), dtype=np.float32)
  if mask:
    fields['mask'] = features.Image(shape=(None, None, 1), encoding_format='png')
  if box_classes:
    fields['objects'] = features.Sequence(
      {'box': features.BBoxFeature(), 'class_id': features.ClassLabel(names=list(box_classes))})
  return builder.dataset_info_from_configs(
    features=features.FeaturesDict(fields), homepage=homepage,
    metadata=tfds.core.MetadataDict(
      findings=list(findings), relation=relation, value=dict(value or {}), mask=list(mask),
      box_classes=list(box_classes),
      size=builder.builder_config.name, split={'rule': splits.RULE, 'seed': splits.SEED}, **notes))


def generate(builder, archive, manual_dir, read):
  """The split generators of a builder.

  Args:
    read: function (root, {relative path: bytes}) -> (entries, rejects, {reason: number left out}).

  Returns:
    {'train': examples, 'validation': examples, 'test': examples}
  """
  root = archives.find(archive, manual_dir)
  listed = archives.list_files(archive, root)
  entries, rejects, left_out = read(root, listed)
  builder.info.metadata.update(archive=archives.fingerprint(root, listed), left_out=left_out)
  entries, garbled = drop_garbled(entries)
  entries, twice = drop_doubles(entries)
  builder.rejects = [*rejects, *garbled, *twice]
  builder.total = len(entries) + len(builder.rejects)
  account(builder)
  side = splits.split_by_patient((entry.patient, entry.stratum) for entry in entries)
  builder.rules = {
    'paper': splits.split_by_paper((entry.image_id, entry.group) for entry in entries),
    'official': {entry.image_id: entry.official for entry in entries if entry.official}}
  dealt = {split: [entry for entry in entries if side[entry.patient] == split] for split in splits.SHARES}
  empty = [split for split in dealt if not dealt[split]]
  if empty:
    raise ValueError(f'{builder.name}: {len(entries)} images of {len(side)} patients in {root} leave {empty} empty; '
                     'a split by patient needs three patients at least')
  return {split: builder._generate_examples(split, root, dealt[split]) for split in dealt}


def drop_garbled(entries):
  """Keeps the entries whose texts are one line each, and that name an image and a patient."""
  good, garbled = [], []
  for entry in entries:
    texts = [entry.image_id, entry.patient, *(text for text in entry.fields.values() if isinstance(text, str))]
    if not entry.image_id.strip() or not entry.patient.strip():
      garbled.append(Reject(entry.image_id, entry.path.name, 'no name of the image or patient'))
    elif any(archives.GARBLED.search(text) or len(text) > LINE for text in texts):
      garbled.append(Reject(entry.image_id, entry.path.name, 'text with control characters or without end'))
    else:
      good.append(entry)
  return good, garbled


def drop_doubles(entries):
  """Keeps the first entry of each image_id; the others become rejects."""
  first, twice = {}, []
  for entry in entries:
    if first.setdefault(entry.image_id, entry) is not entry:
      twice.append(Reject(entry.image_id, entry.path.name, 'duplicate image_id'))
  return list(first.values()), twice


def records(builder, split, root, entries):
  """Yields (image_id, record) of the entries that can be read; the others are added to the builder's rejects."""
  make, bad = fix_record(builder), 0
  title = f'{builder.name} {split}'
  with (futures.ThreadPoolExecutor(WORKERS) as pool,
        tqdm.tqdm(total=len(entries), desc=title, unit=' images', disable=None, leave=False) as bar):
    for entry, record in make_ahead(pool, make, entries):
      bar.update()
      if isinstance(record, images.Unreadable):
        path = entry.path.relative_to(root).as_posix()
        builder.rejects.append(Reject(entry.image_id, path, str(record)))
        account(builder)
        bad += 1
      else:
        yield entry.image_id, record
  if bad == len(entries):  # TFDS would fail, too, but not say why
    raise TooManyRejects(f'{title}: none of its {bad} images in {root} can be read; newest: {builder.rejects[-1]}')
  write_rejects(builder)


def fix_record(builder):
  """make_record with all but the entry fixed by the builder; pickles, so that it may go to other processes."""
  features = builder.info.features
  return functools.partial(make_record, source=builder.name, size=builder.builder_config.name,
                           masked='mask' in features, boxed='objects' in features)


def make_ahead(pool, make, entries):
  """Yields (entry, make(entry)) in order; the threads are at work on the next AHEAD, however slow a single one is."""
  waiting = collections.deque()
  for entry in entries:
    waiting.append((entry, pool.submit(make, entry)))
    if len(waiting) == AHEAD:
      entry, record = waiting.popleft()
      yield entry, record.result()
  for entry, record in waiting:
    yield entry, record.result()


def make_record(entry, source, size, masked, boxed):
  """One entry to one record as the schema has it; gives back, not raises, Unreadable."""
  try:
    image, shape = images.read_stored(entry.path, SIZES[size], keep_jpeg=size == 'original')
    record = {
      'image': image, 'image_id': entry.image_id, 'patient': f'{source}:{entry.patient}', 'study': '',
      'source': source, 'part': '', 'view': '', 'sex': '', 'age': UNKNOWN_AGE, **entry.fields,
    }
    if masked:
      mask = entry.mask() if entry.mask else np.full((1, 1), UNANNOTATED, np.uint8)
      record['mask'] = images.encode(images.fit_mask(mask, shape))
  except images.Unreadable as error:
    return error
  if record['study']:
    record['study'] = f'{source}:{record["study"]}'
  if boxed:
    record['objects'] = [
      {'box': tfds.features.BBox(ymin=y0, xmin=x0, ymax=y1, xmax=x1), 'class_id': kind}
      for kind, y0, x0, y1, x1 in entry.objects]
  return record


def account(builder):
  """Logs the newest reject, keeps the count by reason in the metadata, and stops the build at too many."""
  rejects = builder.rejects
  counts = dict(collections.Counter(reject.reason.split(':')[0] for reject in rejects))
  builder.info.metadata['rejects'] = counts
  tolerated = getattr(builder, 'tolerated', TOLERATED)
  if len(rejects) > tolerated * builder.total:
    some = '; '.join(f'{reject.path or reject.image_id}: {reject.reason}' for reject in rejects[:3])
    raise TooManyRejects(
      f'{builder.name}: {len(rejects)} of {builder.total} are bad {counts}, more than the tolerated share of '
      f'{tolerated}. First: {some}. Complete the archive, or build what there is with --tolerated')
  if rejects:
    log.warning('%s: %d bad so far, newest: %s', builder.name, len(rejects), rejects[-1])


def write_rejects(builder):
  """Lists the rejects in rejects.csv beside the records, in the unfinished folder until TFDS renames it."""
  with open(pathlib.Path(builder.data_dir, 'rejects.csv'), 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    table.writerow(['image_id', 'path', 'reason'])
    table.writerows(sorted(dataclasses.astuple(reject) for reject in builder.rejects))
