"""Archives with as many images as the published ones, for tests of counts: real tables, and lists of files in memory.

Only one image of each folder is on the disk. Writing all 220,000 would take longer than the tests.
"""

import collections
import itertools
import json
import pathlib

from tfds_builders.common import archives, dicom

KERMANY = {'train/NORMAL': 1341, 'train/PNEUMONIA': 3875, 'val/NORMAL': 8, 'val/PNEUMONIA': 8,
           'test/NORMAL': 234, 'test/PNEUMONIA': 390}  # images in each folder of the Kaggle archive
MURA = {  # images of MURA v1.1: train positive, train negative, valid positive, valid negative
  'ELBOW': (2006, 2925, 230, 235), 'FINGER': (1968, 3138, 247, 214), 'FOREARM': (661, 1164, 151, 150),
  'HAND': (1484, 4059, 189, 271), 'HUMERUS': (599, 673, 140, 148), 'SHOULDER': (4168, 4211, 278, 285),
  'WRIST': (3987, 5765, 295, 364)}
KNEE = {'train': (2286, 1046, 1516, 757, 173), 'val': (328, 153, 212, 106, 27), 'test': (639, 296, 447, 223, 51)}
# images of TBX11K in train and val: healthy, other disease, active, latent, both
TBX = {'train': (3000, 3000, 473, 104, 23), 'val': (800, 800, 157, 36, 7)}
NIH, NIH_TEST = 112_120, 25_596
SHENZHEN, MONTGOMERY, SHENZHEN_MASKS = (326, 336), (80, 58), 566  # normal, tuberculosis
INDIANA = {0: 104, 1: 446, 2: 3208, 3: 181, 4: 15, 5: 1}  # images of a report: reports
BONE_AGE, DENTAL = 12_611, 116
VINBIGDATA, VINBIGDATA_NORMAL = 15_000, 10_606
FRACATLAS = {'Fractured': 717, 'Non_fractured': 3366}
HEAD = ('Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
        'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]')


def list_kermany():
  return [f'{folder}/person{i}_virus_{i}.jpeg' for folder, images in KERMANY.items() for i in range(images)]


def list_mura():
  return [f'{folder}/XR_{part}/patient{i // 3:05d}/study1_{label}/image{i % 3}.png'
          for part, counts in MURA.items()
          for (folder, label), images in zip(
            [('train', 'positive'), ('train', 'negative'), ('valid', 'positive'), ('valid', 'negative')], counts,
            strict=True) for i in range(images)]


def list_knees():
  numbers = itertools.count(9_000_000)  # a patient of each knee, because the archive's number of patients is not known
  return [f'{folder}/{grade}/{next(numbers)}R.png' for folder, grades in KNEE.items()
          for grade, images in enumerate(grades) for _ in range(images)]


def list_tuberculosis(prefix, counts):
  normal, ill = counts
  return [f'{prefix}_{i:04d}_{int(i >= normal)}' for i in range(normal + ill)]


class Maker:
  """Writes archives below `folder`. `listed` has all files of each archive: {archive: {path: bytes}}."""

  def __init__(self, folder):
    self.folder, self.listed = pathlib.Path(folder), collections.defaultdict(dict)

  def add_images(self, archive, paths):
    """Lists the images, and writes the first one of each folder."""
    first = {tuple(path.split('/')[:-1][:2]): path for path in reversed(paths)}
    for path in first.values():
      target = self.folder / archive / path
      target.parent.mkdir(parents=True, exist_ok=True)
      target.touch()  # nothing decodes it
    self.listed[archive].update(dict.fromkeys(paths, 1))

  def write(self, archive, path, text):
    target = self.folder / archive / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    self.listed[archive][path] = len(text)

  def nih(self):
    names = [f'{i // 4:08d}_{i % 4:03d}.png' for i in range(NIH)]
    self.add_images('nih_chest_xray', [f'images/{name}' for name in names])
    rows = [f'{name},{"Hernia" if i % 500 == 0 else "No Finding"},0,{i // 4},50,M,PA,2682,2749,0.1,0.1'
            for i, name in enumerate(names)]
    self.write('nih_chest_xray', 'Data_Entry_2017_v2020.csv', '\n'.join([HEAD, *rows, '']))
    self.write('nih_chest_xray', 'BBox_List_2017.csv', 'Image Index,Finding Label,Bbox [x,y,w,h],,,\n')
    self.write('nih_chest_xray', 'train_val_list.txt', '\n'.join(names[NIH_TEST:]))
    self.write('nih_chest_xray', 'test_list.txt', '\n'.join(names[:NIH_TEST]))

  def tuberculosis(self):
    shenzhen, montgomery = list_tuberculosis('CHNCXR', SHENZHEN), list_tuberculosis('MCUCXR', MONTGOMERY)
    self.add_images('shenzhen_cxr', [f'ChinaSet_AllFiles/CXR_png/{name}.png' for name in shenzhen])
    self.add_images('montgomery_cxr', [f'CXR_png/{name}.png' for name in montgomery])
    self.add_images('montgomery_cxr', [f'ManualMask/{side}Mask/{name}.png' for side in ('left', 'right')
                                 for name in montgomery])
    folder = 'Lung Segmentation'
    self.add_images('lung_masks', [f'{folder}/CXR_png/{name}.png' for name in [*shenzhen, *montgomery]])
    self.add_images('lung_masks', [f'{folder}/masks/{name}.png' for name in montgomery])
    self.add_images('lung_masks', [f'{folder}/masks/{name}_mask.png' for name in shenzhen[:SHENZHEN_MASKS]])
    self.add_images('lung_masks', [f'{folder}/test/{name}.png' for name in shenzhen[SHENZHEN_MASKS:]])

  def indiana(self):
    numbers = itertools.count(1)
    for images, reports in INDIANA.items():
      for number in itertools.islice(numbers, reports):
        names = [f'CXR{number}_IM-0001-{1001 + i}' for i in range(images)]
        pictures = ''.join(f'<parentImage id="{name}"/>' for name in names)
        self.write('indiana_cxr', f'ecgen-radiology/{number}.xml',
                   f'<eCitation><uId id="CXR{number}"/><MeSH><major>normal</major></MeSH>{pictures}</eCitation>')
        self.add_images('indiana_cxr', [f'NLMCXR_png/{name}.png' for name in names])

  def bone_age(self):
    folder = 'boneage-training-dataset/boneage-training-dataset'
    self.add_images('rsna_bone_age', [f'{folder}/{i}.png' for i in range(BONE_AGE)])
    rows = [f'{i},{1 + i % 228},{i % 2 == 0}' for i in range(BONE_AGE)]
    self.write('rsna_bone_age', 'boneage-training-dataset.csv', '\n'.join(['id,boneage,male', *rows, '']))

  def tbx(self):
    categories = [{'id': 1, 'name': 'ActiveTuberculosis'}, {'id': 2, 'name': 'ObsoletePulmonaryTuberculosis'}]
    numbers, boxes = itertools.count(1), itertools.count(1)
    for split, (healthy, sick, active, latent, both) in TBX.items():
      kinds = [*[('health/h', ())] * healthy, *[('sick/s', ())] * sick, *[('tb/tb', (1,))] * active,
               *[('tb/tb', (2,))] * latent, *[('tb/tb', (1, 2))] * both]
      if split == 'train':
        kinds[healthy + sick] = ('tb/tb', ())  # the archive has one image with tuberculosis but without a box
      images, annotations = [], []
      for number, (place, classes) in zip(numbers, kinds, strict=False):
        images.append({'id': number, 'file_name': f'{place}{number:05d}.png', 'width': 512, 'height': 512})
        annotations += [{'id': next(boxes), 'image_id': number, 'category_id': category, 'iscrowd': 0, 'area': 1600,
                         'bbox': [100 * category, 100, 40, 40]} for category in classes]
      self.add_images('tbx11k', [f'imgs/{image["file_name"]}' for image in images])
      self.write('tbx11k', f'annotations/json/TBX11K_{split}.json', json.dumps(
        {'categories': categories, 'images': images, 'annotations': annotations}))
      self.write('tbx11k', f'lists/TBX11K_{split}.txt', '\n'.join(image['file_name'] for image in images))

  def vinbigdata(self):
    names = [f'{i:032x}' for i in range(VINBIGDATA)]
    self.add_images('vinbigdata_cxr', [f'train/{name}.dicom' for name in names])
    rows = [f'{name},{"No finding,14" if i < VINBIGDATA_NORMAL else "Cardiomegaly,3"},R{reader},'
            f'{",,," if i < VINBIGDATA_NORMAL else "0,0,2,2"}' for i, name in enumerate(names) for reader in range(3)]
    self.write('vinbigdata_cxr', 'train.csv', '\n'.join([
      'image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max', *rows, '']))

  def fracatlas(self):
    numbers = itertools.count()
    images = [(f'IMG{next(numbers):07d}.jpg', folder) for folder, count in FRACATLAS.items() for _ in range(count)]
    self.add_images('frac_atlas', [f'images/{folder}/{name}' for name, folder in images])
    head = 'image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique'
    rows = [f'{name},1,0,0,0,0,0,0,{int(folder == "Fractured")},{int(folder == "Fractured")},1,0,0'
            for name, folder in images]
    self.write('frac_atlas', 'dataset.csv', '\n'.join([head, *rows, '']))
    fractured = [{'id': i, 'file_name': name, 'width': 2, 'height': 2}
                 for i, (name, folder) in enumerate(images) if folder == 'Fractured']
    self.write('frac_atlas', 'Annotations/COCO JSON/COCO_fracture_masks.json', json.dumps({
      'categories': [{'id': 0, 'name': 'fractured'}], 'images': fractured,
      'annotations': [{'id': image['id'], 'image_id': image['id'], 'category_id': 0, 'iscrowd': 0, 'area': 1,
                       'bbox': [0, 0, 1, 1]} for image in fractured]}))

  def all(self):
    self.nih()
    self.tuberculosis()
    self.indiana()
    self.bone_age()
    self.add_images('kermany_pneumonia', list_kermany())
    self.add_images('mura', list_mura())
    self.tbx()
    self.add_images('knee_oa', list_knees())
    self.add_images('panoramic_dental', [f'{folder}/{i}.png' for folder in ('Images', 'Segmentation1')
                                   for i in range(1, DENTAL + 1)])
    self.vinbigdata()
    self.fracatlas()


def write_archives(folder):
  """The archives of MUSCLE's and MTPret's datasets and of the two external ones, below `folder`."""
  maker = Maker(folder)
  maker.all()
  return maker


def list_from_memory(maker, monkeypatch):
  """Makes the builders see all files of the archives."""
  monkeypatch.setattr(archives, 'list_files', lambda archive, root: dict(sorted(maker.listed[archive.name].items())))
  monkeypatch.setattr(dicom, 'read_size', lambda path: (4, 4))  # of VinBigData's images
