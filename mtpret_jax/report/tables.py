"""Plain-text tables."""

from collections.abc import Sequence


def align(table: Sequence[Sequence[str]]) -> list[str]:
  """Rows of text cells as lines with aligned columns."""
  widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
  return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def format_score(value: float | None, undefined: str = '-') -> str:
  """'0.913', or `undefined` for None."""
  return undefined if value is None else f'{value:.3f}'


def format_interval(interval: Sequence[float] | None, undefined: str = '-') -> str:
  """'0.871 to 0.954', or `undefined` for None."""
  return undefined if interval is None else ' to '.join(f'{end:.3f}' for end in interval)
