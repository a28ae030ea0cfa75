"""Numbers of images in the public archives, to compare a prepared dataset with. Sources: the archives' own tables.

Only numbers that are counts of the archive's files or table rows are here. They count images after the builder has left
out what it leaves out, such as TBX11K's hidden test set.
"""
import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Published:
  """What an archive holds.

  Attributes:
    images: with labels; several numbers if there are several releases.
    present: {finding: images that show it}, of the first number of images.
    known: {finding: images whose label is known}, where these are not all.
    values: (smallest, largest) regression value.
  """
  images: tuple[int, ...]
  present: Mapping[str, int] = dataclasses.field(default_factory=dict)
  known: Mapping[str, int] = dataclasses.field(default_factory=dict)
  values: tuple[float, float] | None = None


ARCHIVES = {
  'nih_chest_xray': Published((112_120,), {  # Data_Entry_2017_v2020.csv
    'Atelectasis': 11_559, 'Cardiomegaly': 2_776, 'Effusion': 13_317, 'Infiltration': 19_894, 'Mass': 5_782,
    'Nodule': 6_331, 'Pneumonia': 1_431, 'Pneumothorax': 5_302, 'Consolidation': 4_667, 'Edema': 2_303,
    'Emphysema': 2_516, 'Fibrosis': 1_686, 'Pleural_Thickening': 3_385, 'Hernia': 227}),
  'kermany_pneumonia': Published((5_856,), {'pneumonia': 4_273}),  # folders of the archive
  'rsna_bone_age': Published((12_611, 14_036), values=(1, 228)),  # months; with the validation set of 1,425 images
  'mura': Published((40_005,), {'abnormal': 16_403}),  # folders of MURA v1.1, train and valid
  'panoramic_dental': Published((116,)),
  'knee_oa': Published((8_260,), {  # folders train, val and test
    'KL 0 none': 3_253, 'KL 1 doubtful': 1_495, 'KL 2 minimal': 2_175, 'KL 3 moderate': 1_086, 'KL 4 severe': 251}),
  'tbx11k': Published((8_400,), {'tuberculosis': 800, 'active': 660, 'latent': 170, 'other disease': 3_800},
                      {'active': 8_399, 'latent': 8_399, 'other disease': 7_600}),  # JSON of train and val
  'covid19_radiography': Published((21_165,), {  # folders of version 5
    'COVID': 3_616, 'Lung_Opacity': 6_012, 'Normal': 10_192, 'Viral Pneumonia': 1_345}),
  'vinbigdata_cxr': Published((15_000, 18_000)),  # Kaggle, PhysioNet
  'shenzhen_cxr': Published((662,), {'tuberculosis': 336}),  # file names
  'montgomery_cxr': Published((138,), {'tuberculosis': 58}),
  'lung_masks': Published((800,), {'tuberculosis': 394}),
  'indiana_cxr': Published((7_470,)),
  'frac_atlas': Published((4_083,), {'fractured': 717}),
}


def format_images(about: Published) -> str:
  """'12,611 or 14,036'."""
  return ' or '.join(f'{count:,}' for count in about.images)
