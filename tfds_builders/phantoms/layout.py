"""The miniature archive (`Archive`), and writers for the file formats that archives use."""

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tfds_builders.phantoms.exposure import Exposure, Radiograph
from tfds_builders.phantoms.physics import Vendor


@dataclasses.dataclass(frozen=True)
class Archive:
  """A public archive in miniature.

  Attributes:
    vendor: detector and display.
    plan: function (seed) that yields exposures without end, patient by patient.
    render: function (seed, name, exposure, size, vendor) -> Radiograph.
    save: function (root, exposure, radiograph) that writes the files of one image.
    write_tables: function (root, [(exposure, radiograph), ...]) that writes the label tables and the archive's
      quirks. It gets all images in order; the radiographs have their shape but no pixels.
  """

  vendor: Vendor
  plan: Callable[[int], Iterator[Exposure]]
  render: Callable[[int, str, Exposure, int, Vendor], Radiograph]
  save: Callable[[pathlib.Path, Exposure, Radiograph], None]
  write_tables: Callable[[pathlib.Path, Sequence[tuple[Exposure, Radiograph]]], None]


def save_png(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph, mode: str = 'L') -> None:
  path = root / exposure.path
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(radiograph.image).convert(mode).save(path, compress_level=1)


def save_mask(path: pathlib.Path, radiograph: Radiograph, *names: str) -> None:
  """Writes the union of these masks as 0 and 255."""
  path.parent.mkdir(parents=True, exist_ok=True)
  union = np.logical_or.reduce([radiograph.masks[name] for name in names])
  Image.fromarray(union.astype(np.uint8) * 255).save(path, compress_level=1)


def write_rows(path: pathlib.Path, header: str, rows: Iterable[Sequence]) -> None:
  """Writes a CSV file as archives have them: the header verbatim, no cell quoted unless necessary."""
  with open(path, 'w', newline='') as out:
    if header:
      out.write(header + '\n')
    csv.writer(out, lineterminator='\n').writerows(rows)


def write_resource_fork(path: pathlib.Path) -> None:
  """Writes the resource fork that macOS packs beside an image; it is named like the image but is not one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.with_name('._' + path.name).write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ' + bytes(50))


def save_dicom(path: pathlib.Path, stored_HW: np.ndarray, bits: int, photometric: str, **elements: Any) -> None:
  """Writes an uncompressed DICOM file of unsigned values, without patient data.

  Args:
    path: of the file.
    stored_HW: uint8 or uint16 values.
    bits: how many are used.
    photometric: MONOCHROME1, which displays small values as white, or MONOCHROME2.
    elements: further DICOM elements by keyword.
  """
  import pydicom  # takes 0.2 s, and most archives have no DICOM

  header = pydicom.Dataset()
  header.file_meta = pydicom.dataset.FileMetaDataset()
  header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  header.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
  header.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.name])
  header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
  header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
  header.Modality = 'DX'
  header.Rows, header.Columns = stored_HW.shape
  header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, photometric, 0
  header.BitsAllocated, header.BitsStored, header.HighBit = 8 * stored_HW.itemsize, bits, bits - 1
  header.PixelData = stored_HW.tobytes()
  header['PixelData'].VR = 'OB' if stored_HW.itemsize == 1 else 'OW'
  for name, value in elements.items():
    setattr(header, name, value)
  path.parent.mkdir(parents=True, exist_ok=True)
  header.save_as(path, enforce_file_format=True)
