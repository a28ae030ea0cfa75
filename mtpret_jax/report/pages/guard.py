"""Parts of a page that cannot be made from damaged files are left out, and the page says so."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from mtpret_jax.config.errors import as_line
from mtpret_jax.report.blocks import Block, Section
from mtpret_jax.report.run_files import DAMAGED, RunFiles


def make_sections(run: RunFiles, *makers: tuple[str, Callable[[RunFiles], Iterable[Block]]]) -> list[Section]:
  """A section for each (title, function that returns its blocks), without empty ones."""
  sections = [Section(title, attempt(run, title, functools.partial(list_blocks, run, make), []))
              for title, make in makers]
  return [section for section in sections if section.blocks]


def list_blocks(run: RunFiles, make: Callable[[RunFiles], Iterable[Block]]) -> list[Block]:
  return list(make(run))


def attempt(run: RunFiles, what: str, make: Callable[[], Any], otherwise: Any) -> Any:
  """What `make` returns. Where the files that it reads are damaged, `otherwise`, and a problem names `what`."""
  try:
    return make()
  except DAMAGED as error:
    run.problems.append(f'"{what}" is missing: a file of the run is damaged or of another version '
                        f'({type(error).__name__}: {as_line(error)}).')
    return otherwise
