"""What all pictures of a run have in common: names in them are text, and none of them stops the run."""

import contextlib
import logging
from collections.abc import Iterator

log = logging.getLogger(__name__)


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
  """Figures made and saved in the `with` block show a `$` in a name as it is. matplotlib would read what is between two
  of them as mathematics, and raise ValueError if it is none. Also a decorator."""
  import matplotlib  # imported here, because it would add half a second to every start
  with matplotlib.rc_context({'text.parse_math': False}):
    yield


@contextlib.contextmanager
def optional_picture(name: str) -> Iterator[None]:
  """An error of the `with` block becomes a warning that the picture `name` is missing: it is not worth a run of days.
  OSError is raised, because on a full disk the results that follow would fail as well."""
  try:
    yield
  except OSError:
    raise
  except Exception as error:
    log.warning('the picture %s is missing, because drawing it failed: %s: %s', name, type(error).__name__, error)
