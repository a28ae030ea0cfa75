"""Phantom radiographs: X-ray images computed from invented anatomy, with labels that are exact by construction.

shot says what is asked; chest, hand, limb, knee and jaw lay tissue on a film; room and physics turn its thickness
into a picture; archives and write put the pictures into the layout of the public archives.
"""

from tfds_builders.phantoms.archives import ARCHIVES
from tfds_builders.phantoms.shot import Radiograph
from tfds_builders.phantoms.writing import render, write

__all__ = ['ARCHIVES', 'Radiograph', 'render', 'write']
