"""Checks a file that a command will write at its end, before the work that comes first."""
import os
import pathlib

import PIL.Image

from tfds_builders.common import paths


def check_output(path: str | os.PathLike[str], flag: str) -> None:
  """Raises ValueError or OSError if no file can be written there; `flag` is the flag that names it."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{flag}={path} is a folder: name a file in it')
  if not path.parent.is_dir():
    raise ValueError(f'{flag}={path}: there is no folder {path.parent}; create it first')
  if path.exists():
    os.close(os.open(path, os.O_WRONLY))  # raises if it may not be written
  else:
    paths.check_writable(path.parent)


def check_picture(path: str | os.PathLike[str], flag: str) -> None:
  """As `check_output`, for a picture: Pillow takes the format from the ending, and has no default."""
  ending = pathlib.Path(path).suffix.lower()
  if PIL.Image.registered_extensions().get(ending) not in PIL.Image.SAVE:
    raise ValueError(f'{flag}={path} ends in {ending or "nothing"}, which is no format of pictures: use .png')
  check_output(path, flag)
