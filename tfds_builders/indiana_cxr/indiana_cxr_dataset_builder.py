"""Indiana University (Open-i): chest radiographs with reports, indexed by hand with MeSH headings."""
import collections
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset

# Which headings (their part before the first '/') state a finding. The names are ChestX-ray14's where it has one.
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
SILENT = {'no indexing', 'technical quality of image unsatisfactory'}  # headings that say nothing of the chest
REPORT = re.compile(r'(?:NLMCXR_reports/)?ecgen-radiology/[^/]+\.xml')
ID = re.compile(r'(?:CXR)?(\d+)(?:_\d+)?_(IM(?:-\d+)+)')  # CXR1_1_IM-0001-3001 among the PNGs, 1_IM-0001-3001 in DICOM

ARCHIVE = archives.Archive(
  name='indiana_cxr', marker=('ecgen-radiology', 'NLMCXR_reports/ecgen-radiology'),
  files=('ecgen-radiology', 'NLMCXR_reports', 'NLMCXR_png', 'NLMCXR_dcm', 'CXR*.png'),
  layout='ecgen-radiology/*.xml (or NLMCXR_reports/ecgen-radiology/*.xml) and NLMCXR_png/CXR*.png or '
         'NLMCXR_dcm/*/*.dcm (where both are, the PNGs are read).',
  download='NLMCXR_reports.tgz and NLMCXR_png.tgz (or NLMCXR_dcm.tgz) from https://openi.nlm.nih.gov/faq#collection '
           '(CC BY-NC-ND 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of indiana_cxr; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(self, homepage='https://openi.nlm.nih.gov/faq#collection', findings=FINDINGS)

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: reports name their images; an image of no report is rejected."""
  files, rejects = find_images(listed)
  entries, left_out, named = [], collections.Counter(), set()
  for path in listed:
    if not REPORT.fullmatch(path):
      continue
    try:
      report, headings, pictures = read_report((root / path).read_bytes())
    except ValueError as error:
      rejects.append(dataset.Reject('', path, str(error)))
      continue
    left_out['report without image'] += not pictures
    fields = {'part': 'chest', 'study': report, **find_findings(headings)}
    for name in pictures:
      key = normalise(name)
      named.add(key)
      if key not in files:
        rejects.append(dataset.Reject(name, path, 'image of a report is not there'))
      else:
        entries.append(dataset.Entry(image_id=name, patient=report, path=root / files[key], fields=fields,
                                    stratum=('abnormal' if fields['present'][0] else 'normal')
                                    if fields['label_mask'][0] else 'not indexed'))
  rejects += [dataset.Reject('', path, 'image without report') for key, path in files.items() if key not in named]
  return entries, rejects, {reason: count for reason, count in left_out.items() if count}


def find_images(listed):
  """{(number of the report, rest of the name): path}, a PNG before a DICOM file, and rejects."""
  files, rejects = {}, []
  for path in sorted(listed, key=lambda path: path.endswith('.dcm')):
    if REPORT.fullmatch(path):
      continue
    key = normalise(path.rsplit('/', 1)[-1].rsplit('.', 1)[0])
    if key is None or not path.endswith(('.png', '.dcm')):
      rejects.append(dataset.Reject('', path, 'file that is no image of this archive'))
    else:
      files.setdefault(key, path)
  return files, rejects


def normalise(name):
  """What a PNG, its DICOM file and the report's id of it have in common; None if it is no such name."""
  match = ID.fullmatch(name)
  return match and match.groups()


def read_report(raw):
  """The report's id, its headings in small letters, and the ids of its images; raises ValueError."""
  tree = boxes.parse_xml(raw)
  number = tree.find('uId')
  pictures = [picture.get('id') for picture in tree.iter('parentImage')]
  if number is None or not number.get('id') or not all(map(normalise, filter(None, pictures))) or None in pictures:
    raise ValueError('report without its number, or with images of other names')
  headings = {(heading.text or '').strip().lower() for heading in tree.iterfind('.//MeSH/major')} - {''}
  return number.get('id'), headings, list(dict.fromkeys(pictures))


def find_findings(headings):
  """`present` and `label_mask` of FINDINGS: what is not among the headings is absent, unless nothing was indexed."""
  spoken = headings - SILENT
  if not spoken:
    return {'present': [0.0] * len(FINDINGS), 'label_mask': [False] * len(FINDINGS)}
  stated = [spoken != {'normal'}]
  stated += [any(heading == word or heading.startswith(f'{word}/') for heading in spoken for word in words)
             for words in HEADINGS.values()]
  return {'present': [float(one) for one in stated], 'label_mask': [True] * len(FINDINGS)}
