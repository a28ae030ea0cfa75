"""Small files that survive a crash: a reader finds the old file or the whole new one, never half of one."""

import json
import logging
import os
import pathlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

TEMPORARY = '.*.part'  # the names of temporary files


def write_atomically(path: str | pathlib.Path, content: str | bytes) -> None:
  """Writes `content` (text as UTF-8) to a temporary file in the same folder, flushes it to the disk, and renames it.

  Several processes may write the same path at once: the last one to rename wins. After an error, the temporary file is
  removed and `path` is as it was. Only a killed process leaves a temporary file (`TEMPORARY`).
  """
  path = pathlib.Path(path)
  part = path.with_name(TEMPORARY.replace('*', uuid.uuid4().hex))  # no other writer has this name, and it is short
  try:
    with open(part, 'xb') as file:
      file.write(content.encode() if isinstance(content, str) else content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise
  fsync_folder(path.parent)


def write_json(path: str | pathlib.Path, results: Mapping[str, Any]) -> pathlib.Path:
  """Writes results as JSON, creates the folder if needed, and returns the path.

  Raises:
    ValueError: a number is NaN or infinite, which JSON does not have.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, json.dumps(results, indent=2, allow_nan=False) + '\n')
  return path


def fsync_folder(folder: str | pathlib.Path) -> None:
  """Flushes the names in a folder to the disk. Without this, a power failure can lose a new file although its bytes are
  on the disk."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def read_json_lines(path: str | pathlib.Path) -> list[dict]:
  """The objects of a file of JSON lines; [] if there is no such file.

  A line counts only if it is an object with a whole number `step`. The last line of an interrupted run may be cut off
  and is dropped silently; other damaged lines are dropped with a warning.
  """
  path = pathlib.Path(path)
  lines, objects = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.is_file() else [], []
  for number, line in enumerate(lines, 1):
    try:
      parsed = json.loads(line)
    except (ValueError, RecursionError):
      parsed = None
    if isinstance(parsed, dict) and type(parsed.get('step')) is int:
      objects.append(parsed)
    elif number < len(lines):
      log.warning('line %d of %s is damaged and left out', number, path)
  return objects


def read_intact_lines(path: str | pathlib.Path, is_intact: Callable[[dict], bool]) -> list[dict[str, Any]]:
  """The lines of `read_json_lines` for which `is_intact` holds. A warning says how many are left out."""
  lines = read_json_lines(path)
  intact = [line for line in lines if is_intact(line)]
  if len(intact) < len(lines):
    log.warning('%d damaged lines of %s are left out', len(lines) - len(intact), path)
  return intact
