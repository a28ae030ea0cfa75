"""Prepares downloaded archives for training: reads the labels, resizes the images, splits by patient, writes records.

    python -m tfds_builders.build nih_chest_xray mura --archives /archives --data_dir /prepared --size 256
    python -m tfds_builders.build nih_chest_xray --archives /archives --data_dir /prepared --beam -- --runner=...

TensorFlow is not needed.
"""
import argparse
import functools
import importlib
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from typing import Any

from tfds_builders.common import exits

if __name__ == '__main__':
  exits.stop_on_interrupt()

import tensorflow_datasets as tfds

from tfds_builders import sanity
from tfds_builders.common import (
  archives,
  dataset,
  index,
  label_columns,
  locks,
  paths,
  records,
  tfds_patches,
  writer,
)
from tfds_builders.common.suggest import suggest
from tfds_builders.custom import custom

NAMES = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental', 'knee_oa', 'tbx11k',
         'covid19_radiography', 'vinbigdata_cxr', 'shenzhen_cxr', 'montgomery_cxr', 'lung_masks', 'indiana_cxr',
         'frac_atlas')

LOCK = '.build.lock'  # beside the versions of a dataset, while one is prepared

log = logging.getLogger(__name__)


class ArchiveChanged(ValueError):
  """The prepared dataset was made from another archive than the one at hand."""


def load(name: str) -> types.ModuleType:
  """Module of a builder; it has `ARCHIVE`, `Builder` and `read_archive`."""
  if name not in NAMES:
    raise ValueError(f'unknown dataset {name!r}: choose one of {", ".join(NAMES)}{suggest(name, NAMES)}')
  return importlib.import_module(f'tfds_builders.{name}.{name}_dataset_builder')


def find_archive(name: str) -> archives.Archive:
  """What a dataset's archive looks like on disk."""
  return load(name).ARCHIVE if name in NAMES else custom.make_archive(name)


def find_root(name: str, archives_dir: str | os.PathLike[str]) -> pathlib.Path:
  """Root of a dataset's archive. For a custom dataset this is <archives_dir>/<name>, which holds labels.csv.

  Raises:
    archives.ArchiveMissing: the message says what was expected.
  """
  if name in NAMES:
    return archives.find_root(load(name).ARCHIVE, archives_dir)
  return custom.find_root(name, archives_dir)


def locate(name: str, data_dir: str | os.PathLike[str], size: str = '256') -> pathlib.Path:
  """Folder of a prepared dataset, whether it exists or not: <data_dir>/<name>/<size>/<version>."""
  if size not in dataset.SIZES:
    raise ValueError(f'unknown size {size!r}: choose one of {", ".join(dataset.SIZES)}')
  return pathlib.Path(data_dir).expanduser().absolute() / name / size / str(dataset.VERSION)


def find_missing(
    names: Sequence[str], archives_dir: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None,
    size: str = '256') -> list[archives.ArchiveMissing]:
  """One ArchiveMissing per dataset that has no archive and, if a data_dir is given, is not prepared there either."""
  missing = []
  for name in names:
    try:
      find_root(name, archives_dir)
    except archives.ArchiveMissing as error:
      if data_dir is None or not is_prepared(locate(name, data_dir, size)):
        missing.append(error)
  return missing


def is_prepared(path: pathlib.Path) -> bool:
  """The index is written last, so an interrupted build does not count."""
  return (path / 'dataset_info.json').exists() and (path / index.NAME).exists()


def prepare(
    name: str, archives_dir: str | os.PathLike[str], data_dir: str | os.PathLike[str], size: str = '256',
    overwrite: bool = False, tolerated: float = records.TOLERATED, beam: Sequence[str] | None = None) -> pathlib.Path:
  """Prepares one dataset. Does nothing if it has been prepared there from the same archive. Waits for another process
  that prepares it.

  Args:
    name: one of NAMES, or a custom dataset.
    archives_dir: folder with the downloads, see `archives.find_root`.
    data_dir: folder of prepared datasets.
    size: 'original', '512' or '256'.
    overwrite: whether to replace a prepared dataset.
    tolerated: fraction of the archive that may be bad, from 0 to 1.
    beam: command-line options of the Apache Beam pipeline that makes the records; None uses threads of this process.

  Returns:
    Folder of the prepared version, for tfds.builder_from_directory. It also holds rejects.csv and index.csv.

  Raises:
    archives.ArchiveMissing: no archive, and nothing prepared.
    ArchiveChanged: prepared from an archive with other files, and `overwrite` is false.
    records.TooManyRejects: nothing is left behind.
    ModuleNotFoundError: `beam` is given but Apache Beam is not installed.
  """
  path = locate(name, data_dir, size)
  if is_prepared(path) and not overwrite:
    index.check_prepared(path)
    check_archive(name, archives_dir, path)
    return path
  make_builder = find_builder(name, archives_dir)  # before anything is deleted
  manual = tfds.download.DownloadConfig(manual_dir=pathlib.Path(archives_dir).expanduser().absolute())
  if beam is not None:
    make_builder, manual.beam_options = use_beam(make_builder, beam)
  with locks.hold(path.parent / LOCK, f'prepares {path}') as holds:
    if is_prepared(path) and not overwrite:  # meanwhile, by the process that held the lock
      check_archive(name, archives_dir, path)
      return path
    remove_leftovers(path, holds)
    build_dataset(make_builder, manual, path, tolerated)
  return path


def add_labels(path: pathlib.Path) -> bool:
  """Adds the labels to the index of a dataset that an earlier version prepared, which reads every record once. Returns
  whether it had none. Waits for another process that prepares the dataset.

  Raises:
    ValueError: a record is not the one that the index was written for.
    OSError: the folder cannot be written.
  """
  if label_columns.has_labels(path / index.NAME):
    return False
  with locks.hold(path.parent / LOCK, f'adds labels to {path}/{index.NAME}'):
    if not label_columns.has_labels(path / index.NAME):  # else the process that held the lock has added them
      log.info('%s: adding the labels to %s, which reads every record once', path, index.NAME)
      index.add_labels(path)
  return True


def try_to_add_labels(path: pathlib.Path) -> str:
  """`add_labels`; returns what it did as the end of a sentence. Without labels a dataset can be used, too."""
  try:
    return '; labels added to index.csv' if add_labels(path) else ''
  except OSError as error:
    return f'; labels could not be added to index.csv: {(exits.explain(error) or (0, error))[1]}'


def remove_leftovers(path: pathlib.Path, is_alone: bool) -> None:
  """Removes what is at `path`, and what killed builds left beside it. Only a build that is alone can tell whether they
  were killed."""
  shutil.rmtree(path, ignore_errors=True)
  for leftover in path.parent.glob(f'incomplete.*_{path.name}'):
    if is_alone:
      shutil.rmtree(leftover, ignore_errors=True)
    else:
      log.warning('%s is from a killed build, or from one that is running now. Delete it if no build is running.',
                  leftover)


def build_dataset(make_builder: type[tfds.core.GeneratorBasedBuilder], manual: tfds.download.DownloadConfig,
                  path: pathlib.Path, tolerated: float) -> None:
  """Writes the records and then the index to `path`, see `locate`."""
  builder = make_builder(data_dir=path.parents[2], config=path.parent.name, file_format='array_record')
  builder.tolerated = tolerated
  builder._example_writer = functools.partial(writer.SortedWriter, builder.info.file_format)
  # TFDS needs a download folder even if nothing is downloaded; a temporary one keeps data_dir clean.
  with tfds_patches.silence(), tfds_patches.spill_without_tensorflow(), tempfile.TemporaryDirectory() as downloads:
    builder.download_and_prepare(download_dir=downloads, download_config=manual)
  records.check_masks(builder, path)
  index.write(path, builder.split_rules, builder.strata)


def find_builder(name: str, archives_dir: str | os.PathLike[str]) -> type[tfds.core.GeneratorBasedBuilder]:
  """The TFDS builder class of a dataset, also of a custom one. Raises archives.ArchiveMissing."""
  root = find_root(name, archives_dir)
  archives.check_file_names(find_archive(name), root)
  return load(name).Builder if name in NAMES else custom.make_builder(name, root)


def read_tables(name: str, archives_dir: str | os.PathLike[str]) -> tfds.core.GeneratorBasedBuilder:
  """A builder that has read the tables and file names of its archive and assigned the splits, but has decoded no image.

  It has the metadata in `info`, and `entries`, `split_rules` and `strata` (`records.split_generators`). Images that
  cannot be decoded are still among the entries.
  """
  with tempfile.TemporaryDirectory() as folder:
    builder = find_builder(name, archives_dir)(data_dir=folder, config='256')
  builder._split_generators(types.SimpleNamespace(manual_dir=pathlib.Path(archives_dir).expanduser().absolute()))
  return builder


def use_beam(
    builder_class: type[tfds.core.GeneratorBasedBuilder],
    options: Sequence[str]) -> tuple[type[tfds.core.GeneratorBasedBuilder], Any]:
  """(builder class, pipeline options) for Apache Beam. Imports it only here, since it is an optional extra."""
  try:
    from apache_beam.options import pipeline_options
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError('--beam needs Apache Beam: pip install -r requirements.txt "apache-beam>=2.77,<3"',
                              name=error.name) from error
  from tfds_builders.common import beam
  return beam.use_workers(builder_class), pipeline_options.PipelineOptions(options)


def check_archive(name: str, archives_dir: str | os.PathLike[str], path: pathlib.Path) -> None:
  """Raises ArchiveChanged if `path` was prepared from another archive; a deleted archive is fine."""
  try:
    root = find_root(name, archives_dir)
  except archives.ArchiveMissing:
    return
  archive = find_archive(name)
  now = archives.fingerprint(root, archives.list_files(archive, root))
  then = read_metadata(path)['archive']
  if now != then:
    raise ArchiveChanged(
      f'{path} was prepared from another archive ({then["files"]} files, {then["sha256"][:12]}) than {root} '
      f'({now["files"]} files, {now["sha256"][:12]}). Prepare it again with --overwrite, or use another --data_dir')


def declared_metadata(name: str) -> dict[str, Any]:
  """Metadata that a builder declares without reading any archive: findings, relation, value, mask, box_classes."""
  with tempfile.TemporaryDirectory() as folder:
    return dict(load(name).Builder(data_dir=folder, config='256').info.metadata)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Metadata of a prepared dataset."""
  return tfds.builder_from_directory(path).info.metadata


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns an exit code (`exits`)."""
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.build', description=(__doc__ or '').split('\n')[0])
  parser.add_argument('names', nargs='+', metavar='NAME',
                      help=f'datasets: {", ".join(NAMES)}; "all" for all of these; or the name of your own dataset '
                           '(see docs/own-data.md)')
  parser.add_argument('--archives', required=True, help='folder with the unpacked downloads')
  parser.add_argument('--data_dir', required=True, help='folder to write the prepared datasets to')
  parser.add_argument('--size', default='256', choices=list(dataset.SIZES),
                      help='maximum length of the longer side, in pixels (default: %(default)s)')
  parser.add_argument('--overwrite', action='store_true', help='replace datasets that are already prepared')
  parser.add_argument('--tolerated', type=float, default=records.TOLERATED, metavar='FRACTION',
                      help='fraction of an archive that may be bad before the build fails (default: %(default)s)')
  parser.add_argument('--beam', action='store_true',
                      help='make the records in an Apache Beam pipeline; put its options after --')
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  end = arguments.index('--') if '--' in arguments else len(arguments)
  flags, beam = parser.parse_args(arguments[:end]), arguments[end + 1:]
  if beam and not flags.beam:
    parser.error(f'options after -- are for Apache Beam: add --beam, or remove {" ".join(beam)}')
  paths.check('--archives', flags.archives, paths.find_archives_defect)
  paths.check('--data_dir', flags.data_dir, paths.find_data_defect)
  names = list(dict.fromkeys(name for given in flags.names for name in (NAMES if given == 'all' else [given])))
  missing = find_missing(names, flags.archives, None if flags.overwrite else flags.data_dir, flags.size)
  for error in missing:
    unknown = isinstance(error, custom.UnknownDataset)
    near = suggest(error.dataset, NAMES)
    print(f'{error}. Datasets with a builder: {", ".join(NAMES)}{near}' if unknown else error, file=sys.stderr)
  if missing:
    return exits.REFUSED
  for name in names:
    start, before = time.time(), is_prepared(locate(name, flags.data_dir, flags.size)) and not flags.overwrite
    path = prepare(name, flags.archives, flags.data_dir, flags.size, flags.overwrite, flags.tolerated,
                   beam if flags.beam else None)
    report = [] if before else sanity.check(path).describe()
    updated = try_to_add_labels(path)
    print(records.summarise(path), *report, f'already prepared{updated}' if before else f'{time.time() - start:.1f} s',
          sep='\n  ')
  return 0


if __name__ == '__main__':
  sys.exit(main())
