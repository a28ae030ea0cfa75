"""TBX11K: chest radiographs of healthy, otherwise ill and tuberculous people, with boxes about the tuberculosis."""
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset

KINDS = ('ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis')
FINDINGS = ('tuberculosis', 'active', 'latent', 'other disease')
PICTURE = re.compile(r'imgs/((?:health|sick|tb)/[^/]+\.png)')
TABLES = ('TBX11K_train', 'TBX11K_val', 'TBX11K_trainval')  # the third repeats the others, and may be there alone

ARCHIVE = archives.Archive(
  name='tbx11k', marker='imgs/tb',
  files=('imgs', 'annotations', 'lists'),
  layout='TBX11K/imgs/{health,sick,tb}/*.png, TBX11K/annotations/json/TBX11K_{train,val}.json (or '
         'TBX11K_trainval.json, or annotations/xml/*.xml with lists/*.txt).',
  download='TBX11K.zip, linked from https://github.com/yun-liu/Tuberculosis, or Kaggle usmanshams/tbx-11 '
           '(non-commercial; the stated licences differ).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of tbx11k; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(self, homepage='https://mmcheng.net/tb/', findings=FINDINGS, box_classes=KINDS,
                           boxes='on all images with tuberculosis but one; the others have none by definition')

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: the hidden test images, and those of other archives."""
  pictures = {match[1]: path for path in listed if (match := PICTURE.fullmatch(path))}
  tables = [path for name in TABLES if (path := f'annotations/json/{name}.json') in listed]
  table, rejects = read_tables(root, tables) if tables else read_lists(root, listed, pictures)
  sides = read_sides(root, listed)
  entries = []
  for name, marks in table.items():
    if name in pictures and marks is not None:
      entries.append(make_entry(root / pictures[name], name, marks, sides.get(name, '')))
    elif name not in pictures:
      rejects.append(dataset.Reject(stem(name), name or 'annotations', 'row without image'))
  rejects += [dataset.Reject(stem(name), pictures[name], 'image without row') for name in pictures if name not in table]
  left_out = {'test image without label': sum(path.startswith('imgs/test/') for path in listed),
              'image of another archive (imgs/extra)': sum(path.startswith('imgs/extra/') for path in listed)}
  known = ('imgs/test/', 'imgs/extra/', 'annotations/', 'lists/')
  rejects += [dataset.Reject('', path, 'file that is no image of this archive') for path in listed
              if not path.startswith(known) and not PICTURE.fullmatch(path)]
  return entries, rejects, {reason: count for reason, count in left_out.items() if count}


def make_entry(path, name, marks, official):
  """The folder says ill or not, the boxes which kind of tuberculosis; one that nobody boxed is of unknown kind."""
  folder, kinds = name.split('/')[0], {kind for kind, *_ in marks}
  ill, told = folder == 'tb', folder != 'tb' or bool(marks)
  present = [ill, KINDS[0] in kinds, KINDS[1] in kinds, folder == 'sick']
  return dataset.Entry(
    image_id=stem(name), patient=stem(name), path=path, objects=tuple(marks),
    stratum=' '.join([folder, *sorted(kinds)]), group='' if ill else None, official=official,
    # Whether someone with tuberculosis has another disease, too, is not stated.
    fields={'part': 'chest', 'present': [float(yes) for yes in present], 'label_mask': [True, told, told, not ill]})


def read_sides(root, listed):
  """{file_name: 'train' | 'validation'} from the archive's lists."""
  lists = {f'lists/{TABLES[0]}.txt': 'train', f'lists/{TABLES[1]}.txt': 'validation'}
  return {name: side for path, side in lists.items() if path in listed
          for name in archives.read_text(root / path).split()}


def read_tables(root, tables):
  """{file_name: boxes}, rejects from the JSON tables, whose boxes are in the frame of the images."""
  found, rejects = {}, []
  for path in tables:
    boxed, refused = boxes.read_coco(root / path, KINDS)
    rejects += [dataset.Reject(stem(name), path, reason) for name, reason in refused if name not in found]
    found = {**boxed, **found}
  return found, rejects


def read_lists(root, listed, pictures):
  """{file_name: boxes}, rejects from the lists and the XML files; None for boxes that cannot be read."""
  sheets = {stem(path): path for path in listed if path.startswith('annotations/xml/') and path.endswith('.xml')}
  if not sheets:
    raise ValueError(f'{root} has neither annotations/json/{TABLES[0]}.json nor annotations/xml/*.xml: no boxes')
  lists = [path for path in listed if path in [f'lists/{name}.txt' for name in TABLES]]
  names = dict.fromkeys(line for path in lists for line in archives.read_text(root / path).split())
  found, rejects = {}, []
  for name in names or pictures:
    sheet = sheets.get(stem(name))
    try:
      found[name], refused = boxes.read_voc(root / sheet, KINDS) if sheet else ([], [])
    except ValueError as error:
      found[name], refused = None, [f'unreadable XML: {error}']
    rejects += [dataset.Reject(stem(name), sheet, reason) for reason in refused]
  return found, rejects


def stem(path):
  return path.rsplit('/', 1)[-1].rsplit('.', 1)[0]
