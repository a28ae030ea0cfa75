"""Archives -> prepared datasets, once: renders the phantom archives where no real ones are given, and builds."""

import logging
import pathlib

import jax

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import MissingSplit, open_source
from mtpret_jax.runtime import distributed
from tfds_builders import build, leakage
from tfds_builders.common import dataset
from tfds_builders.custom import custom

NEEDED = {'classification': 'findings', 'regression': 'value', 'segmentation': 'mask', 'detection': 'box_classes'}

PHANTOMS = 'phantom radiographs, computed, not patients'

log = logging.getLogger(__name__)

# what the person who gave the command can mend
USER_ERRORS = (ConfigError, MissingSplit, build.ArchiveChanged, dataset.TooManyRejects, custom.Mistake)


def choose_datasets(config):
  """Fills in `data.datasets`: those of the tasks, or where it is empty all whose archives are in `data.archives`."""
  if config.objective == 'multitask':
    config.data.datasets = tuple(dict.fromkeys(task_config.dataset for task_config in config.tasks.values()))
  for name in config.data.datasets:
    if not build.is_prepared(build.locate(name, config.data.dir, config.data.stored_size)):
      check_dataset_name(name, config.data.archives)
  if config.data.datasets:
    return
  absent = {error.dataset for error in build.missing(build.NAMES, config.data.archives)}
  config.data.datasets = tuple(name for name in build.NAMES if name not in absent)
  if not config.data.datasets:
    raise ConfigError(f'none of {", ".join(build.NAMES)} lies in {config.data.archives!r}: name the folder with the '
                      f'downloads, --config.data.archives=<folder>; tfds_builders/<name>/README.md shows their layout')
  log.info('found the archives of %s', ', '.join(config.data.datasets))


def check_dataset_name(name, folder):
  """Raises ConfigError unless there is a builder for the dataset, or it is an own archive in `folder`."""
  if name not in build.NAMES and not (folder and custom.is_there(name, folder)):
    raise ConfigError(
      f'unknown dataset {name!r}; have {", ".join(build.NAMES)}, or one of your own, with '
      f'{pathlib.Path(folder or "<archives>", name, "labels.csv")} and --config.data.archives (docs/datasets.md)')


def prepare_data(config):
  """Builds every dataset of the config that is not built yet, in the first process; the others wait."""
  distributed.run_on_first(lambda: build_data(config), USER_ERRORS)
  distributed.run_on_all(lambda: check_prepared(config), USER_ERRORS)


def build_data(config):
  folder = config.data.archives or render_phantoms(config.data)
  check_archives(config.data.datasets, folder, config.data.dir, config.data.stored_size)
  for name in config.data.datasets:
    build.prepare(name, folder, config.data.dir, size=config.data.stored_size)


def check_prepared(config):
  """Raises MissingSplit now rather than after the training, and ConfigError where another host built the data."""
  for name in config.data.datasets:
    for split in ('train', 'validation'):
      try:
        open_source(name, config.data.dir, config.data.stored_size, split, config.data.split)
      except FileNotFoundError as error:
        if jax.process_index() == 0:
          raise
        raise ConfigError(f'{name} is prepared, but this host does not see it in {config.data.dir!r}: set '
                          f'--config.data.dir to a folder on storage that all hosts share') from error


def check_external(config, pretrained):
  """Raises ConfigError where a task is to be external, but shares images with what its trunk was pretrained on."""
  for name, task_config in config.get('tasks', {}).items():
    if task_config.external:
      try:
        leakage.refuse_external(task_config.dataset, pretrained)
      except leakage.NotExternal as error:
        raise ConfigError(f'{error}; to run it all the same, as an internal task: '
                          f'--config.tasks.{name}.external=False') from error


def check_annotations(config):
  """Raises ConfigError where a dataset with a builder has not what a task on it is to learn; what one of your own has
  is known once it is prepared."""
  for name, task_config in config.get('tasks', {}).items():
    if task_config.dataset not in build.NAMES:
      continue
    about = build.describe(task_config.dataset)
    if not about[NEEDED[task_config.kind]]:
      fits = [kind for kind, needed in NEEDED.items() if about[needed]]
      raise ConfigError(f'tasks.{name}: {task_config.dataset} has nothing to learn {task_config.kind} from, only {", ".join(fits)}: '
                        f'set tasks.{name}.kind or tasks.{name}.dataset')
    absent = [finding for finding in task_config.findings if finding not in about['findings']]
    if absent:
      raise ConfigError(f'tasks.{name}.findings: {task_config.dataset} has no finding {absent[0]!r}; have '
                        f'{", ".join(about["findings"])}')


def render_phantoms(data):
  """The phantom archives of `data.datasets`; returns the folder they are in."""
  log.info('No archives given: this run is on phantom radiographs, computed, not patients.')
  folder = pathlib.Path(data.dir, 'archives')
  from tfds_builders import phantoms
  for name in [name for name in data.datasets if name in build.NAMES]:
    phantoms.write(name, folder, **data.phantoms)
  return folder


def check_archives(names, folder, data_dir, stored_size):
  """Raises ConfigError with a line for each dataset that is neither in `folder` nor prepared already."""
  lines = [str(error) for error in build.missing(names, folder, data_dir, stored_size)]
  if lines:
    raise ConfigError('\n'.join([f'{len(lines)} of {len(names)} archives are missing:', *lines]))
