"""DICOM files of a radiograph, written by pydicom; compressed by Pillow, pydicom or GDCM."""

import io

import gdcm
import numpy as np
import PIL.Image
import pydicom
from pydicom import encaps, uid

GDCM = {'jpeg lossless': gdcm.TransferSyntax.JPEGLosslessProcess14_1, 'jpeg-ls': gdcm.TransferSyntax.JPEGLSLossless}


def make(stored, bits=12, kind='MONOCHROME2', **elements):
  """An uncompressed data set with these stored values (HW, any integer type) and `elements` by keyword."""
  header = pydicom.Dataset()
  header.file_meta = pydicom.dataset.FileMetaDataset()
  header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
  header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = '1.2.3'
  header.Rows, header.Columns = stored.shape
  header.SamplesPerPixel, header.PhotometricInterpretation = 1, kind
  header.BitsAllocated, header.BitsStored, header.HighBit = 8 * stored.itemsize, bits, bits - 1
  header.PixelRepresentation = int(stored.dtype.kind == 'i')
  header.PixelData = stored.tobytes()
  header['PixelData'].VR = 'OB' if stored.itemsize == 1 else 'OW'
  for name, value in elements.items():
    setattr(header, name, value)
  return header


def save(header, path):
  header.save_as(path, enforce_file_format=True)
  return path


def compress(header, how, path):
  """Saves a data set of `make` to `path`, compressed by `how`: an encoding that radiographs come in."""
  if how in GDCM:
    return compress_by_gdcm(save(header, path), GDCM[how])
  if how == 'rle':
    header.compress(uid.RLELossless)
    return save(header, path)
  stored, stream = header.pixel_array, io.BytesIO()
  if how == 'jpeg baseline':
    PIL.Image.fromarray(stored).save(stream, 'JPEG', quality=95)
    syntax = uid.JPEGBaseline8Bit
  elif how == 'jpeg 2000':
    PIL.Image.fromarray(stored).save(stream, 'JPEG2000', irreversible=False, no_jp2=True)
    syntax = uid.JPEG2000Lossless
  return save(enclose(header, stream.getvalue(), syntax), path)


def enclose(header, stream, syntax):
  header.PixelData = encaps.encapsulate([stream])
  header['PixelData'].is_undefined_length = True
  header['PixelData'].VR = 'OB'
  header.file_meta.TransferSyntaxUID = syntax
  return header


def compress_by_gdcm(path, syntax):
  reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
  reader.SetFileName(str(path))
  assert reader.Read()
  change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
  change.SetInput(reader.GetImage())
  assert change.Change()
  writer.SetFileName(str(path))
  writer.SetFile(reader.GetFile())
  writer.SetImage(change.GetOutput())
  assert writer.Write()
  return path


def ramp(height=40, width=60, low=100, high=4000, kind=np.uint16):
  """HW values that rise from `low` to `high`; no two rows are equal."""
  return np.linspace(low, high, height * width).reshape(height, width).astype(kind)
