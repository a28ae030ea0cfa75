"""MURA in miniature."""

import itertools

from tfds_builders.phantoms.layout import Archive, leave_fork, save_png, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_limb

# What is seen in an abnormal study. Of 100 that radiologists reviewed 53 had fractures, 48 hardware, 35 degenerative
# joints and 29 something else (Rajpurkar et al. 2018, 2.5), many more than one; lesions stand for the last two.
KINDS = (('fracture',), ('fracture', 'hardware'), ('hardware',), ('lesion',))
PARTS = ('WRIST', 'SHOULDER', 'ELBOW', 'FINGER', 'HAND', 'FOREARM', 'HUMERUS')


def plan(seed):
  """Every third patient has a normal and an abnormal study; each image of an abnormal study shows the abnormality."""
  for patient in itertools.count():
    rng = dice(seed, 'mura plan', patient)
    valid = patient % 5 == 4
    number, part = (11185 if valid else 1) + patient, PARTS[patient % 7]
    labels = (True, False) if patient % 3 == 0 else (bool(rng.random() < 0.42),)
    turn = 0
    for study, positive in enumerate(labels, 1):
      kinds = KINDS[int(rng.integers(4))] if positive else ()
      folder = f'MURA-v1.1/{"valid" if valid else "train"}/XR_{part}/patient{number:05d}'
      folder += f'/study{study}_{"positive" if positive else "negative"}'
      for image in range(1, int(rng.integers(2, 5))):
        yield Shot(f'{folder}/image{image}.png', patient, turn, kinds, part)
        turn += 1


def save(root, shot, radiograph):
  save_png(root, shot, radiograph, 'RGB' if shot.patient % 11 == 2 else 'L')


def index(root, pairs):
  """Four tables without header; study paths end with a slash; one resource fork."""
  base = root / 'MURA-v1.1'
  for split in ('train', 'valid'):
    (base / split).mkdir(parents=True, exist_ok=True)
    paths = [shot.path for shot, _ in pairs if f'/{split}/' in shot.path]
    studies = dict.fromkeys(path.rsplit('/', 1)[0] + '/' for path in paths)
    write_rows(base / f'{split}_image_paths.csv', '', [(path,) for path in paths])
    write_rows(base / f'{split}_labeled_studies.csv', '', [(study, int('_positive' in study)) for study in studies])
  leave_fork(root / pairs[0][0].path)


ARCHIVE = Archive(
  Vendor(gain=1.2, gamma=0.85, detail=0.5, mark=0.06, shutter=0.5, low=4, photons=1.2e4, blur=0.7),
  plan, take_limb, save, index,
)
