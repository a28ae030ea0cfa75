"""Assigns images to train, validation and test, by three split rules. The result depends on names only.

It is therefore the same on every machine and in every order of the files. Records are stored by the rule `patient`;
the other rules are lists of images beside the records (`tfds_builders.common.index`).

| rule | what it does |
|---|---|
| patient | ours, and the one to report: no patient is in two splits |
| paper | MUSCLE's, inferred from its counts: splits by image, so a patient may be in several splits |
| official | the archive's own test set; validation is cut from its training set if the archive has none |
"""
import collections
import hashlib
from collections.abc import Iterable, Mapping

SEED = 0
FRACTIONS = {'train': 0.8, 'validation': 0.1, 'test': 0.1}
PATIENT_RULE = (
  'by patient, 80/10/10, stratified by label: the patients of a stratum are ordered by SHA-256("<seed>:<patient>"); '
  'the first tenth is test, the second tenth validation, the rest train')


def split_by_patient(pairs: Iterable[tuple[str, str]], seed: int = SEED) -> dict[str, str]:
  """Assigns each patient to one split, stratified.

  A patient's stratum is the set of strata of all of the patient's images. Strata with fewer than three patients are
  merged into one. A stratum of n >= 3 patients gives max(1, round(n / 10)) patients to test and as many to
  validation; a smaller one gives all to train. The order is a hash, so adding patients to the archive moves only
  those near the two cuts.

  Args:
    pairs: (patient, stratum), in any order; a patient may occur any number of times.
    seed: part of the hash.

  Returns:
    {patient: 'train' | 'validation' | 'test'}
  """
  splits = {}
  for patients in stratify(pairs, seed).values():
    test = split_size(len(patients), FRACTIONS['test'])
    validation = test + split_size(len(patients), FRACTIONS['validation'])
    splits.update({patient: 'test' if rank < test else 'validation' if rank < validation else 'train'
                   for rank, patient in enumerate(patients)})
  return splits


def stratify(pairs: Iterable[tuple[str, str]], seed: int = SEED) -> dict[str, list[str]]:
  """{stratum: its patients, ordered by SHA-256}; see `split_by_patient` for the strata of patients."""
  strata_of = collections.defaultdict(set)
  for patient, stratum in pairs:
    strata_of[patient].add(stratum)
  strata = collections.defaultdict(list)
  for patient, names in strata_of.items():
    strata['+'.join(sorted(names))].append(patient)
  for name in [name for name, patients in strata.items() if len(patients) < 3 and name != 'rest']:
    strata['rest'] += strata.pop(name)
  return {name: sorted(patients, key=lambda patient: hashlib.sha256(f'{seed}:{patient}'.encode()).digest())
          for name, patients in strata.items()}


def split_size(patients: int, fraction: float) -> int:
  """How many patients of a stratum a split gets: rounded half up, and at least one of three or more."""
  return max(1, int(patients * fraction + 0.5)) if patients >= 3 else 0


def split_by_paper(pairs: Iterable[tuple[str, str | None]], seed: int = SEED) -> dict[str, str]:
  """Assigns each image to one split, by the rule that reproduces MUSCLE's counts.

  The archive's own splits are merged. A group is a class, or in MURA a class of one body part. Of the n images of a
  group, floor(n / 10) are test, floor((n - test) / 9) are validation, and the rest are train. This reproduces every
  count that MUSCLE prints for its labelled datasets, except MURA's test count, which disagrees with the totals of
  MUSCLE's own table. `lung_masks` has other counts here, because only 704 of its images have a mask (docs/method.md).
  MUSCLE does not publish which image goes where; here the images of a group are ordered by
  SHA-256("<seed>:paper:<image_id>").

  Args:
    pairs: (image_id, group); an image whose group is None is in no split.
    seed: part of the hash.

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
    splits.update({image: 'test' if rank < test else 'validation' if rank < validation else 'train'
                   for rank, image in enumerate(images)})
  return splits


def split_by_archive(images: Iterable[tuple[str, str, str, str]], seed: int = SEED) -> dict[str, str]:
  """Assigns each image to one split, by the split that the archive publishes (the rule `official`).

  The published test set is the test split and is never changed. If the archive publishes a validation set, that is the
  validation split. Otherwise validation is cut from the published training set by patient: of the patients of a
  stratum, in the order of `split_by_patient`, the first tenth. A builder decides what the archive publishes: one that
  calls its test set "valid" (MURA) passes 'test', and 16 images named "val" (Kermany) pass 'train'.

  Args:
    images: (image_id, patient, stratum, published split), where the published split is 'train', 'validation', 'test',
      or '' for an image that is in no split.
    seed: part of the hash.

  Returns:
    {image_id: 'train' | 'validation' | 'test'}
  """
  images = list(images)
  splits = {image: published for image, _, _, published in images if published}
  if 'validation' not in splits.values():
    training = [(image, patient, stratum) for image, patient, stratum, published in images if published == 'train']
    strata = stratify(((patient, stratum) for _, patient, stratum in training), seed)
    held_out = {patient for patients in strata.values()
                for patient in patients[:split_size(len(patients), FRACTIONS['validation'])]}
    splits.update({image: 'validation' for image, patient, _ in training if patient in held_out})
  return splits


def describe_shared_patients(patient_of: Mapping[str, str], split_of: Mapping[str, str]) -> str:
  """How many patients of a split have images in another one too; '' if none has. Arguments as of
  `count_shared_patients`."""
  patients: dict[str, set[str]] = {name: set() for name in FRACTIONS}
  for image, split in split_of.items():
    patients[split].add(patient_of[image])
  return ', '.join(
    f'{len(shared)} of {len(patients[one])} {one} patients also have images in {other}'
    for one, other in (('test', 'train'), ('validation', 'train'), ('test', 'validation'))
    if (shared := patients[one] & patients[other]))


def count_shared_patients(patient_of: Mapping[str, str], split_of: Mapping[str, str]) -> int:
  """Number of patients with images in more than one split.

  Args:
    patient_of: {image_id: patient}.
    split_of: {image_id: split}; an image that is missing is in no split.
  """
  splits_of = collections.defaultdict(set)
  for image, split in split_of.items():
    splits_of[patient_of[image]].add(split)
  return sum(len(names) > 1 for names in splits_of.values())
