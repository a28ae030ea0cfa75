"""Makes the page of a run again, or puts several runs side by side.

    python -m mtpret_jax.report RUN                     writes RUN/report.html
    python -m mtpret_jax.report RUN RUN ... --out FILE  compares the runs

It reads the files in the workdirs only: no accelerator, no archives and no prepared data are needed.
"""

import argparse
from collections.abc import Sequence

from tfds_builders.common import exits

if __name__ == '__main__':
  exits.stop_on_interrupt()


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog='python -m mtpret_jax.report', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('runs', nargs='+', metavar='RUN',
                      help='the workdir of a run, an evaluation, a recipe or a table')
  parser.add_argument('--out', metavar='FILE',
                      help='where to write the page (RUN/report.html; comparison.html for several runs)')
  options = parser.parse_args(arguments)
  from mtpret_jax.report.page import write_comparison, write_page  # after the flags, because it takes a second
  path = write_page(options.runs[0], options.out) if len(options.runs) == 1 else write_comparison(
    options.runs, options.out or 'comparison.html')
  print(f'See {path}')
  return 0


if __name__ == '__main__':
  raise SystemExit(main())
