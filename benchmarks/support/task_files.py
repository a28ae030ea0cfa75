"""The phantoms of one task of stage 3, as a prepared dataset and as PNG files with a table, as other programs read.

`SPLIT/INDEX.png` are the images, `SPLIT/INDEX_mask.png` the masks. `SPLIT/labels.json` has `classes`, a list of names,
and `images`, a list of {image, patient, and `present`, or `boxes` and `class_id`}.
"""

import json
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.data.sources import SPLITS, open_source
from mtpret_jax.tasks import find_kind


def prepare(folder: str | pathlib.Path, task_config: ConfigDict, images: int) -> None:
  """Renders, prepares and exports the phantoms that the task can use, unless they are in `folder` already."""
  from tfds_builders import build, phantoms
  folder, name = pathlib.Path(folder), task_config.dataset
  if (folder / 'test' / 'labels.json').exists():
    return
  phantoms.write(name, folder / 'archives', images, size=256)
  build.prepare(name, folder / 'archives', folder / 'prepared', size='256')
  for split in SPLITS:
    export(folder / split, open_source(name, folder / 'prepared', '256', split), task_config)


def export(folder: pathlib.Path, source: Any, task_config: ConfigDict) -> None:
  folder.mkdir(parents=True)
  kind, table = find_kind(task_config.kind), []
  for index in range(len(source)):
    record = source.records[index]
    if kind.find_defect(source.about, task_config, record, source.split):
      continue
    row: dict[str, Any] = {'image': f'{index}.png', 'patient': record['patient'].decode()}
    (folder / row['image']).write_bytes(record['image'])
    if task_config.kind == 'segmentation':
      (folder / f'{index}_mask.png').write_bytes(record['mask'])
    if task_config.kind == 'classification':
      columns = [source.about['findings'].index(name) for name in task_config.findings or source.about['findings']]
      row['present'] = np.asarray(record['present'])[columns].tolist()
    if task_config.kind == 'detection':
      row['boxes'] = np.reshape(record['objects']['box'], (-1, 4)).tolist()
      row['class_id'] = np.asarray(record['objects']['class_id']).tolist()
    table.append(row)
  classes = kind.select(source.about, task_config)[kind.annotation]
  (folder / 'labels.json').write_text(json.dumps({'classes': list(classes), 'images': table}))
