"""Small archives for tests, and ways to read back what was prepared from them."""

import csv
import pathlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from tests.support.small_runs import PHANTOMS
from tfds_builders import phantoms

SPLITS = ('train', 'validation', 'test')
CLINIC_HEADER = 'image,patient,view,sex,age,fracture,cast,split'


def read_all(path, splits=SPLITS):
  """Records of a prepared version by image_id, with texts as str and the split added."""
  builder, records = tfds.builder_from_directory(path), {}
  for split in splits:
    for record in builder.as_data_source(split):
      record = {key: value.decode() if isinstance(value, bytes) else value for key, value in record.items()}
      records[record['image_id']] = {**record, 'split': split}
  return records


def read_rejects(path):
  """{(image_id, reason up to its first colon)} in rejects.csv."""
  with open(path / 'rejects.csv', newline='') as file:
    return {(row['image_id'], row['reason'].split(':')[0]) for row in csv.DictReader(file)}


def list_objects(record):
  """[(class_id, box)]: TFDS reads a sequence of dicts as a dict of sequences."""
  return list(zip(record['objects']['class_id'], record['objects']['box'], strict=True))


def match_truth(name, records):
  """Yields (record, radiograph) for each image of a phantom archive, matched by its path."""
  for path, radiograph in phantoms.render(name, **PHANTOMS):
    stem = pathlib.PurePath(path).with_suffix('').as_posix()
    found = [record for image_id, record in records.items() if f'/{stem}'.endswith(f'/{image_id}')]
    if found:
      yield found[0], radiograph


def write_png(path, shape=(20, 30), grey=0):
  """A PNG file of one grey."""
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.fromarray(np.full(shape, grey, np.uint8)).save(path)


def write_nih(folder, images=40, box='{name},Pneumonia,256,512,128,64'):
  """NIH archive of noise below `folder`/nih_chest_xray: two images per patient, pneumonia in every fourth patient."""
  root, rng = folder / 'nih_chest_xray', np.random.default_rng(3)
  (root / 'images_001/images').mkdir(parents=True)
  rows, names = [], [f'{i // 2:08d}_{i % 2:03d}.png' for i in range(images)]
  for i, name in enumerate(names):
    PIL.Image.fromarray(rng.integers(0, 255, (30, 40), np.uint8)).save(root / 'images_001/images' / name)
    label = 'Pneumonia|Edema' if i // 2 % 4 == 0 else 'No Finding'
    rows.append(f'{name},{label},{i % 2},{i // 2},{30 + i},{"FM"[i // 2 % 2]},PA,2682,2749,0.143,0.143')
  head = ('Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
          'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]')
  (root / 'Data_Entry_2017_v2020.csv').write_text('\n'.join([head, *rows, '']))
  (root / 'BBox_List_2017.csv').write_text(
    'Image Index,Finding Label,"Bbox [x,y,w,h]",,,\n'.replace('"', '') + box.format(name=names[0]) + ',,,\n')
  return root


def write_clinic(folder, name='clinic', patients=12, head=CLINIC_HEADER, row=None):
  """Custom dataset of noise: two images of 20 x 30 per patient.

  Every third patient has a fracture. The label of that patient's second image is unknown.
  """
  root = folder / name
  (root / 'images/a').mkdir(parents=True)
  rng, lines = np.random.default_rng(0), [head]
  for i in range(2 * patients):
    PIL.Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8)).save(root / f'images/a/{i}.png')
    fracture = '' if i % 6 == 1 else int(i % 6 == 0)
    split = 'test' if i < 4 else ''
    lines.append(row(i) if row else f'a/{i}.png,p{i // 2},frontal,female,{40 + i % 80},{fracture},0,{split}')
  (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
  return root


def edit(path, old, new, count=-1):
  """Replaces text in a file, which must be there; `count` limits how often."""
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, count))


def flip_bit(path, split):
  """Flips one bit in the middle of the stored records, which are compressed and zero-padded at the end."""
  file, = path.glob(f'*{split}.array_record*')
  raw = bytearray(file.read_bytes())
  raw[raw.index(bytes(1024)) // 2] ^= 4
  file.write_bytes(raw)
