"""Which image a path in labels.csv, boxes.json or masks/ means, and what the image is called."""
import collections
import os
import posixpath
import re
import urllib.parse
from collections.abc import Collection, Iterable

from tfds_builders.common import dataset, plain_text, tables

ENDING = re.compile(r'(?<=[^/])\.(?!\d+$)[^./]*$')


def match_names(names: Iterable[str], pictures: Collection[str]) -> dict[str, str]:
  """Which image a path in labels.csv or boxes.json means.

  Backslashes, './', 'images/', the Unicode form and percent-encoding do not count; neither does the case, if one image
  fits. A name without an ending means the image with any ending, if there is one such image. If no name fits, all may
  begin with the same folder, such as /home/me/clinic/images.

  Args:
    names: as written.
    pictures: paths below images/.

  Returns:
    {name: path below images/} of the names that mean an image.
  """
  cleaned = {name: clean_path(name) for name in names if not tables.is_missing(name)}
  finders = [{picture: [picture] for picture in pictures}]
  for spell in (plain_text.normalise, fold):
    groups = collections.defaultdict(list)
    for picture in pictures:
      groups[spell(picture)].append(picture)
    finders.append(groups)
  by_stem = collections.defaultdict(list)
  for picture in pictures:
    by_stem[fold(stem(picture))].append(picture)

  def find(path: str) -> str | None:
    for spelling in (path, urllib.parse.unquote(path)):
      keys = spelling, plain_text.normalise(spelling), fold(spelling)
      for key, groups in zip(keys, finders, strict=True):
        if len(groups.get(key, ())) == 1:
          return groups[key][0]
    return None

  def find_by_stem(path: str) -> str | None:
    groups = (by_stem.get(fold(spelling), ()) for spelling in (path, urllib.parse.unquote(path)))
    return next((same[0] for same in groups if len(same) == 1), None)

  def find_all(folder: str) -> dict[str, str]:
    paths = {name: path.removeprefix(folder) for name, path in cleaned.items()}
    whole = {name: picture for name, path in paths.items() if (picture := find(path))}
    taken = set(whole.values())  # a name with an ending comes before one without
    return whole | {name: picture for name, path in paths.items() if name not in whole
                    and (picture := find_by_stem(path)) and picture not in taken}

  found = find_all('')
  for folder in list_common_folders(cleaned.values()) if not found else []:
    found = max(found, find_all(folder), key=len)
  return found


def fold(path: str) -> str:
  """A path without its case and Unicode form."""
  return plain_text.normalise(path).casefold()


def list_common_folders(paths: Collection[str]) -> list[str]:
  """The folders that all paths begin with, each with a slash at its end, from the shortest to the longest."""
  common = os.path.commonprefix([path.rsplit('/', 1)[0] + '/' if '/' in path else '' for path in paths])
  return [common[:place + 1] for place, character in enumerate(common) if character == '/']


def clean_path(name: str) -> str:
  """A path below images/ with forward slashes."""
  path = posixpath.normpath(name.replace('\\', '/')) if name else ''
  return path.removeprefix('images/')


def name_images(names: Iterable[str]) -> dict[str, str]:
  """{path below images/: image_id}. The id is the path without its ending, or with it if another image differs from it
  in the ending only."""
  stems = {name: stem(plain_text.normalise(name)) for name in names}
  counts = collections.Counter(stems.values())
  return {name: short if counts[short] == 1 else plain_text.normalise(name) for name, short in stems.items()}


def match_masks(paths: Iterable[str], ids: Collection[str]) -> tuple[dict[str, str], list[dataset.Reject]]:
  """{path below images/: path of its mask} and rejects.

  A mask has the path of its image, with another ending or with a second one: the mask of a/1.jpg is masks/a/1.png or
  masks/a/1.jpg.png. One that fits several images is rejected.
  """
  owners = collections.defaultdict(list)
  for name in ids:
    owners[stem(plain_text.normalise(name))].append(name)
  whole = {plain_text.normalise(name): name for name in ids}
  found: dict[str, str] = {}
  rejects = []
  for path in sorted(paths, key=lambda path: (not path.lower().endswith('.png'), path)):
    short = stem(plain_text.normalise(path.removeprefix('masks/')))
    names = [whole[short]] if short in whole else owners.get(short, [])
    if len(names) != 1:
      reason = f'mask of several images: {", ".join(names)}. Append .png to their names' if names else None
      rejects.append(dataset.Reject(short, path, reason or 'mask without image'))
    elif found.setdefault(names[0], path) != path:
      rejects.append(dataset.Reject(short, path, f'second mask of an image: the first is {found[names[0]]}'))
  return found, rejects


def stem(path: str) -> str:
  """A path without its ending. Dots in folders and before digits, as in the names of DICOM files, begin no ending."""
  return ENDING.sub('', path)
