"""Prepares downloaded archives for reading, without TensorFlow.

    python -m tfds_builders.build nih_chest_xray mura --archives /archives --data_dir /prepared --size 256
    python -m tfds_builders.build nih_chest_xray --archives /archives --data_dir /prepared --beam -- --runner=...
"""
import argparse
import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import time
import types

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from tfds_builders.common import archives, dataset, index, writer
from tfds_builders.custom import custom

NAMES = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental', 'knee_oa', 'tbx11k',
         'covid19_radiography', 'vinbigdata_cxr', 'shenzhen_cxr', 'montgomery_cxr', 'lung_masks', 'indiana_cxr')

log = logging.getLogger(__name__)


class ArchiveChanged(ValueError):
  """What is prepared was made from another archive than the one at hand."""


def load(name):
  """Module of a builder: has `ARCHIVE` and `Builder`."""
  if name not in NAMES:
    raise ValueError(f'unknown dataset {name!r}; have {", ".join(NAMES)}')
  return importlib.import_module(f'tfds_builders.{name}.{name}_dataset_builder')


def find_root(name, archives_dir):
  """Where the archive of a dataset lies: of one of NAMES, or an own one, <archives_dir>/<name> with a labels.csv.

  Raises:
    archives.ArchiveMissing: the message says what was expected.
  """
  return archives.find(load(name).ARCHIVE, archives_dir) if name in NAMES else custom.find(name, archives_dir)


def locate(name, data_dir, size='256'):
  """Where a dataset is, or would be, prepared: <data_dir>/<name>/<size>/<version>."""
  if size not in dataset.SIZES:
    raise ValueError(f'unknown size {size!r}; have {", ".join(dataset.SIZES)}')
  return pathlib.Path(data_dir).expanduser().absolute() / name / size / str(dataset.VERSION)


def missing(names, archives_dir, data_dir=None, size='256'):
  """One ArchiveMissing for each dataset that has no archive and, with a data_dir, is not prepared either."""
  absent = []
  for name in names:
    try:
      find_root(name, archives_dir)
    except archives.ArchiveMissing as error:
      if data_dir is None or not is_prepared(locate(name, data_dir, size)):
        absent.append(error)
  return absent


def is_prepared(path):
  """The index is written last: a build that was stopped before it is done again."""
  return (path / 'dataset_info.json').exists() and (path / index.NAME).exists()


def prepare(name, archives_dir, data_dir, size='256', overwrite=False, tolerated=dataset.TOLERATED, beam=None):
  """Prepares one dataset, or does nothing where the same archive has been prepared there.

  Args:
    name: one of NAMES, or of an own archive.
    archives_dir: folder with the downloads, see `archives.find`.
    data_dir: folder of prepared datasets.
    size: 'original', '512' or '256'.
    overwrite: whether to replace what is prepared.
    tolerated: share of the archive that may be bad.
    beam: options of an Apache Beam pipeline that makes the records, as on its command line; None for threads here.

  Returns:
    pathlib.Path of the prepared version, for tfds.builder_from_directory. It holds rejects.csv and index.csv, too.

  Raises:
    archives.ArchiveMissing: no archive, and nothing prepared.
    ArchiveChanged: prepared from an archive with other files, and not to be overwritten.
    dataset.TooManyRejects: nothing is left behind then.
    ModuleNotFoundError: Beam is asked for and not installed.
  """
  path = locate(name, data_dir, size)
  if is_prepared(path) and not overwrite:
    refuse_other(name, archives_dir, path)
    return path
  root = find_root(name, archives_dir)  # before anything is deleted
  make = load(name).Builder if name in NAMES else custom.make_builder(name, root)
  manual = tfds.download.DownloadConfig(manual_dir=pathlib.Path(archives_dir).expanduser().absolute())
  if beam is not None:
    make, manual.beam_options = spread(make, beam)
  shutil.rmtree(path, ignore_errors=True)
  for debris in path.parent.glob(f'incomplete.*_{path.name}'):
    log.warning('%s is left of a build that was killed (or belongs to one that runs now): it may be deleted', debris)
  builder = make(data_dir=pathlib.Path(data_dir).expanduser().absolute(), config=size, file_format='array_record')
  builder.tolerated = tolerated
  builder._example_writer = functools.partial(writer.SortedWriter, builder.info.file_format)
  # TFDS wants a folder for downloads even where nothing is downloaded; not one left in data_dir.
  with hushed(), spill_without_tensorflow(), tempfile.TemporaryDirectory() as downloads:
    builder.download_and_prepare(download_dir=downloads, download_config=manual)
  index.write(path, builder.rules)
  return path


def spread(make, options):
  """(builder class, pipeline options) for Apache Beam; imported only here, since it is an optional extra."""
  try:
    from apache_beam.options import pipeline_options
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError('--beam needs Apache Beam: pip install -r requirements.txt "apache-beam>=2.77,<3"',
                              name=error.name) from error
  from tfds_builders.common import beam
  return beam.spread(make), pipeline_options.PipelineOptions(options)


def refuse_other(name, archives_dir, path):
  """Raises ArchiveChanged if the archive at hand is not the one prepared; an archive since deleted is no fault."""
  try:
    root = find_root(name, archives_dir)
  except archives.ArchiveMissing:
    return
  archive = load(name).ARCHIVE if name in NAMES else custom.make_archive(name)
  now = archives.fingerprint(root, archives.list_files(archive, root))
  then = read_metadata(path)['archive']
  if now != then:
    raise ArchiveChanged(
      f'{path} was prepared from another archive ({then["files"]} files, {then["sha256"][:12]}) than {root} '
      f'({now["files"]} files, {now["sha256"][:12]}): prepare with --overwrite, or into another --data_dir')


def describe(name):
  """What the builder `name` says of its dataset before there is any archive: findings, relation, mask, kinds."""
  with tempfile.TemporaryDirectory() as folder:
    return dict(load(name).Builder(data_dir=folder, config='256').info.metadata)


def read_metadata(path):
  return tfds.builder_from_directory(path).info.metadata


@contextlib.contextmanager
def hushed():
  """Turns off TFDS's prints and bars; warnings and errors stay, and our own bar is not TFDS's."""
  tfds.disable_progress_bar()
  try:
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
      yield
  finally:
    tfds.enable_progress_bar()


@contextlib.contextmanager
def spill_without_tensorflow():
  """Lets TFDS sort a split of more than 1 GB without TensorFlow.

  TFDS sorts records by hash in memory, and from 1 GB on in bucket files, for which it uses tf.io.gfile even if the
  records are array_record (4.9.10, core/shuffle.py). Its three calls are given plain files here.
  """
  if importlib.util.find_spec('tensorflow'):
    yield
    return
  gfile = types.SimpleNamespace(GFile=open_bucket, exists=os.path.exists, remove=os.remove)
  lazy = shuffle.tf
  shuffle.tf = types.SimpleNamespace(
    io=types.SimpleNamespace(gfile=gfile), errors=types.SimpleNamespace(ResourceExhaustedError=MemoryError))
  try:
    yield
  finally:
    shuffle.tf = lazy


def open_bucket(path, mode):
  return Bucket(path) if mode == 'wb' else open(path, mode)


class Bucket:
  """A file that is open only while written to: TFDS keeps 1000 of them, and the usual limit is 1024 open files."""

  def __init__(self, path):
    self.path = path

  def write(self, data):
    with open(self.path, 'ab') as file:
      file.write(data)

  def flush(self):
    pass

  def close(self):
    pass


def summarise(path):
  """What is prepared, in a few lines: images per split, size, rejects, what was left out."""
  info = tfds.builder_from_directory(path).info
  counts = ', '.join(f'{name} {split.num_examples:,}' for name, split in info.splits.items())
  lines = [f'{path}: {counts} images, {info.dataset_size / 2**20:,.1f} MiB']
  for title, table in (('rejected (rejects.csv)', 'rejects'), ('left out', 'left_out')):
    lines += [f'  {title}: {count:,} {reason}' for reason, count in info.metadata[table].items()]
  return '\n'.join(lines)


def main(arguments=None):
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.build', description=__doc__.split('\n')[0])
  parser.add_argument('names', nargs='+', metavar='NAME',
                      help=f'{", ".join(NAMES)}, all of these, or an own archive (own_archive/README.md)')
  parser.add_argument('--archives', required=True, help='folder with the downloads, unpacked')
  parser.add_argument('--data_dir', required=True, help='folder for what is prepared')
  parser.add_argument('--size', default='256', choices=list(dataset.SIZES), help='pixels of the longer side, at most')
  parser.add_argument('--overwrite', action='store_true', help='replace what is prepared')
  parser.add_argument('--tolerated', type=float, default=dataset.TOLERATED, help='share of an archive that may be bad')
  parser.add_argument('--beam', action='store_true',
                      help='make the records in an Apache Beam pipeline; its options follow after --')
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  end = arguments.index('--') if '--' in arguments else len(arguments)
  flags, beam = parser.parse_args(arguments[:end]), arguments[end + 1:]
  if beam and not flags.beam:
    parser.error(f'{" ".join(beam)} are options of Apache Beam, which runs with --beam only')
  names = NAMES if 'all' in flags.names else flags.names
  absent = missing(names, flags.archives, None if flags.overwrite else flags.data_dir, flags.size)
  for error in absent:
    unknown = isinstance(error, custom.UnknownDataset)
    print(f'{error}; builders there are: {", ".join(NAMES)}' if unknown else error, file=sys.stderr)
  if absent:
    return 2
  for name in names:
    start, before = time.time(), is_prepared(locate(name, flags.data_dir, flags.size)) and not flags.overwrite
    try:
      path = prepare(name, flags.archives, flags.data_dir, flags.size, flags.overwrite, flags.tolerated,
                     beam if flags.beam else None)
    except (ValueError, OSError, ModuleNotFoundError) as error:
      print(error, file=sys.stderr)
      return 1
    print(summarise(path), 'prepared before' if before else f'{time.time() - start:.1f} s', sep='\n  ')
  return 0


if __name__ == '__main__':
  sys.exit(main())
