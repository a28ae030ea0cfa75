"""Turns off what TFDS does while it writes records: its output, and its need of TensorFlow for large splits."""
import contextlib
import importlib.util
import os
import types
from collections.abc import Iterator
from typing import IO, Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle


@contextlib.contextmanager
def silence() -> Iterator[None]:
  """Turns off TFDS's output and progress bars. Warnings, errors and our own progress bar stay."""
  tfds.disable_progress_bar()
  try:
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
      yield
  finally:
    tfds.enable_progress_bar()


@contextlib.contextmanager
def spill_without_tensorflow() -> Iterator[None]:
  """Lets TFDS sort a split of more than 1 GB without TensorFlow.

  TFDS sorts records by hash in memory, and above 1 GB in bucket files. For these it uses tf.io.gfile, even if the
  records are array_record (4.9.10, core/shuffle.py). This replaces the three calls by ordinary files.
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


def open_bucket(path: str, mode: str) -> 'Bucket | IO[Any]':
  return Bucket(path) if mode == 'wb' else open(path, mode)


class Bucket:
  """A file that is open only during a write: TFDS keeps 1000 of them, and the usual limit is 1024 open files."""

  def __init__(self, path: str) -> None:
    self.path = path

  def write(self, data: bytes) -> None:
    with open(self.path, 'ab') as file:
      file.write(data)

  def flush(self) -> None:
    pass

  def close(self) -> None:
    pass
