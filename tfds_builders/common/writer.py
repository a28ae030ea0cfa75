"""One record is the same bytes in whichever process it is written."""
from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2


class SortedWriter(writer.ExampleWriter):
  """Writes records with their fields sorted by name.

  TFDS writes the fields of a record in the order of a hash table, which is another in each process (4.9.10,
  core/example_serializer.py), so that builds of one archive would differ in every record's SHA-256.
  """

  def write(self, path, examples):
    return super().write(path, ((key, sort_fields(raw)) for key, raw in examples))


def sort_fields(raw):
  """Bytes of a tf.train.Example to those of the same with sorted fields."""
  return tf_example_pb2.Example.FromString(raw).SerializeToString(deterministic=True)
