"""Writes a record as the same bytes in every process, so that rebuilding an archive gives the same SHA-256s."""
import os
from collections.abc import Iterable

from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2


class SortedWriter(writer.ExampleWriter):
  """Writes records with their fields sorted by name.

  TFDS writes the fields of a record in hash table order (4.9.10, core/example_serializer.py). That order differs from
  process to process, and with it the bytes of every record.
  """

  def write(self, path: os.PathLike, examples: Iterable[tuple]) -> object:
    return super().write(path, ((key, sort_fields(raw)) for key, raw in examples))


def sort_fields(raw: bytes) -> bytes:
  """Serialises a tf.train.Example again, with its fields sorted."""
  return tf_example_pb2.Example.FromString(raw).SerializeToString(deterministic=True)
