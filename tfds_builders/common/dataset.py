"""The record schema that all builders share, and the way from a list of images to stored records."""
import collections
import csv
import dataclasses
import functools
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_builders.common import archives, images, splits

VERSION = tfds.core.Version('1.0.0')
SIZES: dict[str, int | None] = {'256': 256, '512': 512, 'original': None}  # config name -> longer side at most, pixels
CONFIGS = [  # the first is the default
  tfds.core.BuilderConfig(name='256', description='longer side at most 256 pixels'),
  tfds.core.BuilderConfig(name='512', description='longer side at most 512 pixels'),
  tfds.core.BuilderConfig(name='original', description='pixels as in the archive'),
]
TOLERATED = 0.05  # fraction of an archive that may be rejected before the build fails
UNKNOWN_AGE = math.nan
UNANNOTATED = 255  # mask value of pixels that nobody annotated
MAX_TEXT = 300  # characters of a text field in a record or reject
WORKERS = min(32, os.cpu_count() or 1)  # decoding threads; Pillow, OpenCV and zlib release the GIL
PREFETCH = 4 * WORKERS  # images decoded ahead; limits memory

log = logging.getLogger(__name__)


class TooManyRejects(ValueError):
  """A larger fraction of the archive is bad than is tolerated."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One image of an archive with its labels, before its pixels are read.

  Attributes:
    image_id: unique within the dataset.
    patient: unique within the archive. The record prefixes it with the dataset's name.
    path: of the image file.
    stratum: the label that the patient split is stratified by.
    fields: further record fields: study, part, view, sex, age, present, label_mask, value.
    mask: function that reads the HW uint8 mask. The mask may have any size; it is resized to the image. None means
      that no pixel is annotated, if other images of the dataset have masks.
    objects: ((class_name, y0, x0, y1, x1), ...) with coordinates from 0 to 1.
    paper_group: the class within which the split rule `paper` draws. None excludes the image, as the paper did.
    official_split: 'train', 'validation' or 'test' as the archive itself splits; '' if it does not.
  """
  image_id: str
  patient: str
  path: pathlib.Path
  stratum: str = ''
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  mask: Callable[[], np.ndarray] | None = None
  objects: tuple = ()
  paper_group: str | None = ''
  official_split: str = ''


@dataclasses.dataclass(frozen=True)
class Reject:
  """Something in an archive that did not become part of a record.

  Rejects are counted by the text of `reason` before its first colon. All three texts may come from the archive, so
  control characters are escaped and each text is cut to MAX_TEXT characters.
  """
  image_id: str
  path: str
  reason: str

  def __post_init__(self) -> None:
    for name, text in dataclasses.asdict(self).items():
      object.__setattr__(self, name, archives.escape(text)[:MAX_TEXT])


# What a builder reads from an archive: entries, rejects, {reason: images left out on purpose}.
Contents = tuple[list[Entry], list[Reject], dict[str, int]]


def dataset_info(
    builder: tfds.core.DatasetBuilder, homepage: str, findings: Sequence[str] = (),
    value: Mapping[str, str] | None = None, mask: Sequence[str] = (), box_classes: Sequence[str] = (),
    relation: str = 'independent', **notes: Any) -> tfds.core.DatasetInfo:
  """DatasetInfo of a builder, which defines the record schema.

  Every record has these fields:

  | field | type | meaning |
  |---|---|---|
  | `image` | (H, W, 1) uint8, PNG | one grey channel, bone bright |
  | `image_id` | text | unique within the dataset |
  | `patient` | text | `<source>:<patient>`; all images of one patient share it |
  | `study` | text | `<source>:<study>`; '' if unknown |
  | `source` | text | name of the dataset |
  | `part` | text | body part, such as 'chest' or 'hand'; '' if unknown |
  | `view` | text | projection, such as 'PA'; '' if unknown |
  | `sex` | text | 'F', 'M' or '' |
  | `age` | float32 | years; NaN if unknown |

  A record also has the fields of the annotations that its dataset has:

  | field | type | meaning | in datasets with |
  |---|---|---|---|
  | `present` | (T,) float32 | 1 if finding t is present, else 0; 0 if unknown | `findings` |
  | `label_mask` | (T,) bool | whether the label of finding t is known | `findings` |
  | `value` | (1,) float32 | regression target, in the unit given in the metadata | `value` |
  | `mask` | (H, W, 1) uint8, PNG | 0 is background, 1, 2, ... are classes, 255 is not annotated | `mask` |
  | `objects` | sequence of `{box, class_id}` | `box` is (y0, x0, y1, x1), from 0 to 1 | `box_classes` |

  TFDS reads `objects` back as `{'box': (N, 4) float32, 'class_id': (N,) int64}`.

  Args:
    builder: the TFDS builder.
    homepage: URL of the archive.
    findings: names of the T findings.
    value: {'name': str, 'unit': str} of the regression target.
    mask: names of the mask classes, background first.
    box_classes: names of the box classes; `class_id` indexes them.
    relation: of the findings. 'independent': any number may be present. 'exclusive': exactly one is present.
      'ordinal': exactly one is present, and they are listed from least to most severe.
    notes: further metadata entries.

  Returns:
    The metadata always has `findings`, `relation`, `value`, `mask`, `box_classes`, `size` and `split`, empty where
    unused. After the build it also has `archive`, `rejects` and `left_out`.
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
      box_classes=list(box_classes), size=builder.builder_config.name,
      split={'rule': splits.PATIENT_RULE, 'seed': splits.SEED}, **notes))


def split_generators(
    builder: tfds.core.GeneratorBasedBuilder, archive: archives.Archive, manual_dir: str | os.PathLike[str],
    read_archive: Callable[[pathlib.Path, dict[str, int]], Contents]) -> dict[str, Any]:
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
  entries, rejects, left_out = read_archive(root, files)
  builder.info.metadata.update(archive=archives.fingerprint(root, files), left_out=left_out)
  entries, garbled = drop_garbled(entries)
  entries, duplicates = drop_duplicates(entries)
  builder.rejects = [*rejects, *garbled, *duplicates]
  builder.total = len(entries) + len(builder.rejects)
  check_rejects(builder)
  split_of = splits.split_by_patient((entry.patient, entry.stratum) for entry in entries)
  builder.split_rules = {
    'paper': splits.split_by_paper((entry.image_id, entry.paper_group) for entry in entries),
    'official': {entry.image_id: entry.official_split for entry in entries if entry.official_split}}
  by_split = {split: [entry for entry in entries if split_of[entry.patient] == split] for split in splits.FRACTIONS}
  empty = [split for split in by_split if not by_split[split]]
  if empty:
    raise ValueError(f'{builder.name}: {root} holds {len(entries)} images of {len(split_of)} patients, which leaves '
                     f'{empty} empty. A split by patient needs at least three patients.')
  return {split: builder._generate_examples(split, root, by_split[split]) for split in by_split}


def drop_garbled(entries: Iterable[Entry]) -> tuple[list[Entry], list[Reject]]:
  """Rejects entries without an image or patient name, and those whose texts are too long or not one line each."""
  good, garbled = [], []
  for entry in entries:
    texts = [entry.image_id, entry.patient, *(text for text in entry.fields.values() if isinstance(text, str))]
    if not entry.image_id.strip() or not entry.patient.strip():
      garbled.append(Reject(entry.image_id, entry.path.name, 'empty image or patient name'))
    elif any(archives.GARBLED.search(text) or len(text) > MAX_TEXT for text in texts):
      garbled.append(Reject(entry.image_id, entry.path.name, 'text with control characters or too long'))
    else:
      good.append(entry)
  return good, garbled


def drop_duplicates(entries: Iterable[Entry]) -> tuple[list[Entry], list[Reject]]:
  """Keeps the first entry of each image_id and rejects the others."""
  first: dict[str, Entry] = {}
  duplicates = []
  for entry in entries:
    if first.setdefault(entry.image_id, entry) is not entry:
      duplicates.append(Reject(entry.image_id, entry.path.name, 'duplicate image_id'))
  return list(first.values()), duplicates


def generate_records(
    builder: tfds.core.GeneratorBasedBuilder, split: str, root: pathlib.Path,
    entries: Sequence[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
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
      if isinstance(record, images.Unreadable):
        path = entry.path.relative_to(root).as_posix()
        builder.rejects.append(Reject(entry.image_id, path, str(record)))
        check_rejects(builder)
        unreadable += 1
      else:
        yield entry.image_id, record
  if unreadable == len(entries):  # TFDS would fail too, but without the reason
    raise TooManyRejects(
      f'{title}: none of its {unreadable} images in {root} can be read; last: {builder.rejects[-1]}')
  write_rejects(builder)


def record_maker(builder: tfds.core.GeneratorBasedBuilder) -> Callable[[Entry], dict[str, Any] | images.Unreadable]:
  """make_record for one builder, with only the entry left to pass. It pickles, so other processes can run it."""
  features = builder.info.features
  return functools.partial(make_record, source=builder.name, size=builder.builder_config.name,
                           has_mask='mask' in features, has_boxes='objects' in features)


def map_with_prefetch(
    pool: futures.Executor, make: Callable[[Entry], Any],
    entries: Iterable[Entry]) -> Iterator[tuple[Entry, Any]]:
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
    entry: Entry, source: str, size: str, has_mask: bool, has_boxes: bool) -> dict[str, Any] | images.Unreadable:
  """The record of one entry, as `dataset_info` describes it. Returns, not raises, Unreadable."""
  try:
    image, shape = images.read_stored(entry.path, SIZES[size], keep_jpeg=size == 'original')
    record = {
      'image': image, 'image_id': entry.image_id, 'patient': f'{source}:{entry.patient}', 'study': '',
      'source': source, 'part': '', 'view': '', 'sex': '', 'age': UNKNOWN_AGE, **entry.fields,
    }
    if has_mask:
      mask = entry.mask() if entry.mask else np.full((1, 1), UNANNOTATED, np.uint8)
      record['mask'] = images.encode(images.fit_mask(mask, shape))
  except images.Unreadable as error:
    return error
  if record['study']:
    record['study'] = f'{source}:{record["study"]}'
  if has_boxes:
    record['objects'] = [
      {'box': tfds.features.BBox(ymin=y0, xmin=x0, ymax=y1, xmax=x1), 'class_id': class_name}
      for class_name, y0, x0, y1, x1 in entry.objects]
  return record


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
