"""Who is trained on and who is tested, by three rules, the same on every machine and in every order of files.

Records are stored by the first rule; the others are lists of images beside them (`tfds_builders.common.index`).

| rule | what |
|---|---|
| patient | ours, and the one to report: no patient is in two splits |
| paper | MUSCLE's, recovered from its counts: by image, so that patients are in several splits |
| official | the archive's own, where it has one and its labels are public |
"""
import collections
import hashlib

RULES = ('patient', 'paper', 'official')
SEED = 0
SHARES = {'train': 0.8, 'validation': 0.1, 'test': 0.1}
RULE = ('by patient, 80/10/10, stratified by label: the patients of a stratum are ordered by '
        'SHA-256("<seed>:<patient>"); the first tenth is test, the second tenth validation, the rest train')


def split_by_patient(pairs, seed=SEED):
  """Gives each patient one split.

  Pairs may come in any order and a patient any number of times. A patient's stratum is the set of all strata met
  with it. Strata of fewer than three patients are thrown together into one. A stratum of n patients gives
  round(n / 10), but at least one, to test and to validation where n is 3 or more; with fewer, all go to train.
  Since the order is a hash, more patients in the archive move only those near the two borders.

  Args:
    pairs: iterable of (patient, stratum), both str.
    seed: int, part of the hash.

  Returns:
    {patient: 'train' | 'validation' | 'test'}
  """
  met = collections.defaultdict(set)
  for patient, stratum in pairs:
    met[patient].add(stratum)
  strata = collections.defaultdict(list)
  for patient, names in met.items():
    strata['+'.join(sorted(names))].append(patient)
  for name in [name for name, patients in strata.items() if len(patients) < 3 and name != 'rest']:
    strata['rest'] += strata.pop(name)

  splits = {}
  for patients in strata.values():
    patients = sorted(patients, key=lambda patient: hashlib.sha256(f'{seed}:{patient}'.encode()).digest())
    test = cut(len(patients), SHARES['test'])
    validation = test + cut(len(patients), SHARES['validation'])
    splits.update({patient: 'test' if place < test else 'validation' if place < validation else 'train'
                   for place, patient in enumerate(patients)})
  return splits


def cut(patients, share):
  """How many of a stratum's patients a share of it is: rounded half up, at least one of three."""
  return max(1, int(patients * share + 0.5)) if patients >= 3 else 0


def split_by_paper(pairs, seed=SEED):
  """Gives each image one split, by the rule that MUSCLE's counts follow.

  The archive's own splits are merged; of the n images of each group (a class; in MURA a class of a part of the body)
  floor(n / 10) are test, floor((n - test) / 9) validation, the rest train. This gives all the counts that MUSCLE
  prints for its labelled sets. Which image goes where is not published: here the images of a group are ordered by
  SHA-256("<seed>:paper:<image_id>").

  Args:
    pairs: iterable of (image_id, group); a group of None is not in the split.
    seed: int, part of the hash.

  Returns:
    {image_id: 'train' | 'validation' | 'test'}
  """
  groups = collections.defaultdict(list)
  for image, group in pairs:
    if group is not None:
      groups[group].append(image)
  splits = {}
  for images in groups.values():
    images = sorted(images, key=lambda image: hashlib.sha256(f'{seed}:paper:{image}'.encode()).digest())
    test = len(images) // 10
    validation = test + (len(images) - test) // 9
    splits.update({image: 'test' if place < test else 'validation' if place < validation else 'train'
                   for place, image in enumerate(images)})
  return splits
