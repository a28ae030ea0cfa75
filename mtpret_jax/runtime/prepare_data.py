"""Archives -> prepared datasets: builds what is not built yet. Renders phantom archives if no real ones are given."""

import contextlib
import logging
import pathlib
import re
import shlex
from collections.abc import Iterable, Iterator

import jax
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.paths import check_path
from mtpret_jax.data.sources import SPLITS, MissingSplit, OutdatedIndex, find_folder, open_source, read_index
from mtpret_jax.runtime import distributed
from mtpret_jax.tasks.dataset import check_annotation
from mtpret_jax.tasks.split_checks import check_split
from tfds_builders import build, sanity, sanity_rules
from tfds_builders.common import build_command, splits
from tfds_builders.common.archives import ArchiveMissing, is_junk
from tfds_builders.common.exits import explain
from tfds_builders.common.paths import find_archives_defect
from tfds_builders.common.records import TooManyRejects
from tfds_builders.common.suggest import suggest
from tfds_builders.custom import custom

# Flag of the build command -> flag of this one.
FIELDS = {'data_dir': '--config.data.dir', 'archives': '--config.data.archives'}
PHANTOMS = 'phantom radiographs (computed images, not of patients)'

log = logging.getLogger(__name__)

# Errors that the user can correct: the command line prints them as one line, without a traceback.
USER_ERRORS = (ConfigError, MissingSplit, OutdatedIndex, build.ArchiveChanged, TooManyRejects, custom.InvalidDataset)


def describe_data(archives: str) -> str:
  """Where the images of a run are from: `data.archives`, or what its results have under 'data'."""
  return f'archives in the folder {archives}' if archives not in ('', PHANTOMS) else PHANTOMS


def choose_datasets(config: ConfigDict) -> None:
  """Fills in `data.datasets`. Stages 2 and 3: the datasets of the tasks. Stage 1: if the field is empty, all datasets
  whose archives are in `data.archives`, the user's own included. `check_archives` says which ones are not there."""
  if config.objective == 'multitask':
    config.data.datasets = tuple(dict.fromkeys(task_config.dataset for task_config in config.tasks.values()))
  check_archives_folder(config.data)
  if config.data.datasets:
    return
  roots = find_archives(config.data.archives)
  config.data.datasets = tuple(roots)
  if not roots:
    raise ConfigError(f'no archive of {", ".join(build.NAMES)} is in data.archives={config.data.archives!r}, and no '
                      f'folder with {custom.TABLE}: set --config.data.archives=<folder> to the folder of downloads, '
                      f'laid out as in tfds_builders/<name>/README.md')
  own = [name for name in roots if name not in build.NAMES]
  log.info('found the archives of %s%s. To leave one out, name the others: --config.data.datasets=a,b',
           ', '.join(roots), f' (your own: {", ".join(own)})' if own else '')
  if others := list_others(config.data.archives, roots.values()):
    log.warning('not taken from %s: %s. A folder of your own images needs a %s (docs/own-data.md)',
                config.data.archives, ', '.join(others[:10]), custom.TABLE)


def find_archives(folder: str) -> dict[str, pathlib.Path]:
  """{dataset: the root of its archive} for all datasets in a folder, the user's own last. {} without a folder."""
  if not folder:
    return {}  # '' would be the current folder
  roots = {}
  for name in build.NAMES:
    with contextlib.suppress(ArchiveMissing):
      roots[name] = build.find_root(name, folder)
  return roots | {name: build.find_root(name, folder) for name in custom.list_names(folder) if name not in build.NAMES}


def list_others(archives: str, roots: Iterable[pathlib.Path]) -> list[str]:
  """The folders in `archives` that are no part of an archive in `roots`, sorted."""
  folder = pathlib.Path(archives).expanduser().absolute()
  folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_junk(path.name)]
  return [path.name for path in folders
          if not any(path.is_relative_to(root) or root.is_relative_to(path) for root in roots)]


def check_archives_folder(data: ConfigDict) -> None:
  check_path('data.archives', data.archives, find_archives_defect)


def check_dataset_name(name: str, folder: str) -> None:
  """Raises ConfigError unless the dataset has a builder, or is one of the user's own in `folder`."""
  if name not in build.NAMES and not (folder and custom.exists(name, folder)):
    names = (*build.NAMES, *(custom.list_names(folder) if folder else ()))
    raise ConfigError(
      f'unknown dataset {name!r}: choose one of {", ".join(names)}{suggest(name, names)}; for a dataset of your own, '
      f'create {pathlib.Path(folder or "<archives>", name, "labels.csv")} and set --config.data.archives '
      f'(docs/own-data.md)')


def prepare_data(config: ConfigDict) -> None:
  """Builds the datasets of the config that are not built yet, on the first process while the others wait."""
  distributed.run_on_first(lambda: build_data(config), USER_ERRORS)
  distributed.run_on_all(lambda: check_prepared(config), USER_ERRORS)


def build_data(config: ConfigDict) -> None:
  check_archives([config])
  folder = config.data.archives or render_phantoms(config.data)
  if config.data.archives and not pathlib.Path(folder).expanduser().is_dir():
    log.warning('data.archives=%r is not there: the run uses what is prepared in data.dir=%r', folder, config.data.dir)
  for name in config.data.datasets:
    is_fresh = not build.is_prepared(build.locate(name, config.data.dir, config.data.stored_size))
    with refuse_archive(name, folder, config.data.dir, config.data.stored_size):
      path = build.prepare(name, folder, config.data.dir, size=config.data.stored_size)
      if 'tasks' in config:  # the images of stage 1 need no labels
        try:
          build.add_labels(path)
        except OSError as error:  # the folder cannot be written: the records are read instead
          log.warning('%s: labels are not added to index.csv (%s)', name, error)
    if is_fresh and config.data.archives:  # phantoms are right, also where they are few
      for warning in sanity_rules.warn(sanity.check(path)):
        log.warning('%s: %s', name, warning)


@contextlib.contextmanager
def refuse_archive(name: str, archives: str | pathlib.Path, data_dir: str, stored_size: str) -> Iterator[None]:
  """Turns what a builder raises about the user's files, such as a table that is not text, into ConfigError. Errors of
  the operating system, such as a full disk, pass: they may not come back."""
  try:
    yield
  except (ValueError, OSError) as error:
    if isinstance(error, ConfigError) or isinstance(error, OSError) and error.errno is not None:
      raise
    message = (explain(error) or (0, str(error)))[1]
    command = build_command.show(pathlib.Path(data_dir, name, stored_size, 'version'), archives=archives)
    raise ConfigError(name_build_command(message, command)) from error


def name_build_command(message: str, command: str) -> str:
  """A builder's message with remedies that exist here: its command in front of flags that only it has, and the config
  fields in place of folders."""
  if 'tfds_builders.build' in message:
    return message
  message = re.sub(r'(?<![\w.-])--(data_dir|archives)\b', lambda match: FIELDS[match[1]], message)
  return re.sub(r'(?<![\w.-])--(?=overwrite\b|tolerated\b)', lambda _: f'{command} --', message)


def check_prepared(config: ConfigDict) -> None:
  """Opens every split that the run will use, to find problems before it trains: the training splits of stage 1, and the
  training, validation and test splits of stages 2 and 3. Only a run with one task uses the test split.

  Raises:
    MissingSplit, OutdatedIndex: see `open_source`.
    ConfigError: a task cannot be trained or scored on a split, see `check_split`; or this host does not see what
      another one built.
  """
  data, doubts = config.data, list[str]()
  try:
    if config.objective == 'moco':
      for name in data.datasets:
        open_source(name, data.dir, data.stored_size, 'train', data.split, whole=name in data.whole)
    else:
      for name in config.tasks:
        for split in SPLITS if len(config.tasks) == 1 else ('train', 'validation'):
          doubts += check_split(config, name, split)
    doubts += list_shared_patients(config)
  except FileNotFoundError as error:
    if jax.process_index() == 0:
      raise
    raise ConfigError(f'a dataset is prepared, but this host does not see it in {data.dir!r}: set --config.data.dir to '
                      f'a folder on storage that all hosts share ({error})') from error
  if jax.process_index() == 0:
    for doubt in doubts:
      log.warning('%s', doubt)


def list_shared_patients(config: ConfigDict) -> list[str]:
  """A sentence for each dataset whose split rule puts a patient into two splits. Raises OutdatedIndex."""
  data, sentences = config.data, []
  if data.split == 'patient':  # which never does
    return []
  names = data.datasets if config.objective == 'moco' else [own.dataset for own in config.tasks.values()]
  for name in dict.fromkeys(names):
    if name in data.get('whole', ()):
      continue
    rows = read_index(find_folder(name, data.dir, data.stored_size))
    shared = splits.describe_shared_patients({row['image_id']: row['patient'] for row in rows},
                                             {row['image_id']: row[data.split] for row in rows if row[data.split]})
    if shared:
      sentences.append(f'{name} by the split rule {data.split!r}: {shared}, so scores are too good for new patients')
  return sentences


def check_annotations(config: ConfigDict) -> None:
  """Raises ConfigError if a dataset lacks the annotation or the finding that a task learns from. The annotations of the
  user's own datasets are known only after they are prepared, and are checked then."""
  for name, task_config in config.get('tasks', {}).items():
    if task_config.dataset not in build.NAMES:
      continue
    check_annotation(name, task_config, build.declared_metadata(task_config.dataset))


def render_phantoms(data: ConfigDict) -> pathlib.Path:
  """Renders the phantom archives of `data.datasets` and returns their folder."""
  log.info('No archives given: this run uses %s.', PHANTOMS)
  folder = pathlib.Path(data.dir, 'archives')
  from tfds_builders import phantoms  # slow to import, and no run on real archives needs it
  for name in data.datasets:
    if name in build.NAMES:
      phantoms.write(name, folder, **data.phantoms)
  return folder


def check_archives(stages: Iterable[ConfigDict]) -> None:
  """Raises ConfigError that names every dataset of the stages that is neither prepared nor in `data.archives`."""
  data = {name: stage.data for stage in stages for name in stage.data.datasets}
  missing = {name: error for name in data if (error := find_missing(name, data[name]))}
  if not missing:
    return
  name = next(iter(missing))
  folder, prepared = data[name].archives, data[name].dir
  if len(missing) == 1:
    check_dataset_name(name, folder)
    raise ConfigError(str(missing[name]))
  lines = [f'  {name}: {describe_source(name, data[name].archives)}' for name in missing]
  public = [name for name in missing if name in build.NAMES]
  if public:
    lines += [f'Unpack each download into the folder of its dataset, such as: python -m tfds_builders.unpack FILE '
              f'--archives {shlex.quote(str(pathlib.Path(folder, public[0])))}. tfds_builders/<name>/README.md shows '
              f'the layout']
  raise ConfigError('\n'.join([
    f'{len(missing)} of {len(data)} datasets are neither in data.archives={folder!r} nor prepared in '
    f'data.dir={prepared!r}. Set --config.data.archives to the folder that has them, or get them:', *lines]))


def check_unchanged(stages: Iterable[ConfigDict]) -> None:
  """Raises ConfigError if a dataset of the stages was prepared from other files than those in `data.archives`."""
  used = {(name, stage.data.dir, stage.data.stored_size): stage.data
          for stage in stages for name in stage.data.datasets}
  for (name, *place), data in used.items():
    path = build.locate(name, *place)
    if data.archives and build.is_prepared(path):
      with refuse_archive(name, data.archives, data.dir, data.stored_size):
        build.check_archive(name, data.archives, path)


def find_missing(name: str, data: ConfigDict) -> ArchiveMissing | None:
  """What `build` says of a dataset that can neither be read nor made; None if it can."""
  if build.is_prepared(build.locate(name, data.dir, data.stored_size)) or not data.archives and name in build.NAMES:
    return None  # without archives, phantoms are rendered
  if not data.archives:  # '' would be the current folder
    return custom.UnknownDataset(name, pathlib.Path('<archives>', name))
  return next(iter(build.find_missing([name], data.archives)), None)


def describe_source(name: str, folder: str) -> str:
  """Where a missing dataset comes from, in a line."""
  if name in build.NAMES:
    return build.find_archive(name).download.removesuffix('.')
  return (f'no public dataset has this name. For a dataset of your own, create '
          f'{pathlib.Path(folder or "<archives>", name, custom.TABLE)} (docs/own-data.md){suggest(name, build.NAMES)}')
