"""Makes records on the workers of an Apache Beam runner, for archives that one machine reads too slowly.

The machine that starts the build reads the tables and lists the files, as in an ordinary build. The workers read and
resize the images and write the records. All machines must see the archive and the data_dir under the same paths. The
result is that of the ordinary build: same records, same order, same rejects.
"""
import dataclasses
import json
import pathlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds

from tfds_builders.common import dataset, decoded, records

PART = 256  # entries per work item
REJECTS = 'rejects'


def use_workers(builder_class: type[tfds.core.GeneratorBasedBuilder]) -> type[tfds.core.GeneratorBasedBuilder]:
  """A builder class like the given one, whose records are made and written by the workers of a Beam runner."""

  class Builder(builder_class, skip_registration=True):  # type: ignore[valid-type, misc, call-arg]
    __doc__ = builder_class.__doc__

    def _generate_examples(
        self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> beam.PTransform:
      return make_records(self, split, root, entries)

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
      collect_rejects(self)

  Builder.name, Builder.pkg_dir_path = builder_class.name, builder_class._get_pkg_dir_path()
  # The module is part of what is stored. It is set afterwards so that TFDS counts one builder, not two.
  Builder.__module__ = builder_class.__module__
  return Builder


def make_records(
    builder: tfds.core.GeneratorBasedBuilder, split: str, root: pathlib.Path,
    entries: Sequence[dataset.Entry]) -> beam.PTransform:
  """PTransform that gives (image_id, record) of the readable entries and writes the rejects beside the records.

  Entries reach the workers as files, not inside the pipeline: some runners limit its size (Dataflow: 20 MB).
  """
  folder = pathlib.Path(builder.data_dir)
  parts = [write_part(folder / f'{split}.{start}.entries', entries[start:start + PART])
           for start in range(0, len(entries), PART)]
  return MakeRecords(parts, root, folder / f'{split}.{REJECTS}', records.record_maker(builder))


@beam.ptransform_fn
def MakeRecords(
    pipeline: Any, parts: Sequence[str], root: pathlib.Path, rejects: pathlib.Path,
    make: Callable[[dataset.Entry], Any]) -> Any:
  made = (pipeline
          | 'Parts' >> beam.Create(parts)
          | 'Deal' >> beam.Reshuffle()
          | 'Make' >> beam.FlatMap(make_part, root=root, make=make).with_outputs(REJECTS, main='records'))
  _ = made[REJECTS] | 'List' >> beam.combiners.ToList() | 'Write' >> beam.Map(write_rejects, path=rejects)
  return made.records


def write_part(path: pathlib.Path, entries: Sequence[dataset.Entry]) -> str:
  path.write_bytes(pickle.dumps(entries))
  return str(path)


def make_part(path: str, root: pathlib.Path, make: Callable[[dataset.Entry], Any]) -> Iterator[Any]:
  """Yields (image_id, record) of the entries in a file; unreadable ones go to the output REJECTS."""
  for entry in pickle.loads(pathlib.Path(path).read_bytes()):
    record = make(entry)
    if isinstance(record, decoded.Unreadable):
      reject = records.reject(entry, root, str(record))
      yield beam.pvalue.TaggedOutput(REJECTS, dataclasses.astuple(reject))
    else:
      yield entry.image_id, record


def write_rejects(rejects: list, path: pathlib.Path) -> None:
  path.write_text(json.dumps(rejects), encoding='utf-8')


def collect_rejects(builder: tfds.core.GeneratorBasedBuilder) -> None:
  """Adds the workers' rejects to the builder's and removes the temporary files.

  Raises:
    records.TooManyRejects: only after all images were read; the ordinary build stops as soon as it is certain.
  """
  folder = pathlib.Path(builder.data_dir)
  for path in sorted(folder.glob(f'*.{REJECTS}')):
    builder.rejects += [dataset.Reject(*fields) for fields in json.loads(path.read_text(encoding='utf-8'))]
    path.unlink()
  for path in folder.glob('*.entries'):
    path.unlink()
  records.check_rejects(builder)
  records.write_rejects(builder)
