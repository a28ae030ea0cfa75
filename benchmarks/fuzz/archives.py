"""Damages a copy of a miniature phantom archive, builds it, and judges the result."""

import logging
import os
import pathlib
import shutil
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.fuzz import judge, pictures, raw, tables, trees, values
from benchmarks.fuzz.values import Report, Run
from tfds_builders import build, phantoms
from tfds_builders.common import archives, images
from tfds_builders.common.records import TOLERATED
from tfds_builders.custom import custom

IMAGES, SIZE = 12, 48  # of each miniature archive; px
FULL_BUILDS = 0.1  # share of the cases that run all of `build.prepare` and read the records back
LENIENT = 0.8  # share of the cases in which half of the archive may be bad, so that there are records to judge
PICTURES = ('.png', '.jpeg', '.jpg', '.dcm', '.dicom')


def make(folder: pathlib.Path) -> Run:
  """Cases of archives in their public layouts."""
  for name in ('tfds_builders', 'pydicom'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  clean = {name: render(folder, name) for name in build.NAMES}

  def run(rng, case, report):
    name = values.pick(rng, build.NAMES)
    return build_damaged(rng, case, report, name, folder / name, clean[name])
  return run


def render(folder: pathlib.Path, name: str) -> types.SimpleNamespace:
  """Writes an undamaged archive unless it exists, and describes it."""
  if not (folder / name).is_dir():
    phantoms.write(name, folder, images=IMAGES, size=SIZE, seed=0)
  archive = build.load(name).ARCHIVE
  root = archives.find_root(archive, folder)
  return describe_clean(root, folder, archives.list_files(archive, root), build.load(name).read_archive)


def describe_clean(root: pathlib.Path, folder: pathlib.Path, listed: Mapping[str, int],
                   read: Callable) -> types.SimpleNamespace:
  """An undamaged archive: `root`, relative to the folder; its `files` and `images`; how many images are `left_out`."""
  entries, rejects, left_out = read(root, listed)
  assert entries and not rejects, f'{root}: the undamaged archive has rejects: {rejects}'
  return types.SimpleNamespace(
    root=root.relative_to(folder), files=sorted(listed), left_out=left_out,
    images=sorted(entry.path.relative_to(folder).as_posix() for entry in entries))


def build_damaged(rng: np.random.Generator, case: pathlib.Path, report: Report, name: str, template: pathlib.Path,
                  clean: types.SimpleNamespace) -> str:
  """'whole', 'rejects' or 'refused'."""
  shutil.copytree(template, case / 'archives' / name, symlinks=True)
  kind = damage(rng, case / 'archives' / clean.root, clean.files)
  report((name, kind))
  before = list_tree(case)
  images.PLAIN_UP_TO = values.pick(rng, (16, 256))  # with 16, small PNGs may be copied as large ones are
  tolerated = 0.5 if rng.random() < LENIENT else TOLERATED
  make_records = prepare if rng.random() < FULL_BUILDS else dry_run
  try:
    records, rejects, left_out = make_records(name, case, tolerated)
  except judge.Fault:
    raise
  except Exception as error:  # judge_error says which errors are accepted
    judge.judge_error(error, name, case / 'archives', clean.files)
    outcome = 'refused'
  else:
    there = sum((case / 'archives' / path).is_file() for path in clean.images)
    judge.judge_count(records, rejects, left_out, there, clean.left_out)
    outcome = 'rejects' if rejects else 'whole'
  judge_tree(case, before)
  left = list((case / 'prepared').rglob('dataset_info.json'))
  judge.demand(outcome != 'refused' or not left, f'a refused build left {left}')
  return outcome


def judge_tree(case: pathlib.Path, before: dict[str, Any]) -> None:
  """Nothing may be written outside of the folder `prepared`."""
  changed = [path for path in list_tree(case).items() ^ before.items() if not path[0].startswith('prepared')]
  judge.demand(not changed, f'written outside of prepared/: {changed}')


def damage(rng: np.random.Generator, root: pathlib.Path, files: Sequence[str]) -> str:
  """Damages one or two files of an archive in a way that fits them. Returns the kind of damage."""
  kinds = {kind: (change, PICTURES) for kind, change in pictures.KINDS.items()}
  kinds |= {kind: (change, ('',)) for kind, change in raw.KINDS.items()}
  kinds |= tables.KINDS
  fit = {kind: [file for file in files if file.endswith(ends)] for kind, (_, ends) in kinds.items()}
  often = [kind for kind in tables.KINDS if fit[kind]] * 3  # few archives have a file of each table format
  kind = values.pick(rng, (*(kind for kind in kinds if fit[kind]), *often, *trees.KINDS))
  if kind in trees.KINDS:
    trees.KINDS[kind](rng, root, root / pick_file(rng, files))
    return kind
  chosen = {pick_file(rng, fit[kind]) for _ in range(rng.integers(1, 3))}
  for file in sorted(chosen):
    place = root / file
    place.write_bytes(kinds[kind][0](rng, place.read_bytes()))
  return kind


def pick_file(rng: np.random.Generator, files: Sequence[str]) -> str:
  """A random file; in half of the cases a table or text, because these are few beside the pictures."""
  tables_only = [file for file in files if file.endswith(archives.TABLES)]
  return values.pick(rng, tables_only if tables_only and rng.random() < 0.5 else files)


def dry_run(name: str, case: pathlib.Path, tolerated: float) -> tuple[list, list, dict]:
  """A build that does not write the records. Returns (image_ids, rejects, left out)."""
  make_builder = build.load(name).Builder if name in build.NAMES else custom.make_builder(
    name, custom.find_root(name, case / 'archives'))
  builder = make_builder(data_dir=case / 'prepared', config='256', file_format='array_record')
  builder.tolerated = tolerated
  folder = pathlib.Path(builder.data_dir)
  folder.mkdir(parents=True)
  splits = builder._split_generators(types.SimpleNamespace(manual_dir=case / 'archives'))
  records = []
  for examples in splits.values():
    for image_id, record in examples:
      judge.judge_record(image_id, record, name, builder.info.metadata)
      builder.info.features.encode_example(record)
      records.append(image_id)
  judge.demand(len(set(records)) == len(records), 'an image_id comes twice')
  judge.judge_rejects(builder.rejects, folder)
  return records, builder.rejects, builder.info.metadata['left_out']


def prepare(name: str, case: pathlib.Path, tolerated: float) -> tuple[Any, list, dict]:
  """A build as the command runs it, read back. Returns (rows of the index, rejects, left out)."""
  from tfds_builders.common import index
  path = build.prepare(name, case / 'archives', case / 'prepared', tolerated=tolerated)
  judge.demand(not index.find_damage(path), 'the records are not the ones that were written')
  metadata = build.read_metadata(path)
  rejects = [reason for reason, count in metadata['rejects'].items() for _ in range(count)]
  rows = (path / 'rejects.csv').read_bytes().decode()
  judge.demand(bool(rejects) == (rows.count('\n') > 1), 'rejects.csv and the metadata differ')
  return index.read(path), rejects, metadata['left_out']


def list_tree(case: pathlib.Path) -> dict[str, Any]:
  """{path: its mode, time of change and size, or the target of a link}."""
  found = {}
  for folder, folders, names in os.walk(case):
    for name in (*folders, *names):
      path = os.path.join(folder, name)
      found[os.path.relpath(path, case)] = describe(path)
  return found


def describe(path: str) -> Any:
  if os.path.islink(path):
    return os.readlink(path)
  state = os.lstat(path)
  return (state.st_mode, state.st_mtime_ns, state.st_size) if os.path.isfile(path) else (state.st_mode,)
