"""Sections of a config for tasks on datasets of your own (`task`, `task2`, ...), see `runtime/own_task.py`."""

import re

from ml_collections import ConfigDict

SECTION = re.compile(r'task\d?')


def list_sections(config: ConfigDict) -> list[str]:
  return [key for key in config if SECTION.fullmatch(key)]


def choose_sizes(own: ConfigDict, kind: str) -> None:
  """Gives a section the fields of a task of this kind, except what only the data can say."""
  heads, view = own.heads, own.augment.size or own.views[kind in ('segmentation', 'detection')]
  for field in ('name', 'views', 'heads'):
    del own[field]
  own.update(kind=kind, size=own.size or round(view * 1.15))
  own.augment.size = view
  own.head = heads.get(kind, ConfigDict())
