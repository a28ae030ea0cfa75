"""Scores as a JSON file."""

import json
import os
import pathlib
from collections.abc import Mapping


def write_scores(path: str | os.PathLike, results: Mapping) -> pathlib.Path:
  """Writes results, such as those of `score` by task, as JSON, creates the folder if needed, and returns the path."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(results, indent=2, allow_nan=False) + '\n'
  partial = path.with_suffix('.partial')
  partial.write_text(text)
  partial.replace(path)  # atomic: a reader never sees half a file
  return path
