"""A damaged copy of a miniature archive of phantoms is built, and judged by what comes of it."""
import logging
import os
import pathlib
import shutil
import types

from benchmarks.fuzz import judge, pictures, raw, tables, trees, values
from tfds_builders import build, phantoms
from tfds_builders.common import archives, dataset, images
from tfds_builders.custom import custom

IMAGES, SIZE = 12, 48  # of each miniature archive; px
WHOLE = 0.1  # share of the cases that go through all of `build.prepare` and are read back
LENIENT = 0.8  # share in which half of the archive may be bad, so that records are made of the rest
PICTURES = ('.png', '.jpeg', '.dcm', '.dicom')


def make(folder):
  """run(rng, case, tell) of archives in their public layouts."""
  for talker in ('tfds_builders', 'pydicom'):
    logging.getLogger(talker).setLevel(logging.CRITICAL)
  clean = {name: render(folder, name) for name in build.NAMES}

  def run(rng, case, tell):
    name = values.pick(rng, build.NAMES)
    return build_damaged(rng, case, tell, name, folder / name, clean[name])
  return run


def render(folder, name):
  """Writes an undamaged archive, unless it is there, and prepares it once."""
  if not (folder / name).is_dir():
    phantoms.write(name, folder, images=IMAGES, size=SIZE, seed=0)
  archive = build.load(name).ARCHIVE
  root = archives.find(archive, folder)
  return describe_clean(root, folder, archives.list_files(archive, root), build.load(name).read)


def describe_clean(root, folder, listed, read):
  """What an undamaged archive holds: `root`, relative to the folder; `files` in it; `images`; how many are left out."""
  entries, rejects, left_out = read(root, listed)
  assert entries and not rejects, f'{root}: the undamaged archive is not whole: {rejects}'
  return types.SimpleNamespace(
    root=root.relative_to(folder), files=sorted(listed), left_out=left_out,
    images=sorted(entry.path.relative_to(folder).as_posix() for entry in entries))


def build_damaged(rng, case, tell, name, template, clean):
  """'whole', 'rejects' or 'refused'."""
  shutil.copytree(template, case / 'archives' / name, symlinks=True)
  kind = damage(rng, case / 'archives' / clean.root, clean.files)
  tell((name, kind))
  before = list_tree(case)
  images.PLAIN_UP_TO = values.pick(rng, (16, 256))  # with 16, these small PNGs may be taken over, as large ones are
  tolerated = 0.5 if rng.random() < LENIENT else dataset.TOLERATED
  go = prepare if rng.random() < WHOLE else dry_run
  try:
    records, rejects, left_out = go(name, case, tolerated)
  except judge.Fault:
    raise
  except Exception as error:  # the judge says which errors may be
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


def judge_tree(case, before):
  """Nothing is written but in the folder for it."""
  changed = [path for path in list_tree(case).items() ^ before.items() if not path[0].startswith('prepared')]
  judge.demand(not changed, f'written outside of its folder: {changed}')


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
  make_builder = build.load(name).Builder if name in build.NAMES else custom.make_builder(
    name, custom.find(name, case / 'archives'))
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


def prepare(name, case, tolerated):
  """A build as the command makes it, read back: (rows of the index, rejects, left out)."""
  from tfds_builders.common import index
  path = build.prepare(name, case / 'archives', case / 'prepared', tolerated=tolerated)
  judge.demand(not index.find_damage(path), 'records are not those that were written')
  metadata = build.read_metadata(path)
  rejects = [reason for reason, count in metadata['rejects'].items() for _ in range(count)]
  rows = (path / 'rejects.csv').read_bytes().decode()
  judge.demand(bool(rejects) == (rows.count('\n') > 1), 'rejects.csv and the metadata differ')
  return index.read(path), rejects, metadata['left_out']


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
