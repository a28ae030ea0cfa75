"""Predicts for new images with a trained model: a table of scores, masks, boxes and pictures; or writes features.

    python -m mtpret_jax.predict --run=runs/finetune/lung scans --overlays
    python -m mtpret_jax.predict --run=runs/finetune/pneumonia 'scans/**/*.dcm' --out=predictions
    python -m mtpret_jax.predict --run=runs/pretrain scans --embed --out=features

docs/predict.md describes what is read and written.
"""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from tfds_builders.common import exits
from tfds_builders.common.suggest import suggest

if __name__ == '__main__':
  exits.stop_on_interrupt()

from tqdm import tqdm

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.predict import inputs, results
from mtpret_jax.predict.reading import Unreadable, read_images
from mtpret_jax.predict.tally import Tally, count
from mtpret_jax.runtime import backend
from mtpret_jax.tasks import find_kind
from tfds_builders.common.dataset import SIZES

FOLDER = 'predictions'  # beside the weights, unless --out names another one
NOTE = 'Research software, not a medical device: do not use the output for decisions about patients.'


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns an exit code (`exits`), REFUSED also where no image can be read."""
  flags = parse(arguments)
  out = find_folder(flags)
  results.check_folder(out, flags.overwrite)
  paths = inputs.find_images(flags.images, leave_out=out)
  print(f'mtpret_jax: {count(len(paths), "image")}; loading the model takes a few seconds', file=sys.stderr, flush=True)
  model = load_model(flags)
  results.clear_folder(out)
  made_by = describe(model, flags)
  results.write_mark(out, made_by, finished=False)
  writer = results.Embeddings(out) if flags.embed else results.Predictions(
    out, find_kind(model.kind), model.about, model.thresholds, flags.overlays)
  batch = flags.batch or model.choose_batch(len(paths))
  print(f'mtpret_jax: compiling for batches of {count(batch, "image")}; the first time this may take minutes',
        file=sys.stderr, flush=True)
  tally = predict_all(model, paths, writer, batch)
  results.write_mark(out, made_by | {'images': len(paths), 'unreadable': len(tally.unreadable)}, finished=True)
  print(*tally.describe(writer.files), NOTE, sep='\n')
  return 0 if tally.readable else exits.REFUSED


def find_folder(flags: argparse.Namespace) -> pathlib.Path:
  run = pathlib.Path(flags.run[0]).expanduser()
  return pathlib.Path(flags.out).expanduser() if flags.out else (run.parent if run.is_file() else run) / FOLDER


def load_model(flags: argparse.Namespace) -> Any:
  """The model that the flags name.

  Raises:
    ConfigError: it is none, or it cannot do what the flags ask for.
  """
  if backend.is_cpu():
    backend.skip_libtpu()
  from absl import logging as absl_logging

  from mtpret_jax.predict.load import load  # here, because jax is slow to import: a typo is reported at once
  from mtpret_jax.runtime import compilation_cache
  absl_logging.set_verbosity(absl_logging.WARNING)  # the libraries log a lot through absl
  logging.getLogger('pydicom.pixels').setLevel(logging.CRITICAL)  # the row of an image says why it is unreadable
  compilation_cache.enable_cache()
  model = load(flags.run, task=flags.task, state=flags.state)
  if model.tasks and not model.task:
    raise ConfigError(f'{flags.run[0]} has several tasks: add --task=NAME with one of {", ".join(model.tasks)}')
  if not model.tasks and not flags.embed:
    raise ConfigError(f'{flags.run[0]} has no head, so it predicts nothing: add --embed to write its features, or name '
                      f'a run of stage 2 or 3')
  return model


def describe(model: Any, flags: argparse.Namespace) -> dict[str, Any]:
  """What made the result, for `predict.json`. `states` and `steps` have an entry for each of `runs`; `stored_size` is
  None where images keep their size."""
  from mtpret_jax.runtime.logging import list_versions  # here, because it imports jax
  made_by = {'runs': [str(pathlib.Path(run).expanduser().absolute()) for run in flags.run], 'task': model.task,
             'states': [member.chosen for member in model.members], 'steps': [member.step for member in model.members],
             'stored_size': SIZES[model.stored_size], 'versions': list_versions(), 'note': NOTE}
  if flags.embed:
    return made_by
  annotation = find_kind(model.kind).annotation
  relation = {'relation': model.about['relation']} if annotation == 'findings' else {}
  return made_by | {'kind': model.kind, annotation: model.about[annotation], **relation,
                    'thresholds': dict(model.thresholds)}


def predict_all(model: Any, paths: Sequence[pathlib.Path], writer: results.Predictions | results.Embeddings,
                batch: int) -> Tally:
  """Reads images ahead in threads, predicts them in batches and writes each result, so that memory stays flat."""
  tally, readings = Tally(batch), read_images(paths, model.stored_size)
  found = model.iterate_features(readings, batch) if isinstance(writer, results.Embeddings) else model.iterate(
    readings, batch)
  rows = zip(paths, inputs.name_outputs(paths), found, strict=True)
  for path, stem, (reading, prediction) in tqdm(rows, total=len(paths), desc='predict', unit=' images', leave=False,
                                                disable=None):
    name = str(path)
    if isinstance(reading, Unreadable):
      tally.unreadable.append((name, str(reading)))
      writer.add_unreadable(name, reading)
    else:
      tally.add(reading.warning)
      writer.add(name, stem, reading, prediction)
  writer.close()
  return tally


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='python -m mtpret_jax.predict', description=(__doc__ or '').split('\n')[0],
                                   epilog=NOTE)
  parser.add_argument('images', nargs='+', metavar='IMAGES',
                      help='image files (PNG, JPEG, TIFF, DICOM and others), folders, patterns in quotes, or a list: '
                           'a .txt with a path per line or a .csv with a column "image"')
  parser.add_argument('--run', required=True, action='append',
                      help='workdir of a run, an exported model, or with --embed also a .safetensors file; if you give '
                           'several, such as several seeds, their scores, values, masks or boxes are averaged')
  parser.add_argument('--task', help='the task to predict, for a run that has several')
  parser.add_argument('--state', choices=('best', 'last'),
                      help='of the run: best by validation (default where there is one) or last')
  parser.add_argument('--out', metavar='FOLDER', help=f'where to write (default: RUN/{FOLDER})')
  parser.add_argument('--batch', type=int, metavar='N', help="images at a time (default: the run's batch)")
  parser.add_argument('--embed', action='store_true', help="write the trunk's features instead of predictions")
  parser.add_argument('--overlays', action='store_true', help='also draw a picture of each image with its prediction')
  parser.add_argument('--overwrite', action='store_true', help='replace an earlier prediction in the folder')
  flags, unknown = parser.parse_known_intermixed_args(arguments)
  if unknown:
    known = [name for action in parser._actions for name in action.option_strings]
    parser.error(f'unknown flag {unknown[0]}{suggest(unknown[0].split("=")[0], known)}')
  if flags.batch is not None and flags.batch < 1:
    parser.error(f'--batch {flags.batch} reads no image: give at least 1')
  if flags.embed and flags.overlays:
    parser.error('--embed writes features, which no picture shows: leave out --overlays')
  if len(flags.run) > 1 and not flags.out:
    parser.error('several runs are averaged: name a folder for the result with --out')
  return flags


if __name__ == '__main__':
  exits.leave(main())
