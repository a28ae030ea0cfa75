"""Errors that the person who gave the command can fix, and values as messages show them."""

LONGEST = 500  # characters of a line
SHOWN = 80  # characters of a value in a message


class ConfigError(ValueError):
  """Something that the person who gave the command can mend; shown as one line, without a traceback. `remedy`: {field:
  value} that mends it, where one is known."""

  def __init__(self, words, remedy=None, also=''):
    advice = f': try {write_flags(remedy)}{also}' if remedy else ''
    super().__init__(f'{words}{advice}')
    self.remedy = remedy or {}


def write_flags(remedy):
  return ' '.join(f'--config.{field}={value}' for field, value in remedy.items())


def as_line(text):
  """Any text as one line that can be printed."""
  line = ' '.join(str(text).split())
  line = ''.join(one if one.isprintable() else one.encode('unicode_escape').decode() for one in line)
  return line if len(line) <= LONGEST else f'{line[:LONGEST]}...'


def show(value):
  """A value as Python writes it, cut where it is long."""
  words = ' '.join(repr(value).split())
  return words if len(words) <= SHOWN else f'{words[:SHOWN]}...'
