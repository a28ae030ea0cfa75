"""Indiana University (Open-i): chest X-rays with reports, which people indexed with MeSH headings."""
import collections
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, records, voc

# {finding: MeSH headings that state it}. A heading also matches with anything after a '/', such as a location.
# Findings that ChestX-ray14 has too are named as there.
HEADINGS = {
  'Atelectasis': ('pulmonary atelectasis',),
  'Cardiomegaly': ('cardiomegaly',),
  'Effusion': ('pleural effusion', 'hydropneumothorax', 'hemothorax', 'hemopneumothorax'),
  'Infiltration': ('infiltrate',),
  'Mass': ('mass',),
  'Nodule': ('nodule',),
  'Pneumonia': ('pneumonia',),
  'Pneumothorax': ('pneumothorax', 'hydropneumothorax', 'hemopneumothorax'),
  'Consolidation': ('consolidation',),
  'Edema': ('pulmonary edema',),
  'Emphysema': ('emphysema', 'pulmonary emphysema', 'bullous emphysema'),
  'Fibrosis': ('pulmonary fibrosis', 'fibrosis'),
  'Pleural_Thickening': ('thickening/pleura',),
  'Hernia': ('hernia, hiatal', 'hernia, diaphragmatic'),
  'Opacity': ('opacity',),
  'Airspace_Disease': ('airspace disease',),
  'Granuloma': ('calcified granuloma', 'granuloma', 'granulomatous disease'),
  'Fracture': ('fractures, bone',),
}
FINDINGS = ('Abnormal', *HEADINGS)
UNINFORMATIVE = {'no indexing', 'technical quality of image unsatisfactory'}  # headings that state no finding
REPORT = re.compile(r'(?:NLMCXR_reports/)?ecgen-radiology/[^/]+\.xml')
# CXR1_1_IM-0001-3001 among the PNGs is 1_IM-0001-3001 among the DICOM files.
ID = re.compile(r'(?:CXR)?(\d+)(?:_\d+)?_(IM(?:-\d+)+)')

ARCHIVE = archives.Archive(
  name='indiana_cxr', marker=('ecgen-radiology', 'NLMCXR_reports/ecgen-radiology'),
  files=('ecgen-radiology', 'NLMCXR_reports', 'NLMCXR_png', 'NLMCXR_dcm', 'CXR*.png'),
  layout='ecgen-radiology/*.xml (or NLMCXR_reports/ecgen-radiology/*.xml) and NLMCXR_png/CXR*.png or '
         'NLMCXR_dcm/*/*.dcm (the PNG is read if an image has both).',
  download='NLMCXR_reports.tgz and NLMCXR_png.tgz (or NLMCXR_dcm.tgz) from https://openi.nlm.nih.gov/faq#collection '
           '(CC BY-NC-ND 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of indiana_cxr; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(self, homepage='https://openi.nlm.nih.gov/faq#collection', findings=FINDINGS)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. Reports name their images; other images are rejected."""
  pictures, rejects = find_images(files)
  left_out: collections.Counter = collections.Counter()
  entries, named = [], set()
  for path in files:
    if not REPORT.fullmatch(path):
      continue
    try:
      report, headings, names = read_report((root / path).read_bytes())
    except ValueError as error:
      rejects.append(dataset.Reject('', path, str(error)))
      continue
    left_out['report without image'] += not names
    fields = {'part': 'chest', 'study': report, **find_findings(headings)}
    for name in names:
      key = normalise(name)
      named.add(key)
      if key not in pictures:
        rejects.append(dataset.Reject(name, path, 'report without its image'))
      else:
        entries.append(dataset.Entry(image_id=name, patient=report, path=root / pictures[key], fields=fields,
                                    stratum=('abnormal' if fields['present'][0] else 'normal')
                                    if fields['label_mask'][0] else 'not indexed'))
  rejects += [dataset.Reject('', path, 'image without report') for key, path in pictures.items() if key not in named]
  return entries, rejects, {reason: count for reason, count in left_out.items() if count}


def find_images(
    files: Mapping[str, int]) -> tuple[dict[tuple[str, ...], str], list[dataset.Reject]]:
  """{(report number, rest of the name): path} and rejects; a PNG takes precedence over a DICOM file."""
  pictures: dict[tuple[str, ...], str] = {}
  rejects = []
  for path in sorted(files, key=lambda path: path.endswith('.dcm')):
    if REPORT.fullmatch(path):
      continue
    key = normalise(path.rsplit('/', 1)[-1].rsplit('.', 1)[0])
    if key is None or not path.endswith(('.png', '.dcm')):
      rejects.append(dataset.Reject('', path, 'not an image of this archive'))
    else:
      pictures.setdefault(key, path)
  return pictures, rejects


def normalise(name: str) -> tuple[str, ...] | None:
  """The key that an image's PNG name, DICOM name and id in the report share; None if the name does not fit."""
  match = ID.fullmatch(name)
  return match.groups() if match else None


def read_report(raw: bytes) -> tuple[str, set[str], list[str]]:
  """The report's id, its headings in lower case, and the ids of its images; raises ValueError."""
  tree = voc.parse_xml(raw)
  number = tree.find('uId')
  names = [picture.get('id') or '' for picture in tree.iter('parentImage')]
  report = number.get('id') if number is not None else None
  if not report or not all(map(normalise, names)):
    raise ValueError('report without its number, or with other image names')
  headings = {(heading.text or '').strip().lower() for heading in tree.iterfind('.//MeSH/major')} - {''}
  return report, headings, list(dict.fromkeys(names))


def find_findings(headings: set[str]) -> dict[str, list]:
  """`present` and `label_mask` of FINDINGS. A finding without a heading is absent, unless nothing was indexed."""
  informative = headings - UNINFORMATIVE
  if not informative:
    return {'present': [0.0] * len(FINDINGS), 'label_mask': [False] * len(FINDINGS)}
  present = [informative != {'normal'}]
  present += [any(heading == word or heading.startswith(f'{word}/') for heading in informative for word in words)
              for words in HEADINGS.values()]
  return {'present': [float(one) for one in present], 'label_mask': [True] * len(FINDINGS)}
