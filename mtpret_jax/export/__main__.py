"""Exports the trained model of a run, with a model card.

    python -m mtpret_jax.export runs/finetune/pneumonia --to torchvision
    python -m mtpret_jax.export runs/continual --to safetensors --task lung --out lung

  torchvision   weights under torchvision's names, and a script that predicts with them in PyTorch
  safetensors   weights and config for mtpret_jax.load, without the optimiser
  stablehlo     a program of jax.export from image to prediction, for CPU, GPU and TPU

docs/export.md describes the files.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfds_builders.common import exits

if __name__ == '__main__':
  exits.stop_on_interrupt()

from mtpret_jax.config.errors import ConfigError

if TYPE_CHECKING:
  from mtpret_jax.export.trained import Trained

FORMATS = ('torchvision', 'safetensors', 'stablehlo')


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns an exit code (`exits`)."""
  flags = make_parser().parse_args(arguments)
  print('mtpret_jax: starting; the imports take a few seconds', file=sys.stderr, flush=True)
  import jax
  jax.config.update('jax_platforms', 'cpu')  # nothing is computed, so accelerators stay free
  from mtpret_jax.export.folder import write_whole
  from mtpret_jax.export.trained import read_run

  run = pathlib.Path(flags.run).expanduser()
  default = run / 'export' / '-'.join(filter(None, (flags.to, flags.task)))
  out = pathlib.Path(flags.out).expanduser() if flags.out else default
  trained = read_run(run, flags.state)
  tasks = [flags.task] if flags.task else list(trained.tasks)
  if not set(tasks) <= set(trained.tasks):
    there = f'choose one of {", ".join(trained.tasks)}' if trained.tasks else 'leave out --task, it has none'
    raise ConfigError(f'{run} has no task {flags.task!r}: {there}')
  with write_whole(out, flags.overwrite) as folder:
    write(trained, tasks, folder, flags)
  print(f'exported step {trained.step:,} of {run} to {out}')
  for path in sorted(path for path in out.rglob('*') if path.is_file()):
    print(f'  {path.relative_to(out)}  {path.stat().st_size / 2**20:,.1f} MiB')
  return 0


def make_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m mtpret_jax.export', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('run', metavar='RUN', help='workdir of a run of any stage, or a folder exported to safetensors')
  parser.add_argument('--to', required=True, choices=FORMATS)
  parser.add_argument('--task', default='', help='only this task of a run with several tasks (default: all of them)')
  parser.add_argument('--out', default='', metavar='FOLDER', help='a new folder (default: RUN/export/FORMAT)')
  parser.add_argument('--state', default='', choices=('best', 'last'),
                      help='of the run (default: the best by validation; the last one of a run with several tasks)')
  parser.add_argument('--channels', type=int, default=3, choices=(1, 3),
                      help='torchvision: of the images, which are grey (default: 3 equal ones)')
  parser.add_argument('--overwrite', action='store_true', help='replace an earlier export')
  return parser


def write(trained: 'Trained', tasks: Sequence[str], folder: pathlib.Path, flags: argparse.Namespace) -> None:
  """Writes the files and the card. The other formats have one head, so each of several tasks gets a folder."""
  from mtpret_jax.export import card, own_weights, stablehlo, torchvision, usage
  if flags.to == 'safetensors':
    own_weights.write(trained, tasks, folder)
    card.write(trained, tasks, folder, usage.describe_own_weights(tasks))
    return
  for task in tasks or (None,):
    own = folder / str(task) if len(tasks) > 1 else folder
    own.mkdir(exist_ok=True)
    if flags.to == 'stablehlo':
      text = usage.describe_stablehlo(stablehlo.write(trained, task, own))
    else:
      torchvision.write(trained, task, own, flags.channels)
      text = usage.describe_torchvision(torchvision.describe(trained, task, flags.channels))
    card.write(trained, [task] if task else [], own, text)


if __name__ == '__main__':
  exits.leave(main())
