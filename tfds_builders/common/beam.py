"""Records made by the workers of an Apache Beam runner, for archives that one machine reads too slowly.

The machine that starts the build reads the tables and lists the files, as always; the workers read and reduce the
images and write the records. All of them see the archive and the data_dir under the same paths. What is prepared is
what the ordinary build prepares: same records in the same order, same rejects.
"""
import dataclasses
import json
import pathlib
import pickle

import apache_beam as beam

from tfds_builders.common import dataset, images

PART = 256  # entries that a worker takes at once
REJECTS = 'rejects'


def spread(builder_class):
  """A builder class like the one given, whose records are made and written by the workers of a Beam runner."""

  class Builder(builder_class, skip_registration=True):
    __doc__ = builder_class.__doc__

    def _generate_examples(self, split, root, entries):
      return make_records(self, split, root, entries)

    def _process_pipeline_result(self, pipeline_result):
      collect_rejects(self)

  Builder.name, Builder.pkg_dir_path = builder_class.name, builder_class._get_pkg_dir_path()
  Builder.__module__ = builder_class.__module__  # part of what is prepared; set late, so that TFDS counts one builder
  return Builder


def make_records(builder, split, root, entries):
  """PTransform to (image_id, record) of the entries that can be read; the others are written beside the records.

  The entries reach the workers as files and not inside the pipeline, whose size some runners limit (Dataflow: 20 MB).
  """
  folder = pathlib.Path(builder.data_dir)
  parts = [write_part(folder / f'{split}.{start}.entries', entries[start:start + PART])
           for start in range(0, len(entries), PART)]
  return MakeRecords(parts, root, folder / f'{split}.{REJECTS}', dataset.fix_record(builder))


@beam.ptransform_fn
def MakeRecords(pipeline, parts, root, rejects, make):
  made = (pipeline
          | 'Parts' >> beam.Create(parts)
          | 'Deal' >> beam.Reshuffle()
          | 'Make' >> beam.FlatMap(make_part, root=root, make=make).with_outputs(REJECTS, main='records'))
  _ = made[REJECTS] | 'List' >> beam.combiners.ToList() | 'Write' >> beam.Map(write_rejects, path=rejects)
  return made.records


def write_part(path, entries):
  path.write_bytes(pickle.dumps(entries))
  return str(path)


def make_part(path, root, make):
  """Yields (image_id, record), or Reject for the output REJECTS, of the entries in a file."""
  for entry in pickle.loads(pathlib.Path(path).read_bytes()):
    record = make(entry)
    if isinstance(record, images.Unreadable):
      reject = dataset.Reject(entry.image_id, entry.path.relative_to(root).as_posix(), str(record))
      yield beam.pvalue.TaggedOutput(REJECTS, dataclasses.astuple(reject))
    else:
      yield entry.image_id, record


def write_rejects(rejects, path):
  path.write_text(json.dumps(rejects), encoding='utf-8')


def collect_rejects(builder):
  """Adds what the workers could not read to the builder's rejects, and removes the files that went to and fro.

  Raises:
    common.TooManyRejects: unlike the ordinary build, only when all images were read.
  """
  folder = pathlib.Path(builder.data_dir)
  for path in sorted(folder.glob(f'*.{REJECTS}')):
    builder.rejects += [dataset.Reject(*fields) for fields in json.loads(path.read_text(encoding='utf-8'))]
    path.unlink()
  for path in folder.glob('*.entries'):
    path.unlink()
  dataset.account(builder)
  dataset.write_rejects(builder)
