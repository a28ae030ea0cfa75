"""What an archive in miniature is, and how its files are written."""

import csv
import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from tfds_builders.phantoms.physics import Vendor


@dataclasses.dataclass(frozen=True)
class Archive:
  """plan(seed) yields Shots, patient by patient, endlessly.  take(seed, name, shot, size, vendor) makes the Radiograph.
  save(root, shot, radiograph) writes its files.  index(root, pairs) writes the tables and the archive's oddities, given
  (shot, Radiograph without pixels) of all images in order.
  """

  vendor: Vendor
  plan: Callable
  take: Callable
  save: Callable
  index: Callable


def save_png(root, shot, radiograph, mode='L'):
  path = root / shot.path
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(radiograph.image).convert(mode).save(path, compress_level=1)


def save_mask(path, radiograph, *names):
  """The union of these masks, 0 and 255."""
  path.parent.mkdir(parents=True, exist_ok=True)
  union = np.logical_or.reduce([radiograph.masks[name] for name in names])
  Image.fromarray(union.astype(np.uint8) * 255).save(path, compress_level=1)


def write_rows(path, header, rows):
  """A CSV table as the archives have them: the header verbatim, nothing quoted that need not be."""
  with open(path, 'w', newline='') as out:
    if header:
      out.write(header + '\n')
    csv.writer(out, lineterminator='\n').writerows(rows)


def leave_fork(path):
  """The resource fork that macOS leaves beside a file it has packed: it bears the image's name and is none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.with_name('._' + path.name).write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ' + bytes(50))


def save_dicom(path, stored_HW, bits, kind, **elements):
  """An uncompressed DICOM file of unsigned stored values, without anything that names a patient.

  kind: MONOCHROME1, where small values are shown white, or MONOCHROME2.  elements: further ones, by keyword.
  """
  import pydicom  # 0.2 s, and most archives have no DICOM

  header = pydicom.Dataset()
  header.file_meta = pydicom.dataset.FileMetaDataset()
  header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  header.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
  header.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.name])
  header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
  header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
  header.Modality = 'DX'
  header.Rows, header.Columns = stored_HW.shape
  header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, kind, 0
  header.BitsAllocated, header.BitsStored, header.HighBit = 8 * stored_HW.itemsize, bits, bits - 1
  header.PixelData = stored_HW.tobytes()
  header['PixelData'].VR = 'OB' if stored_HW.itemsize == 1 else 'OW'
  for name, value in elements.items():
    setattr(header, name, value)
  path.parent.mkdir(parents=True, exist_ok=True)
  header.save_as(path, enforce_file_format=True)
