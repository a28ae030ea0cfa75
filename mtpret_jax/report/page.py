"""`report.html`: one page that shows everything about a run and needs no other file.

It is made from the files in the workdir, so that `python -m mtpret_jax.report RUN` can make it again at any time.
"""

import logging
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence

import jinja2

from mtpret_jax.report.blocks import Page
from mtpret_jax.report.pages import comparison, continual, pretrain, recipe, scores
from mtpret_jax.report.plots.figure import number_plots, themed
from mtpret_jax.report.run_files import (
  CONTINUAL,
  PRETRAIN,
  RECIPE,
  REPORT,
  SCORES,
  TABLE,
  NotARun,
  RunFiles,
  list_stages,
  open_run,
)
from mtpret_jax.runtime.atomic_io import write_atomically

log = logging.getLogger(__name__)

TEMPLATES = pathlib.Path(__file__).parent / 'template'
MAKERS: Mapping[str, Callable[[RunFiles], Page]] = {
  SCORES: scores.make_page, PRETRAIN: pretrain.make_page, CONTINUAL: continual.make_page, RECIPE: recipe.make_page,
  TABLE: lambda run: import_table_page()(run)}


def import_table_page() -> Callable[[RunFiles], Page]:
  """Imported only for a table, because its numbers need jax."""
  from mtpret_jax.report.pages.table import make_page
  return make_page


def announce(workdir: str | pathlib.Path) -> None:
  """Writes the page at the end of a run and prints its path, in the last line of the run. If that fails, there is a
  warning: everything else is written by then, and the page can be made again."""
  try:
    print(f'Report: {write_page(workdir)}')
  except Exception as error:  # whatever it is, it must not fail a run of hours
    log.warning('%s could not be written (%s: %s). To try again: python -m mtpret_jax.report %s', REPORT,
                type(error).__name__, error, shlex.quote(str(workdir)))


def write_page(workdir: str | pathlib.Path, out: str | pathlib.Path | None = None) -> pathlib.Path:
  """Writes the page of the run in `workdir` to `out`, or to `report.html` in `workdir`, and returns its path. A run
  that is not finished, or whose files are damaged, gets a page that says what is missing.

  Raises:
    NotARun: `workdir` has no file of a run.
  """
  run = open_run(workdir)
  if run.kind == RECIPE:
    write_missing_pages(run.folder)
  with themed():
    page = MAKERS[run.kind](run)
  path = pathlib.Path(out or run.folder / REPORT)
  write_atomically(path, render(page))
  return path


def write_missing_pages(recipe: pathlib.Path) -> None:
  """The pages of stages that have none, because they are of an earlier version or were stopped while they reported."""
  for stage in list_stages(recipe):
    if not (stage / REPORT).exists():
      try:
        write_page(stage)
      except NotARun as error:
        log.warning('no report of a stage: %s', error)


def write_comparison(workdirs: Sequence[str | pathlib.Path], out: str | pathlib.Path) -> pathlib.Path:
  """Writes a page that puts the runs in `workdirs` side by side to `out`, and returns its path.

  Raises:
    NotARun: one of them has no file of a run.
  """
  path = pathlib.Path(out)
  with themed():
    page = comparison.make_page([open_run(workdir) for workdir in workdirs], path)
  write_atomically(path, render(page))
  return path


def render(page: Page) -> str:
  """The page as HTML. Everything that is not `Markup` is escaped."""
  templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                                 lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  return number_plots(templates.get_template('page.html.jinja').render(page=page))
