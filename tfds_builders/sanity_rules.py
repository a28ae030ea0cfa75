"""When the report of a dataset warns: thresholds, what they were chosen on, and the text of each warning.

Each threshold states what was measured on real radiographs and on phantoms of all archives, without and with variation
of exposures. None of these datasets gives a warning, except where it says so.
"""
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfds_builders.common import alignment, polarity, published, splits

if TYPE_CHECKING:
  from tfds_builders.sanity import Report

MIN_IMAGES = 10  # fewer images give no warning about a share of them
MIN_LABELS = 50  # fewer labels give no warning about their prevalence

# Shares of the images that a rule of `polarity` is for.
MAX_INVERTED = {'lungs': 0.25, 'centre': 0.4}  # real: at most 0 and 0.03; phantoms: 0 and 0.17
MAX_NEGATIVES = {'lungs': 0.03, 'centre': 0.1}  # real: 0 and 0.014, knees that truly are; phantoms: 0 and 0.05
MAX_COPIES = 0.05  # pairs across splits per image; real: 0; phantoms: 0
MIN_SIDE, MAX_ASPECT = 16, 8  # pixels, longer by shorter side; MURA has images of 89 x 512

MAX_EMPTY = 0.9  # share of the masks; 0.05 of the COVID opacities, 0.78 of SIIM-ACR's
MAX_COVERAGE, MAX_ON_BORDER = 0.5, 0.8  # medians, both; real: 0.23 and 0; phantoms: at most 0.46 and 0.07
MIN_SHIFT = 4  # pixels of 64 by which masks fit better; real: at most 1; phantoms: at most 2
MIN_Z = 4  # standard errors by which mirrored or turned masks fit better; real and phantoms: at most -2.5
OTHER_Z = -1  # standard errors by which the masks of other images fit better; real: at most -3.2; phantoms: -2.5

# Moved boxes are brighter than what is around them: standard deviations of the image, standard errors more than as they
# are. Real: at most 0.21; phantoms: 0.33 and 0.3.
MIN_CONTRAST, BOX_Z = 0.3, 6
CORNER = 0.6  # of height and width; real boxes reach to 0.90 or further, those of phantoms to 0.82
MAX_CUT = 0.5  # share of the boxes that end at the right or lower edge; real: at most 0.05; phantoms: 0.11
MAX_BOX = 0.9  # median coverage of the image; real: at most 0.29 (lungs)

MAX_PATIENT = 0.2  # share of at least MIN_LABELS images that are of one patient; real: at most 0.03; phantoms: 0.08
OUTLIER = 10  # interquartile ranges from the quartiles
# An archive is meant to be whole if it is large and more than half of it is there; a small part was chosen on purpose.
LARGE, HALF, COMPLETE = 1_000, 0.5, 0.95


def warn(report: 'Report') -> list[str]:
  """Warnings, each a line: what was measured, what is usual or right, and what to do."""
  checks = (warn_of_archive, warn_of_polarity, warn_of_images, warn_of_labels, warn_of_splits, warn_of_values,
            warn_of_masks, warn_of_alignment, warn_of_boxes, warn_of_moved_boxes)
  return [warning for check in checks for warning in check(report)]


def warn_of_archive(report: 'Report') -> Iterator[str]:
  about = published.ARCHIVES.get(report.name)
  if about and max(about.images) >= LARGE:
    nearest = min(about.images, key=lambda images: abs(images - report.total))
    if HALF <= report.total / nearest < COMPLETE:
      yield (f'{report.total:,} images, but the public archive has {published.format_images(about)}. Check that every '
             'part of the download is unpacked')
  patient, count = report.per_patient.most_common(1)[0]
  if report.total >= MIN_LABELS and count > MAX_PATIENT * report.total:
    yield (f'{count:,} of {report.total:,} images are of the patient {patient}. If they show different people, give '
           'each person an ID of their own')


def warn_of_polarity(report: 'Report') -> Iterator[str]:
  negatives = report.find_negatives()
  for rule, count, share in report.count_inverted():
    if count >= MIN_IMAGES and share > MAX_INVERTED[rule]:
      yield (f'{share:.0%} of {count:,} images look inverted: {polarity.SIGNS[rule]}. Bone must be bright: invert the '
             'files, or correct their photometric interpretation')
    names = [image['image_id'] for image, negative in zip(report.pixels, negatives, strict=True)
             if negative and image['rule'] == rule]
    if len(names) >= 3 and len(names) > MAX_NEGATIVES[rule] * count:
      yield (f'{len(names):,} of {count:,} images look like negatives of the others, such as {", ".join(names[:3])}. '
             'Bone must be bright in all of them: invert the files that differ')


def warn_of_images(report: 'Report') -> Iterator[str]:
  blank = [image['image_id'] for image in report.pixels if image['blank']]
  if blank:
    yield f'{len(blank):,} of {len(report.pixels):,} images are of one grey, such as {blank[0]}. Remove them'
  odd = [image for image in report.pixels
         if min(image['shape']) < MIN_SIDE or max(image['shape']) > MAX_ASPECT * min(image['shape'])]
  if odd:
    height, width = odd[0]['shape']
    yield (f'{len(odd):,} of {len(report.pixels):,} images are very small or narrow, such as {odd[0]["image_id"]} with '
           f'{height} x {width} pixels. Remove those that are no radiographs')
  across = report.find_copies()[1] if report.pixels else 0
  if across >= 3 and across > MAX_COPIES * len(report.pixels):
    yield (f'{across:,} pairs of nearly the same image are in different splits: give copies of an image the same '
           'patient. python -m tfds_builders.leakage lists them')


def warn_of_labels(report: 'Report') -> Iterator[str]:
  """Labels that are all the same in a user's own data, or far from an archive's if at least half of it is there."""
  about = published.ARCHIVES.get(report.name)
  shares, known = report.measure_prevalence(tuple(splits.FRACTIONS))
  for name, share, count in zip(report.metadata['findings'], shares, known, strict=True):
    if about is None and count >= MIN_LABELS and share in (0, 1):
      yield f'{name} is {"present" if share else "absent"} in all {count:,} images with a label: check the column'
    elif about and name in about.present and report.total >= HALF * about.images[0] and count >= MIN_LABELS:
      usual = about.present[name] / about.known.get(name, about.images[0])
      if is_far(share, usual, count) and not 2 / 3 < share / usual < 3 / 2:
        yield (f'{name} is present in {share:.1%} of the images; in the public archive it is in {usual:.1%}. Check '
               'that every part of the download is unpacked')


def warn_of_splits(report: 'Report') -> Iterator[str]:
  """Splits by patient are balanced, so a large difference means that labels depend on a few patients."""
  usual, known = report.measure_prevalence(['train'])
  for split in ('validation', 'test'):
    shares, counts = report.measure_prevalence([split])
    for number, name in enumerate(report.metadata['findings']):
      if (min(known[number], counts[number]) >= MIN_LABELS and abs(shares[number] - usual[number]) > 0.1
          and is_far(shares[number], usual[number], counts[number])):
        yield (f'{name} is present in {shares[number]:.0%} of the images of {split}, but in {usual[number]:.0%} of '
               'those of train: a few patients have most of the images')


def is_far(share: float, usual: float, count: int) -> bool:
  """Whether a share of `count` images differs from the usual one by more than five standard errors."""
  return abs(share - usual) > 5 * math.sqrt(usual * (1 - usual) / count)


def warn_of_values(report: 'Report') -> Iterator[str]:
  if len(report.values) < MIN_IMAGES:
    return
  name, about = report.metadata['value']['name'], published.ARCHIVES.get(report.name)
  low, high = np.percentile(report.values, (25, 75))
  reach = OUTLIER * (high - low)
  odd = [value for value in report.values if not low - reach <= value <= high + reach]
  if odd and reach:
    yield (f'{len(odd):,} of {len(report.values):,} values of {name} are far from the others, such as {odd[0]:g}; half '
           f'of all are from {low:g} to {high:g}. If such a number stands for unknown, remove its row')
  if about and about.values and not about.values[0] <= min(report.values) <= max(report.values) <= about.values[1]:
    yield (f'{name} is from {min(report.values):g} to {max(report.values):g}; in the public archive it is from '
           f'{about.values[0]:g} to {about.values[1]:g}. Check its unit')


def warn_of_masks(report: 'Report') -> Iterator[str]:
  coverage, classes = report.stack_coverage(), report.metadata['mask'][1:]
  if not len(coverage):
    if classes and report.pixels:
      yield f'none of {len(report.pixels):,} images has an annotated mask: check the names of the files'
    return
  empty = float((coverage.sum(1) == 0).mean())
  if empty > MAX_EMPTY and len(coverage) >= 3:
    numbers = ', '.join(f'{number} {name}' for number, name in enumerate(classes, 1))
    yield f'{empty:.0%} of {len(coverage):,} masks are empty. Pixels must be the numbers of the classes ({numbers})'
  elif len(coverage) >= MIN_IMAGES:
    for name, covered in zip(classes, coverage.T, strict=True):
      if not covered.any():
        yield f'no pixel of {len(coverage):,} masks is of the class {name}: check the numbers of the classes'
  covered = float(np.median(coverage.sum(1)))
  border = float(np.median([image['on_border'] for image in report.pixels if 'coverage' in image]))
  if covered > MAX_COVERAGE and border > MAX_ON_BORDER:
    yield (f'masks cover {covered:.0%} of the image and {border:.0%} of its border (medians): exchange background and '
           'foreground')


def warn_of_alignment(report: 'Report') -> Iterator[str]:
  """Masks in the wrong place. Of the transforms and shifts that fit clearly better, it names the best."""
  if len(report.edges) < MIN_IMAGES:
    return
  edges, masks = map(np.stack, zip(*report.edges, strict=True))
  fits = alignment.compare_transforms(edges, masks)
  own, best = fits[:, 0], int(fits.mean(0).argmax())
  dy, dx = alignment.find_shift(edges, masks)
  moved = alignment.move(edges, masks, dy, dx)
  far = max(abs(dy), abs(dx)) >= MIN_SHIFT and alignment.z_score(moved - own) > MIN_Z
  if alignment.z_score(fits[:, best] - own) > MIN_Z and not (far and moved.mean() > fits[:, best].mean()):
    yield (f'masks fit their images better {alignment.TRANSFORMS[best]}: check the orientation of images and masks')
  elif far:
    yield (f'masks fit their images better if they are moved by {dy / alignment.SIDE:+.0%} of the height and '
           f'{dx / alignment.SIDE:+.0%} of the width (positive is down and right)')
  elif (len(own) >= 3 * MIN_IMAGES
        and alignment.z_score(alignment.compare_images(edges, masks) - own) > OTHER_Z):
    yield 'masks fit other images as well as their own: check which mask belongs to which image'


def warn_of_boxes(report: 'Report') -> Iterator[str]:
  if len(report.boxes) < MIN_IMAGES:
    if not report.boxes and report.metadata['box_classes'] and report.records == report.total >= MIN_IMAGES:
      yield 'no image has a box: check the names of images and classes'
    return
  boxes, areas, cut = report.measure_boxes()
  lowest, rightmost = boxes[:, 2].max(), boxes[:, 3].max()
  if max(lowest, rightmost) <= CORNER:
    yield (f'all {len(boxes):,} boxes lie in the upper {lowest:.0%} and the left {rightmost:.0%} of the image. They '
           'may be in pixels of a smaller image')
  if cut > MAX_CUT:
    yield (f'{cut:.0%} of {len(boxes):,} boxes end at the right or lower edge of the image. They may be in pixels of a '
           'larger image')
  if np.median(areas) > MAX_BOX:
    yield f'boxes cover {np.median(areas):.0%} of the image (median): check that they are not whole images'


def warn_of_moved_boxes(report: 'Report') -> Iterator[str]:
  """Boxes of bright things, such as teeth. Dark or faint findings give no warning, wherever their boxes are."""
  if len(report.contrasts) < 2 * MIN_IMAGES:
    return
  contrasts = np.stack(report.contrasts)
  best = int(contrasts.mean(0).argmax())
  own, moved = contrasts[:, 0], contrasts[:, best]
  if moved.mean() > max(MIN_CONTRAST, 3 * abs(own.mean())) and alignment.z_score(moved - own) > BOX_Z:
    yield (f'boxes {alignment.TRANSFORMS[best]} are brighter than what is around them; as they are, they are not. '
           'Check the order of x and y, and the orientation of the images')
