"""One case of the fuzz: damages a copy of a miniature archive, or packs a hostile file, and judges what comes of it."""
import logging
import os
import pathlib
import shutil
import types

import numpy as np

from benchmarks.fuzz import judge, packed, pictures, raw, tables, trees, values
from tfds_builders import archives, build, common, images, phantoms, unpack

IMAGES, SIZE = 12, 48  # of each miniature archive; px
PACKED = 0.1  # share of the cases that are for `unpack`
WHOLE = 0.1  # share of the others that go through all of `build.prepare` and are read back
LENIENT = 0.8  # share in which half of the archive may be bad, so that records are made of the rest
PICTURES = ('.png', '.jpeg', '.dcm', '.dicom')
ENDINGS = ('.zip', '.tar', '.tgz')


class Fuzz:
  """Draws and runs cases below `folder`; case `number` of a seed is the same wherever and after whatever it runs."""

  def __init__(self, folder, seed, tell):
    for talker in ('tfds_builders', 'pydicom'):
      logging.getLogger(talker).setLevel(logging.CRITICAL)
    self.folder, self.seed, self.tell = pathlib.Path(folder), seed, tell
    self.clean = {name: self.render(name) for name in build.NAMES}

  def render(self, name):
    """Writes an undamaged archive, unless it is there, and prepares it once."""
    template = self.folder / 'clean'
    if not (template / name).is_dir():
      phantoms.write(name, template, images=IMAGES, size=SIZE, seed=0)
    archive = build.load(name).ARCHIVE
    root = archives.find(archive, template)
    entries, rejects, left_out = build.load(name).read(root, archives.list_files(archive, root))
    assert entries and not rejects, f'{name}: the undamaged archive is not whole: {rejects}'
    return types.SimpleNamespace(
      root=root.relative_to(template), files=sorted(archives.list_files(archive, root)), left_out=left_out,
      images=sorted(entry.path.relative_to(template).as_posix() for entry in entries))

  def run(self, number):
    """'whole', 'rejects' or 'refused'; raises judge.Fault and whatever should not happen.

    Tells (dataset, kind of damage) before it builds anything.
    """
    rng = np.random.default_rng([self.seed, number])
    case = self.folder / 'case'
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    try:
      return self.unpack(rng, case) if rng.random() < PACKED else self.build(rng, case)
    finally:
      shutil.rmtree(case, ignore_errors=True)

  def build(self, rng, case):
    name = values.pick(rng, build.NAMES)
    clean = self.clean[name]
    shutil.copytree(self.folder / 'clean' / name, case / 'archives' / name, symlinks=True)
    kind = damage(rng, case / 'archives' / clean.root, clean.files)
    self.tell((name, kind))
    before = list_tree(case)
    images.PLAIN_UP_TO = values.pick(rng, (16, 256))  # with 16, these small PNGs may be taken over, as large ones are
    tolerated = 0.5 if rng.random() < LENIENT else common.TOLERATED
    make = prepare if rng.random() < WHOLE else dry_run
    try:
      records, rejects, left_out = make(name, case, tolerated)
    except judge.Fault:
      raise
    except Exception as error:  # the judge says which errors may be
      judge.judge_error(error, name, case / 'archives', clean.files)
      outcome = 'refused'
    else:
      there = sum((case / 'archives' / path).is_file() for path in clean.images)
      judge.judge_count(records, rejects, left_out, there, clean.left_out)
      outcome = 'rejects' if rejects else 'whole'
    changed = [path for path in list_tree(case).items() ^ before.items() if not path[0].startswith('prepared')]
    judge.demand(not changed, f'written outside of its folder: {changed}')
    left = list((case / 'prepared').rglob('dataset_info.json'))
    judge.demand(outcome != 'refused' or not left, f'a refused build left {left}')
    return outcome

  def unpack(self, rng, case):
    kind = values.pick(rng, tuple(packed.KINDS))
    path = case / f'set{values.pick(rng, ENDINGS)}'
    packed.KINDS[kind](rng, path)
    self.tell(('unpack', kind))
    before = list_tree(case)
    try:
      target = unpack.unpack(path, case / 'prepared')
    except Exception as error:
      judge.judge_error(error, 'unpack', path, ())
      outcome, target = 'refused', None
      left = list((case / 'prepared').rglob('*'))
      judge.demand(not left, f'left behind: {left[:3]}')
    else:
      outcome = 'whole'
      judge_unpacked(target, kind, path.suffix)
    changed = [path for path in list_tree(case).items() ^ before.items() if not path[0].startswith('prepared')]
    judge.demand(not changed, f'written outside of its folder: {changed}')
    return outcome


def damage(rng, root, files):
  """Damages one or two files of an archive in one way that fits; returns which."""
  kinds = {kind: (change, PICTURES) for kind, change in pictures.KINDS.items()}
  kinds |= {kind: (change, ('',)) for kind, change in raw.KINDS.items()}
  kinds |= tables.KINDS
  fit = {kind: [file for file in files if file.endswith(ends)] for kind, (_, ends) in kinds.items()}
  often = [kind for kind in tables.KINDS if fit[kind]] * 3  # few archives have the tables that each is for
  kind = values.pick(rng, (*(kind for kind in kinds if fit[kind]), *often, *trees.KINDS))
  if kind in trees.KINDS:
    trees.KINDS[kind](rng, root, root / pick_file(rng, files))
    return kind
  chosen = {pick_file(rng, fit[kind]) for _ in range(rng.integers(1, 3))}
  for file in sorted(chosen):
    place = root / file
    place.write_bytes(kinds[kind][0](rng, place.read_bytes()))
  return kind


def pick_file(rng, files):
  """Any file, but a table or text half of the time: they are few beside the pictures."""
  tabled = [file for file in files if file.endswith(archives.TABLES)]
  return values.pick(rng, tabled if tabled and rng.random() < 0.5 else files)


def dry_run(name, case, tolerated):
  """All of a build but TFDS's writing of the records: (image_ids, rejects, left out)."""
  builder = build.load(name).Builder(data_dir=case / 'prepared', config='256', file_format='array_record')
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


def prepare(name, case, tolerated):
  """A build as the command makes it, read back: (rows of the index, rejects, left out)."""
  from tfds_builders import index
  path = build.prepare(name, case / 'archives', case / 'prepared', tolerated=tolerated)
  judge.demand(not index.find_damage(path), 'records are not those that were written')
  metadata = build.read_metadata(path)
  rejects = [reason for reason, count in metadata['rejects'].items() for _ in range(count)]
  rows = (path / 'rejects.csv').read_bytes().decode()
  judge.demand(bool(rejects) == (rows.count('\n') > 1), 'rejects.csv and the metadata differ')
  return index.read(path), rejects, metadata['left_out']


def judge_unpacked(target, kind, ending):
  for path in target.rglob('*'):
    judge.demand(not path.is_symlink() and (path.is_file() or path.is_dir()), f'unpacked what is no file: {path}')
  # A plain tar has checksums of its headers only; what is damaged inside of a file shows nowhere.
  if kind in ('packed: damaged', 'packed: headers lie') and ending != '.tar':
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob('*') if path.is_file()}
    judge.demand(found == packed.GOOD, f'unpacked to something else: {sorted(found)}')


def list_tree(case):
  """{path: what it is}: kind, size, time of change, target of a link, and the contents of small files."""
  told = {}
  for folder, folders, names in os.walk(case):
    for name in (*folders, *names):
      path = os.path.join(folder, name)
      told[os.path.relpath(path, case)] = describe(path)
  return told


def describe(path):
  if os.path.islink(path):
    return os.readlink(path)
  state = os.lstat(path)
  return (state.st_mode, state.st_mtime_ns, state.st_size) if os.path.isfile(path) else (state.st_mode,)
