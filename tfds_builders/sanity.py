"""Reports what an expert checks first in a prepared dataset: polarity, labels, masks, boxes, sizes, copies of images.

`build` and `inspect` print the report. It ends with the warnings of `sanity_rules`. Pixels are checked on a sample.
"""
import collections
import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_builders import sanity_rules
from tfds_builders.common import alignment, fingerprints, images, index, label_columns, polarity, published, splits

SPLITS = tuple(splits.FRACTIONS)
# Images whose pixels are checked, at most, by size. At 256 and 512 px an image takes 1 ms; an original may take 0.3 s.
SAMPLES = {'256': 2_000, '512': 2_000, 'original': 200}
MAX_ALIGNED = 500  # masks whose edges are compared with the image; limits memory to 16 MB
BLANK = 4  # grey levels between the darkest and the brightest pixel of a thumbnail; in real images at least 103
WIDTH = 110  # characters of a printed line


class Report:
  """Collects the values of a dataset's records and describes them.

  Attributes:
    name, metadata: of the dataset.
    total: records of the dataset.
    records: records added so far.
    per_patient: {patient: images}, of all records.
    present: {split: [(F,) float, ...]}; NaN if unknown.
    values: regression values.
    boxes: (N, 4) of each image with boxes.
    pixels: values of each sampled image, see `measure`.
    edges: of image and mask, for `alignment`.
    contrasts: (8,) of each sampled image with boxes, see `alignment.compare_boxes`.
  """

  def __init__(self, path: str | os.PathLike[str]) -> None:
    info, rows = tfds.builder_from_directory(path).info, index.read(path)
    self.name, self.metadata, self.total = info.name, info.metadata, len(rows)
    self.per_patient = collections.Counter(row['patient'] for row in rows)
    self.step = -(-self.total // SAMPLES[self.metadata['size']])  # every step-th record is in the sample
    self.records = 0
    self.present: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    self.values: list[float] = []
    self.boxes: list[np.ndarray] = []
    self.pixels: list[dict[str, Any]] = []
    self.edges: list[tuple[np.ndarray, np.ndarray]] = []
    self.contrasts: list[np.ndarray] = []

  def add(self, split: str, position: int, record: Mapping[str, Any]) -> None:
    """Adds a record, whose image and mask are encoded. The order of stored records is random, and so is the sample."""
    self.records += 1
    if 'present' in record:
      self.present[split].append(np.where(record['label_mask'], record['present'], np.nan))
    if 'value' in record:
      self.values.append(float(record['value'][0]))
    if has_boxes(record):
      self.boxes.append(np.asarray(record['objects']['box']))
    if position % self.step == 0:
      self.pixels.append(self.measure(split, record))

  def measure(self, split: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes a record and measures its pixels."""
    image = images.decode_stored(record['image'])
    thumbnail = polarity.make_thumbnail(image)
    part = record['part'].decode()
    rule = polarity.choose_rule(part, record['view'].decode())
    measured = {
      'image_id': record['image_id'].decode(), 'split': split, 'part': part, 'shape': image.shape, 'rule': rule,
      'inverted': rule is not None and polarity.looks_inverted(thumbnail, rule),
      'pattern': polarity.describe_pattern(thumbnail), 'blank': int(np.ptp(thumbnail)) <= BLANK,
      'fingerprint': fingerprints.fingerprint(image),
      **{name: float(thumbnail[polarity.REGIONS[name]].mean()) for name in ('border', 'centre')}}
    if has_boxes(record):
      self.contrasts.append(alignment.compare_boxes(thumbnail, record['objects']['box']))
    if 'mask' in record:
      measured |= self.measure_mask(images.decode_stored(record['mask']), thumbnail)
    return measured

  def measure_mask(self, mask: np.ndarray, thumbnail: np.ndarray) -> dict[str, Any]:
    """Coverage of each class and of the border; nothing for a mask without an annotated pixel."""
    counts = np.bincount(mask.ravel(), minlength=256)
    annotated = mask.size - int(counts[label_columns.UNANNOTATED])
    if not annotated:
      return {}
    foreground = (mask > 0) & (mask < label_columns.UNANNOTATED)
    if annotated == mask.size and len(self.edges) < MAX_ALIGNED:
      edges = alignment.mask_edges(foreground)
      if edges is not None:
        self.edges.append((alignment.image_edges(thumbnail), edges))
    border = np.concatenate([foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1]])
    return {'coverage': counts[1:len(self.metadata['mask'])] / annotated, 'on_border': float(border.mean())}

  def count_inverted(self) -> list[tuple[str, int, float]]:
    """[(rule, sampled images it applies to, share that looks inverted), ...]"""
    counts = collections.Counter(image['rule'] for image in self.pixels if image['rule'])
    return [(rule, count, sum(image['inverted'] for image in self.pixels if image['rule'] == rule) / count)
            for rule, count in sorted(counts.items())]

  def find_negatives(self) -> np.ndarray:
    """(N,) bool: sampled images that look like negatives of the others of their body part, by pattern and by rule."""
    found = np.zeros(len(self.pixels), bool)
    parts = np.array([image['part'] for image in self.pixels])
    for part in sorted(set(parts)):
      rows = np.flatnonzero(parts == part)
      if len(rows) >= sanity_rules.MIN_IMAGES:
        inverted = np.array([self.pixels[row]['inverted'] for row in rows])
        negative = polarity.find_negatives(np.stack([self.pixels[row]['pattern'] for row in rows]))
        # The rule must agree: a bone that lies across has the opposite pattern of an upright one, but is no negative.
        found[rows] = negative & (inverted != (inverted[~negative].mean() > 0.5))
    return found

  def find_copies(self) -> tuple[int, int]:
    """(pairs of nearly the same image in the sample, pairs that are in different splits)."""
    prints = (np.array([image['fingerprint'][0] for image in self.pixels], np.uint64),
              np.stack([image['fingerprint'][1] for image in self.pixels]))
    pairs = [(i, j) for i, j in zip(*fingerprints.find_matches(prints, prints)[:2], strict=True) if i < j]
    return len(pairs), sum(self.pixels[i]['split'] != self.pixels[j]['split'] for i, j in pairs)

  def measure_prevalence(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(share of the known labels that are 1, known labels), each (F,), over some splits. NaN if none is known."""
    rows = [row for split in names for row in self.present.get(split, ())]
    labels = np.stack(rows) if rows else np.full((1, len(self.metadata['findings'])), np.nan)
    known = (~np.isnan(labels)).sum(0)
    return np.where(known, np.nansum(labels, 0) / np.maximum(known, 1), np.nan), known

  def stack_coverage(self) -> np.ndarray:
    """(annotated masks, classes without background): share of the annotated pixels."""
    return np.array([image['coverage'] for image in self.pixels if 'coverage' in image])

  def measure_boxes(self) -> tuple[np.ndarray, np.ndarray, float]:
    """((N, 4) boxes, (N,) share of the image that each covers, share that ends at the right or lower edge)."""
    boxes = np.concatenate(self.boxes)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes, areas, float((boxes[:, 2:] >= 1).any(1).mean())

  def describe(self) -> list[str]:
    """The report as printed lines, warnings last."""
    lines = [self.describe_sample(), *self.describe_pixels(), *self.describe_labels(), *self.describe_masks(),
             *self.describe_boxes()]
    warnings = [f'WARNING: {warning}' for warning in sanity_rules.warn(self)]
    if warnings:
      warnings.append(f'Look at the images before you train: python -m tfds_builders.inspect {self.name} '
                      '--data_dir DIR --sheet sheet.png')
    return [part for line in lines + warnings
            for part in textwrap.wrap(line, WIDTH, subsequent_indent='  ', break_long_words=False)]

  def describe_sample(self) -> str:
    about = published.ARCHIVES.get(self.name)
    whole = f'; the public archive has {published.format_images(about)}' if about else ''
    return (f'check of {self.total:,} images, pixels of {len(self.pixels):,}{whole}; images per patient, median '
            f'(range): {format_range(list(self.per_patient.values()))}')

  def describe_pixels(self) -> list[str]:
    if not self.pixels:
      return []
    inverted = ', '.join(f'{share:.1%} of {count:,} by the rule {rule}' for rule, count, share in self.count_inverted())
    border, centre = (statistics.median(image[name] for image in self.pixels) for name in ('border', 'centre'))
    copies, across = self.find_copies()
    shapes = sorted((image['shape'] for image in self.pixels), key=lambda shape: (shape[0] * shape[1], shape))
    (low, narrow), (high, wide) = shapes[0], shapes[-1]
    aspects = [width / height for height, width in shapes]
    return [f'look inverted: {inverted or "not checked"}; negatives of the others: {self.find_negatives().mean():.1%}',
            f'median brightness from 0 to 255: border {border:.0f}, centre {centre:.0f}; blank images: '
            f'{sum(image["blank"] for image in self.pixels):,}; nearly the same image: {copies:,} '
            f'pair{"s" * (copies != 1)}, {across:,} across splits',
            f'height x width, smallest {low} x {narrow}, largest {high} x {wide}; width by height '
            f'{min(aspects):.2f} to {max(aspects):.2f}']

  def describe_labels(self) -> list[str]:
    lines = []
    if self.present:
      shares = [self.measure_prevalence([split])[0] for split in SPLITS]
      lines.append('present in train/validation/test, % of known labels: ' + ', '.join(
        f'{name} {"/".join(format_per_cent(share[number]) for share in shares)}'
        for number, name in enumerate(self.metadata['findings'])))
    if self.values:
      lines.append(f'{self.metadata["value"]["name"]}, median (range): {format_range(self.values)}')
    return lines

  def describe_masks(self) -> list[str]:
    coverage = self.stack_coverage()
    if not len(coverage):
      return ['masks: none'] if self.metadata['mask'] else []
    classes = [f'{name} {np.median(covered):.1%} ({covered.min():.1%} to {covered.max():.1%})'
               for name, covered in zip(self.metadata['mask'][1:], coverage.T, strict=True)]
    return [f'masks: {len(coverage):,}, {(coverage.sum(1) == 0).mean():.1%} of them empty; coverage of the image, '
            f'median (range): {", ".join(classes)}']

  def describe_boxes(self) -> list[str]:
    if not self.boxes:
      return ['boxes: none'] if self.metadata['box_classes'] else []
    boxes, areas, cut = self.measure_boxes()
    return [f'boxes: {len(boxes):,} on {len(self.boxes):,} of {self.records:,} images; coverage of the image, median '
            f'(range): {np.median(areas):.1%} ({areas.min():.2%} to {areas.max():.1%}); at the right or lower edge: '
            f'{cut:.1%}']


def has_boxes(record: Mapping[str, Any]) -> bool:
  return 'objects' in record and len(record['objects']['box']) > 0


def format_range(numbers: Sequence[float]) -> str:
  """'median (min-max)', '' for no numbers."""
  return f'{statistics.median(numbers):g} ({min(numbers):g}-{max(numbers):g})' if numbers else ''


def format_per_cent(share: float) -> str:
  return '-' if np.isnan(share) else f'{100 * share:.3g}'


def check(path: str | os.PathLike[str]) -> Report:
  """The report of a prepared version from its sampled records alone; shows a progress bar."""
  report, builder = Report(path), tfds.builder_from_directory(path)
  with tqdm.tqdm(total=-(-report.total // report.step), desc=f'check {report.name}', unit=' images', disable=None,
                 leave=False) as bar:
    for split in SPLITS:
      source = builder.as_data_source(split, deserialize_method=index.RAW)
      for position in range(0, len(source), report.step):
        report.add(split, position, index.parse(builder, source[position]))
        bar.update()
  return report
