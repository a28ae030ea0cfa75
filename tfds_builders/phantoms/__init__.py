"""Phantom radiographs: X-ray images computed from invented anatomy, with labels that are exact by construction.

`exposure` says what to render. `chest`, `hand`, `limb`, `knee` and `jaw` draw anatomy into a `scene` of tissue
thickness. `acquisition` and `physics` turn it into an image, and `variation` makes exposures differ. `archives` and
`writing` write the images in the layout of the public archives.
"""

from tfds_builders.phantoms.archives import ARCHIVES
from tfds_builders.phantoms.exposure import Radiograph
from tfds_builders.phantoms.writing import render, write

__all__ = ['ARCHIVES', 'Radiograph', 'render', 'write']
