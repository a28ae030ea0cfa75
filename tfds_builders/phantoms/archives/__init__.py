"""The public archives in miniature, one file each: which exposures, under which names, and the label tables.

Layouts follow the public archives with their quirks; see the README.md of each builder. To add one, write a file with
an `ARCHIVE` and list its name here.
"""

import importlib

from tfds_builders.phantoms.layout import Archive

NAMES = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental', 'knee_oa', 'tbx11k',
         'covid19_radiography', 'vinbigdata_cxr', 'shenzhen_cxr', 'montgomery_cxr', 'lung_masks', 'indiana_cxr',
         'frac_atlas')
ARCHIVES: dict[str, Archive] = {
  name: importlib.import_module(f'tfds_builders.phantoms.archives.{name}').ARCHIVE for name in NAMES}


def find_archive(name: str) -> Archive:
  """The archive of this name; raises ValueError if there is none."""
  if name not in ARCHIVES:
    raise ValueError(f'unknown phantom archive {name!r}: choose one of {", ".join(sorted(ARCHIVES))}')
  return ARCHIVES[name]
