"""'did you mean ...?' for a name that is nearly right. Imports nothing slow."""

import difflib
from collections.abc import Iterable


def find_near(name: object, choices: Iterable[object]) -> str:
  """The choice that is most like `name`, also in another case; '' if none is."""
  known = {str(choice).lower(): str(choice) for choice in choices}
  near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
  return known[near[0]] if near else ''


def suggest(name: object, choices: Iterable[object]) -> str:
  """"; did you mean 'lung'?", the end of a message about an unknown name; '' if nothing is like it."""
  near = find_near(name, choices)
  return f'; did you mean {near!r}?' if near else ''
