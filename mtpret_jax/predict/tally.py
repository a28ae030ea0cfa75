"""How many images were predicted, how fast, and which could not be read."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

from tfds_builders.common.plain_text import escape

LISTED = 5  # unreadable images that are named; the table has all of them


@dataclasses.dataclass
class Tally:
  """Attributes:
    batch: images that the model predicts at a time.
    readable: images that were predicted.
    unreadable: [(image, reason), ...].
    doubtful: predictions with a warning.
    start: when the first batch was there. It includes the compilation, so the rate leaves it out.
  """

  batch: int
  readable: int = 0
  unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  doubtful: int = 0
  start: float | None = None

  def add(self, warning: str) -> None:
    if self.start is None:
      self.start = time.perf_counter()
    self.readable += 1
    self.doubtful += bool(warning)

  def describe(self, files: Sequence[pathlib.Path]) -> list[str]:
    """Lines for the end of the command, which is now."""
    lines = [f'{count(self.readable, "image")} predicted{self.describe_rate()}']
    if self.doubtful:
      lines.append(f'{count(self.doubtful, "prediction")} with a warning: see the column "warning"')
    if self.unreadable:
      lines.append(f'{count(len(self.unreadable), "image")} could not be read:')
      lines += [f'  {escape(name)}: {reason}' for name, reason in self.unreadable[:LISTED]]
      if len(self.unreadable) > LISTED:
        lines.append(f'  and {len(self.unreadable) - LISTED:,} more: see the column "error"')
    return [*lines, *(f'wrote {escape(str(path))}' for path in files)]

  def describe_rate(self) -> str:
    """', 120 images/s without compiling', or ', too few images to time' if there was one batch only."""
    rest, seconds = self.readable - self.batch, time.perf_counter() - (self.start or 0)
    if rest <= 0:
      return ', too few images to time' if self.readable else ''
    return f', {rest / seconds:,.{0 if rest > 10 * seconds else 1}f} images/s without compiling'


def count(number: int, thing: str) -> str:
  """'1 image', '1,200 images'."""
  return f'{number:,} {thing}{"" if number == 1 else "s"}'
