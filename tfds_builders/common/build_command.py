"""The command that prepares a dataset, for messages that tell the user to run it."""
import os
import pathlib
import shlex


def show(folder: str | os.PathLike[str], overwrite: bool = False, archives: str | os.PathLike[str] = 'DIR') -> str:
  """The command that prepares what is in `folder`, <data_dir>/<name>/<size>/<version>. DIR stands for the folder of
  downloads where it is not known."""
  folder = pathlib.Path(folder)
  words = ['python', '-m', 'tfds_builders.build', folder.parents[1].name, '--archives', str(archives),
           '--data_dir', str(folder.parents[2]), '--size', folder.parent.name]
  return shlex.join([*words, '--overwrite'] if overwrite else words)
