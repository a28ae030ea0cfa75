"""Completes a config before anything checks or saves it: the values of its `preset`, and tasks on datasets of your own.

A section `task` (or `task2`, ...) names a dataset. Its labels say the kind of task, so the run makes a plain task of
it:

    config.task.dataset = 'clinic'  ->  config.tasks.clinic = {kind: 'detection', dataset: 'clinic', size: 110, ...}

Resuming, evaluation and reports see only the plain task.
"""

import contextlib
import functools
import logging
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.config.own_section import choose_sizes, list_sections
from mtpret_jax.config.rules import row, text, whole
from mtpret_jax.config.schema import Schema
from mtpret_jax.config.validate import round_up
from mtpret_jax.data.sources import open_source
from mtpret_jax.runtime import image_counts, prepare_data
from mtpret_jax.tasks import KINDS, find_kind
from mtpret_jax.tasks.split_checks import list_sided_names
from mtpret_jax.tasks.task import About
from tfds_builders import build
from tfds_builders.custom import custom

PRESETS = ('small', 'base', 'paper')  # configs/presets.py
RESERVED = ('trunk', 'all', 'joint')  # what a run calls its own parts
NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')

log = logging.getLogger(__name__)


def resolve(config: ConfigDict, quiet: bool = False) -> ConfigDict:
  """The plain config of a stage. A config without `preset` and `task` is returned as it is. Unless `quiet`, the log
  says what was taken from the data.

  Raises:
    ConfigError: an unknown preset; a dataset that is not there, or has no label that a task can learn.
    custom.InvalidDataset: see `custom.describe`.
  """
  sections = list_sections(config)
  if 'preset' not in config and not sections:
    return config
  if config.get('preset', PRESETS[0]) not in PRESETS:
    raise ConfigError(f'unknown preset {show(config.preset)}: choose one of {", ".join(PRESETS)}')
  plain = saved.make_config({field: value for field, value in config.to_dict().items() if field != 'preset'})
  for section in sections:
    add_task(plain, section, quiet)
  return plain.lock()


def add_task(config: ConfigDict, section: str, quiet: bool) -> None:
  """Replaces the section by a task."""
  own = config[section]
  del config[section]
  if not own.dataset:
    raise ConfigError(f'{section}.dataset is empty: name your dataset with --config.{section}.dataset=<name>'
                      f'{describe_choice(config)}')
  name = own.name or own.dataset
  if not NAME.fullmatch(name) or name in RESERVED or name in config.tasks:
    raise ConfigError(f'{section}.name={show(name)} cannot name a task: use letters, digits and _, other names than '
                      f'{", ".join((*RESERVED, *config.tasks))}, with --config.{section}.name=<name>')
  if not row(whole(8, 4096), 2, 2).fits(own.views):
    raise ConfigError(f'{section}.views={show(own.views)} must be two whole numbers from 8 to 4096, such as (64,96)')
  about = describe_dataset(own.dataset, config.data)
  kind = choose_kind(section, own, about)
  choose_sizes(own, kind)
  if kind == 'detection':
    fit_to_boxes(config, name, own)
  sided = turn_off_flip(own, about)
  config.tasks[name] = own
  if not quiet:
    log.info('task %s: %s on the dataset %s; %s', name, kind, own.dataset, describe_labels(own, about))
    if sided:
      log.warning('task %s: %s names one side of the body, and no label names the other side, so its views are not '
                  'flipped (augment.flip=0)', name, ', '.join(map(show, sided[:5])))


def describe_choice(config: ConfigDict) -> str:
  """', such as clinic', for the user's datasets in the folder of archives."""
  names = custom.list_names(config.data.archives) if config.data.archives else []
  where = f'; in data.archives={config.data.archives} there is'
  return f'{where} {", ".join(names[:5])}' if names else f'{where} no folder with {custom.TABLE} (docs/own-data.md)'


def describe_dataset(name: str, data: ConfigDict) -> About:
  """The labels of a dataset: of the prepared records if there are some, else of the archive."""
  prepare_data.check_archives_folder(data)
  if name in build.NAMES:
    return build.declared_metadata(name)
  path = build.locate(name, data.dir, data.stored_size)
  if build.is_prepared(path):
    return dict(build.read_metadata(path))
  prepare_data.check_dataset_name(name, data.archives)
  with prepare_data.refuse_archive(name, data.archives, data.dir, data.stored_size):
    return custom.describe(pathlib.Path(data.archives).expanduser() / name)


def choose_kind(section: str, own: ConfigDict, about: About) -> str:
  """The kind of task: what the config says, else the only one that the labels allow."""
  possible = [kind.name for kind in KINDS.values() if about.get(kind.annotation)]
  if own.kind and own.kind not in KINDS:
    raise ConfigError(f'unknown {section}.kind {show(own.kind)}: choose one of {", ".join(KINDS)}')
  if not possible or own.kind and own.kind not in possible:
    has = f'has labels for {" and ".join(possible)} only' if possible else 'has no labels'
    needs = 'finding columns or a value in labels.csv, masks/ or boxes.json (docs/own-data.md)'
    raise ConfigError(f'{section}: {own.dataset} {has}: ' + (
      f'set --config.{section}.kind={possible[0]}' if possible else f'a task needs {needs}'))
  if len(possible) > 1 and not own.kind:
    raise ConfigError(f'{section}: {own.dataset} has labels for {" and ".join(possible)}: choose one with '
                      f'--config.{section}.kind={possible[0]}')
  return own.kind or possible[0]


def fit_to_boxes(config: ConfigDict, name: str, own: ConfigDict) -> None:
  """Takes from the training boxes what the task `name` leaves open: `objects`, and anchors and `max_detections` of the
  head."""
  objects, sizes, ratios = read_fitted(config, name, own) or fit_boxes(config, own)
  own.objects = own.objects or objects
  own.head.max_detections = max(own.head.max_detections, own.objects)
  own.head.anchor_sizes = own.head.anchor_sizes or sizes
  own.head.aspect_ratios = own.head.aspect_ratios or ratios


def read_fitted(config: ConfigDict, name: str, own: ConfigDict) -> tuple | None:
  """The `objects`, `anchor_sizes` and `aspect_ratios` of an earlier start of the same run; None if there was none. That
  start may have taken them from an archive, and its records have fewer boxes if images were unreadable."""
  rules = find_kind(own.kind).head_schema
  schema: Schema = {'data': {'split': text()}, 'tasks': {name: {
    'kind': text(), 'dataset': text(), 'objects': whole(1, 10_000), 'augment': {'size': whole(8, 4096)},
    'head': {field: rules[field] for field in ('anchor_sizes', 'aspect_ratios')}}}}
  try:
    before = saved.read_config(config.workdir, schema)
  except ConfigError:  # no run, or one without the task; a damaged file is refused when the run starts
    return None
  task = before['tasks'][name]
  if ((task['kind'], task['dataset'], task['augment']['size'], before['data']['split'])
      != (own.kind, own.dataset, own.augment.size, config.data.split)):
    return None
  return task['objects'], tuple(map(tuple, task['head']['anchor_sizes'])), tuple(task['head']['aspect_ratios'])


def fit_boxes(config: ConfigDict, own: ConfigDict) -> tuple:
  """(`objects`, `anchor_sizes`, `aspect_ratios`) that suit the training boxes."""
  boxes = read_boxes(config, own.dataset)
  # A multiple of 8, so that an image that turns out to be unreadable hardly ever changes the number.
  objects = round_up(max(map(len, boxes), default=1) or 1, 8)
  return objects, *fit_anchors(np.concatenate([np.zeros((0, 4)), *boxes]), own.augment.size)


def read_boxes(config: ConfigDict, name: str) -> list[np.ndarray]:
  """The boxes (N, 4) of each training image: y0, x0, y1, x1 from 0 to 1. From the prepared records if there are some,
  else from the archive, which may differ: it lists unreadable images too, and records hold float32."""
  data = config.data
  is_prepared = build.is_prepared(build.locate(name, data.dir, data.stored_size))
  if is_prepared or not image_counts.has_archive(name, config):
    return read_stored_boxes(name, data.dir, data.stored_size, data.split)
  builder = image_counts.read_tables(name, data)
  splits = builder.split_rules[data.split]
  return [np.reshape([box for _, *box in entry.objects], (-1, 4)) for entry in builder.entries
          if splits.get(entry.image_id) == 'train']


@functools.lru_cache(maxsize=32)  # a start resolves its config several times
def read_stored_boxes(name: str, data_dir: str, stored_size: str, split: str) -> list[np.ndarray]:
  labels = open_source(name, data_dir, stored_size, 'train', split).find_labels()
  return [np.reshape(labels[place]['objects']['box'], (-1, 4)) for place in range(len(labels))]


def fit_anchors(boxes_N4: np.ndarray, view: int) -> tuple[tuple[tuple[float], ...], tuple[float, ...]]:
  """(anchor_sizes, aspect_ratios) that cover these boxes in views of `view` px.

  The five sizes grow by a constant factor, from the 5th percentile of the square roots of the areas to 1.25 times the
  95th, because crops enlarge boxes. The ratios are the 10th, 50th and 90th percentiles of height over width, at least a
  factor of 1.25 apart. The preset's anchors miss most boxes that are all large or all narrow.
  """
  sides_N2 = (boxes_N4[:, 2:] - boxes_N4[:, :2]) * view
  sides_N2 = sides_N2[(sides_N2 > 0).all(1)]
  if not len(sides_N2):
    sides_N2 = np.array([[view / 16] * 2, [view / 2] * 2])
  low, high = np.percentile(np.sqrt(sides_N2.prod(1)), [5, 95])
  low = max(low, 1.0)
  sizes = np.geomspace(low, max(1.25 * high, 1.5 * low), 5)
  ratios = np.percentile(sides_N2[:, 0] / sides_N2[:, 1], [10, 50, 90])
  ratios = np.clip([min(ratios[0], ratios[1] / 1.25), ratios[1], max(ratios[2], ratios[1] * 1.25)], 0.01, 100)
  return tuple((round(float(size), 1),) for size in sizes), tuple(round(float(ratio), 2) for ratio in ratios)


def turn_off_flip(own: ConfigDict, about: About) -> list[str]:
  """Sets `augment.flip=0` where a flip would make labels wrong. Returns these labels."""
  sided = list_sided_names(own, about) if set(own.findings) <= set(about.get('findings', ())) else []
  if not sided or not own.augment.flip:
    return []
  own.augment.flip = 0.0
  return sided


def describe_labels(own: ConfigDict, about: About) -> str:
  """What the task learns, in words."""
  labels = find_kind(own.kind).select(about, own) if set(own.findings) <= set(about.get('findings', ())) else about
  if own.kind == 'classification':
    relation = {'independent': 'findings', 'exclusive': 'classes, one per image', 'ordinal': 'grades, one per image'}
    return f'{relation[labels.get("relation", "independent")]}: {shorten(labels["findings"])}'
  if own.kind == 'regression':
    return f'the value{" in " + about["value"]["unit"] if about["value"].get("unit") else ""}'
  return f'classes: {shorten(labels["mask"][1:] if own.kind == "segmentation" else labels["box_classes"])}'


def shorten(names: list[str]) -> str:
  return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')


@contextlib.contextmanager
def name_sections(config: ConfigDict, plain: ConfigDict) -> Iterator[None]:
  """Lets errors about the tasks of `plain` name the fields of `config`, which the user can set."""
  try:
    yield
  except ConfigError as error:
    message = str(error)
    for section in list_sections(config):
      name = config[section].name or config[section].dataset
      if name and name in plain.get('tasks', {}):
        message = message.replace(f'tasks.{name}.head.', f'{section}.heads.{plain.tasks[name].kind}.')
        message = message.replace(f'tasks.{name}.', f'{section}.')
    if message == str(error):
      raise
    raise ConfigError(message) from error
