"""The record schema that all builders share, and the entries and rejects that a builder makes of an archive."""
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import plain_text, splits

VERSION = tfds.core.Version('1.1.0')  # 1.1.0: metadata on negatives, other official splits, strata in the index
SIZES: dict[str, int | None] = {'256': 256, '512': 512, 'original': None}  # config name -> longer side at most, pixels
CONFIGS = [  # the first is the default
  tfds.core.BuilderConfig(name='256', description='longer side at most 256 pixels'),
  tfds.core.BuilderConfig(name='512', description='longer side at most 512 pixels'),
  tfds.core.BuilderConfig(name='original', description='pixels as in the archive'),
]
UNKNOWN_AGE = math.nan
MAX_AGE = 120  # years; a larger number is a mistake: NIH's table of 2017 has ages up to 414
MAX_TEXT = 300  # characters of a text field in a record or reject


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
    mask_stretch: fraction by which the aspect of mask and image may differ, see `images.fit_mask`.
    objects: ((class_name, y0, x0, y1, x1), ...) with coordinates from 0 to 1.
    paper_group: the class within which the split rule `paper` draws. None excludes the image, as the paper did.
    official_split: 'train', 'validation' or 'test' as the archive itself splits; '' if it does not. Validation is cut
      from training if no image has it, see `splits.split_by_archive`.
  """
  image_id: str
  patient: str
  path: pathlib.Path
  stratum: str = ''
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  mask: Callable[[], np.ndarray] | None = None
  mask_stretch: float = 0.02
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
      object.__setattr__(self, name, plain_text.escape(text)[:MAX_TEXT])


# What a builder reads from an archive: entries, rejects, {reason: images left out on purpose}.
Contents = tuple[list[Entry], list[Reject], dict[str, int]]


def dataset_info(
    builder: tfds.core.DatasetBuilder, homepage: str, findings: Sequence[str] = (),
    value: Mapping[str, str] | None = None, mask: Sequence[str] = (), box_classes: Sequence[str] = (),
    relation: str = 'independent', box_negatives: Sequence[str] = (), uncertain: bool = False,
    **notes: Any) -> tfds.core.DatasetInfo:
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
  | `uncertain` | (T,) bool | whether finding t is marked as uncertain; such a label is not known | `uncertain` |
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
    box_negatives: names of findings. An image without a box was examined for boxes, and has none, if all of these
      findings are known to be absent. Empty if findings do not tell; see also `negative_images` in custom.py.
    uncertain: whether the dataset marks labels as uncertain. Only then records have the field, and the metadata the
      entry, so that other datasets need not be prepared again.
    notes: further metadata entries.

  Returns:
    The metadata always has `findings`, `relation`, `value`, `mask`, `box_classes`, `box_negatives`, `size` and
    `split`, empty where unused. After the build it also has `archive`, `rejects` and `left_out`.
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
    if uncertain:
      fields['uncertain'] = features.Tensor(shape=(len(findings),), dtype=np.bool_)
      notes['uncertain'] = True
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
      box_classes=list(box_classes), box_negatives=list(box_negatives), size=builder.builder_config.name,
      split={'rule': splits.PATIENT_RULE, 'seed': splits.SEED}, **notes))
