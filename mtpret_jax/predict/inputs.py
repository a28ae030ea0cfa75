"""Which images a command line means: files, folders, patterns that the shell did not expand, and lists of paths."""

import glob
import os
import pathlib
from collections.abc import Iterable, Sequence

from tfds_builders.common import archives, plain_text, tables
from tfds_builders.common.suggest import find_near
from tfds_builders.custom.file_names import name_images

# Of the files in a folder, those with these endings are images, and every DICOM file, whatever it is called.
ENDINGS = ('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.tif', '.tiff', '.bmp', '.gif', '.webp', '.jp2', '.j2k', '.jpx',
           '.dcm', '.dicom', '.dic')
LISTS = ('.csv', '.tsv', '.txt')  # files that name images
COLUMN = 'image'  # of a list with several columns
DICOM_MARK, DICOM_PLACE = b'DICM', 128
NO_IMAGE = 'DICOMDIR'  # the table of contents of a DICOM medium, itself a DICOM file
PATTERN = frozenset('*?[')


class NoImages(ValueError):
  """What the command line names gives no image."""


def find_images(names: Sequence[str], leave_out: pathlib.Path | None = None) -> list[pathlib.Path]:
  """The images that `names` mean, each once, in the order of the names; those of a folder or pattern are sorted.

  Args:
    names: paths of images, which may have any ending; folders, which are searched with all folders below, see
      `list_folder`; patterns such as 'scans/**/*.dcm'; and lists, see `read_list`.
    leave_out: a folder whose files are no input.

  Raises:
    NoImages: a name means no image; the message says what was looked for.
    ValueError: a list cannot be read, or a name is a pipe or device.
  """
  found: dict[str, pathlib.Path] = {}
  for path in (path for name in names for path in expand(name)):
    found.setdefault(os.path.abspath(path), path)
  if leave_out is not None:
    outputs = leave_out.absolute()
    found = {place: path for place, path in found.items() if not pathlib.Path(place).is_relative_to(outputs)}
  if not found:
    raise NoImages(f'no image given: name files, folders, patterns such as "scans/*.dcm" or a list '
                   f'({", ".join(LISTS)})')
  return list(found.values())


def expand(name: str) -> list[pathlib.Path]:
  """The images that one name means."""
  path = pathlib.Path(name).expanduser()
  if path.is_dir():
    return list_folder(path)
  if path.exists():
    archives.file_size(path)  # raises for a pipe or device, which might never end
    return read_list(path) if path.suffix.lower() in LISTS else [path]
  if PATTERN & set(name):
    matches = sorted(glob.glob(str(path), recursive=True))
    images = [image for match in matches for image in expand_match(pathlib.Path(match), path)]
    if not images:
      raise NoImages(f'no image matches {name!r} in {os.getcwd()}')
    return images
  raise NoImages(f'there is no file or folder {name!r}{suggest_file(path)}')


def expand_match(match: pathlib.Path, pattern: pathlib.Path) -> list[pathlib.Path]:
  """The images that one match of a pattern means. Junk is skipped, unless the pattern names it."""
  if any(archives.is_junk(part) for part in match.parts if part not in pattern.parts):
    return []
  if match.is_dir():
    return walk(match)
  return [match] if is_image(match) else []


def list_folder(folder: pathlib.Path) -> list[pathlib.Path]:
  """The images in a folder and all folders below, sorted by path: see `is_image`. Hidden files and what desktops write,
  such as .DS_Store and Thumbs.db, are skipped.

  Raises:
    NoImages: there is none.
  """
  images = walk(folder)
  if not images:
    raise NoImages(f'the folder {str(folder)!r} has no image, nor have the folders below it: images end in '
                   f'{", ".join(ENDINGS)}, or are DICOM files of any name')
  return images


def walk(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted((path for path in archives.list_below(folder) if is_image(path)), key=lambda path: path.as_posix())


def is_image(path: pathlib.Path) -> bool:
  """Whether a file has an ending of an image, or is a DICOM file; scanners write these without an ending."""
  if path.suffix.lower() in ENDINGS:
    return True
  if path.name.upper() == NO_IMAGE or not path.is_file():
    return False
  try:
    with open(path, 'rb') as file:
      return file.read(DICOM_PLACE + len(DICOM_MARK))[DICOM_PLACE:] == DICOM_MARK
  except OSError:
    return True  # the row of the image will say why it cannot be read


def read_list(path: pathlib.Path) -> list[pathlib.Path]:
  """The images that a list names: a text file with a path in each line, or a table with a column `image`, such as
  labels.csv of an own dataset. Paths are below the folder of the list, below its folder images/, or below the current
  folder. An image that is missing is not left out: its row will say so.

  Raises:
    NoImages: the list names no image, or none that exists.
    ValueError: the table has no such column, or is no text.
  """
  names = read_names(path)
  folders = (path.parent, path.parent / 'images', pathlib.Path())
  choices = [[folder / name for folder in folders] for name in names]
  images = [next((choice for choice in row if choice.exists()), row[0]) for row in choices]
  if not any(image.exists() for image in images):
    raise NoImages(f'{path} names {len(names)} images' + (
      f', and none exists: {names[0]!r} is neither in {str(path.parent)!r} nor in the current folder' if names else ''))
  return images


def read_names(path: pathlib.Path) -> list[str]:
  """The paths in a list, as written but with forward slashes."""
  if path.suffix.lower() == '.txt':
    cells = [line.strip().strip(tables.INVISIBLE) for line in plain_text.read_text(path).splitlines()]
  else:
    table = tables.load_table(path, (COLUMN,))
    header = [name.lower() for name in table.header]
    if COLUMN in header:
      column = table.header[header.index(COLUMN)]
      cells = [row[column] for _, row in table.rows]
    elif len(header) == 1:  # a list without a header
      cells = [row[0] for row in tables.read_rows(path)]
    else:
      raise ValueError(f'{path} has no column {COLUMN!r} that names the images: it has {", ".join(table.header)}')
  return [cell.strip().replace('\\', '/') for cell in cells if not tables.is_missing(cell)]


def suggest_file(path: pathlib.Path) -> str:
  """': did you mean ...?' if the folder has a similar name."""
  try:
    near = find_near(path.name, os.listdir(path.parent))
  except OSError:
    return ''
  return f': did you mean {str(path.with_name(near))!r}?' if near else ''


def name_outputs(paths: Iterable[pathlib.Path]) -> list[str]:
  """A different relative path without ending for what is written about each image: its path below the folder that all
  images share. Images that differ in their ending only keep it: 1.jpg and 1.png."""
  places = [os.path.abspath(path) for path in paths]
  common = os.path.commonpath([os.path.dirname(place) for place in places])
  relative = [pathlib.Path(os.path.relpath(place, common)).as_posix() for place in places]
  short = name_images(relative)
  if len({name.casefold() for name in short.values()}) == len(relative):
    return [short[name] for name in relative]
  return relative  # such as x.png and x.png.dcm
