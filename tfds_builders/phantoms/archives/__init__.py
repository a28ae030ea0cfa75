"""The archives in miniature, one file each: which exposures, under which names, and the tables beside them.

Layouts follow the public archives with their quirks, see the README.md of each builder. A new one is a file with an
`ARCHIVE` and a name here.
"""

import importlib

NAMES = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental', 'knee_oa', 'tbx11k',
         'covid19_radiography', 'vinbigdata_cxr', 'shenzhen_cxr', 'montgomery_cxr', 'lung_masks', 'indiana_cxr')
ARCHIVES = {name: importlib.import_module(f'tfds_builders.phantoms.archives.{name}').ARCHIVE for name in NAMES}


def find_archive(name):
  if name not in ARCHIVES:
    raise ValueError(f'no phantom archive {name!r}; have {", ".join(sorted(ARCHIVES))}')
  return ARCHIVES[name]
