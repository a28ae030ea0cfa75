"""Small files that are whole or not there, whatever stops the program while it writes."""

import json
import logging
import os
import pathlib

log = logging.getLogger(__name__)


def write_atomically(path, text):
  """Writes `text` to `path` at once: a reader, or a run after a crash, finds the old file or all of the new one."""
  path = pathlib.Path(path)
  half = path.with_name(f'{path.name}.part')
  with open(half, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(half, path)
  fsync_folder(path.parent)


def fsync_folder(folder):
  """Names in a folder survive a loss of power only when the folder itself has been written out."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def read_json_lines(path):
  """The objects in a file of JSON lines, [] where it is not there. A line that is no object with the number of a
  `step`, such as a last one that was cut off, is left out; in the middle that is told."""
  path = pathlib.Path(path)
  lines, objects = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.is_file() else [], []
  for number, line in enumerate(lines, 1):
    try:
      told = json.loads(line)
    except (ValueError, RecursionError):
      told = None
    if isinstance(told, dict) and type(told.get('step')) is int:
      objects.append(told)
    elif number < len(lines):
      log.warning('line %d of %s is damaged and left out', number, path)
  return objects
