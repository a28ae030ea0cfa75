"""Checks before training whether a task can be trained and scored on a split, and lists doubts about its scores."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.data.records import read_text
from mtpret_jax.data.sources import read_patient_shares
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.dataset import describe_split, open_usable
from mtpret_jax.tasks.sides import find_unpaired
from mtpret_jax.tasks.task import About

MAX_LISTED = 5  # classes that a message names
FEW = 5  # images of a class; with fewer, its score says little
MEAN_NOTE = 'the mean of a bootstrap resample is over the classes that occur in it'


def check_split(config: ConfigDict, name: str, split: str) -> list[str]:
  """Checks that the task `name` can be trained or scored on a split, before anything is trained. Returns what the user
  should know about the split, see `list_doubts`.

  Raises:
    ConfigError: no record can be used; in training or test, the labels are all the same; `data.fraction` keeps no
      training image of a class that the training split has; or labels do not allow
      what the config asks for (`check_flip`, `check_uncertain`, `check_flips`).
    MissingSplit, OutdatedIndex, FileNotFoundError: see `open_source`.
  """
  task_config = config.tasks[name]
  kind, fraction = find_kind(task_config.kind), config.data.fraction if split == 'train' else 1.0
  source, usable = open_usable(config, name, split, fraction)
  if split == 'train':
    check_flip(name, task_config, source.about)
    check_uncertain(name, task_config, source.about)
    check_flips(config, name, source.about)
  if fraction < 1:
    check_fraction(config, name, kind.list_classes(source.about, task_config, usable.labels))
  check_labels(config, name, split, source.about, usable.labels)
  return list_doubts(config, name, split, source.about, usable.labels)


def check_labels(config: ConfigDict, name: str, split: str, about: About, labels: Sequence[Mapping]) -> None:
  """Raises ConfigError if the task `name` cannot be trained or scored on a split because its labels are all the same.
  With one class in validation only the best state is unknown, see `list_doubts`."""
  task_config = fit_to_split(config.tasks[name], split, labels)
  defect = '' if split == 'validation' else find_kind(task_config.kind).find_split_defect(about, task_config, labels)
  if defect and split == 'train' and config.data.fraction < 1:
    where = describe_split(split, task_config.dataset, config.data.split)
    raise ConfigError(f'tasks.{name}: what data.fraction={config.data.fraction:g} keeps of {where} {defect}, so '
                      f'{task_config.kind} cannot be learned on it: set a larger --config.data.fraction')
  if defect:
    raise ConfigError(f'tasks.{name}: {describe_split(split, task_config.dataset, config.data.split)} {defect}, so '
                      f'{task_config.kind} cannot be {"learned" if split == "train" else "scored"} on it: set '
                      f'--config.tasks.{name}.dataset or --config.data.split to what has more')


def fit_to_split(task_config: ConfigDict, split: str, labels: Sequence[Mapping]) -> ConfigDict:
  """The config by which the labels of a split are read: evaluation makes no use of uncertain ones."""
  return task_config if split == 'train' else find_kind(task_config.kind).fit_labels(task_config, labels)


def list_doubts(config: ConfigDict, name: str, split: str, about: About, labels: Sequence[Mapping]) -> list[str]:
  """Why the task `name` learns less on a split than its config suggests, or why its scores there say less. A sentence
  for each reason."""
  task_config, doubts = fit_to_split(config.tasks[name], split, labels), []
  kind, where = find_kind(task_config.kind), f'task {name}: '
  where += describe_split(split, task_config.dataset, config.data.split)
  if len({read_text(label['patient']) for label in labels}) == 1:
    doubts.append(f'{where} has one patient only (usable images: {len(labels)})')
  if split == 'validation':
    if defect := kind.find_split_defect(about, task_config, labels):
      doubts.append(f'{where} {defect}, so the state that validation finds may not be the best; if no validation gives '
                    f'a score, the last state counts')
      return doubts
  classes = kind.list_classes(about, task_config, labels)
  if missing := [title for title, shown_N in classes.items() if not shown_N.any()]:
    effect = {'train': 'which is not learned', 'validation': 'so the best state is chosen without it',
              'test': 'which has no score'}[split]
    doubts.append(f'{where} has no image with {join(missing)}, {effect}')
  if split == 'test':
    doubts += describe_rare(config, name, split, {title: int(shown_N.sum()) for title, shown_N in classes.items()})
  return doubts


def describe_rare(config: ConfigDict, name: str, split: str, images: Mapping[str, int]) -> list[str]:
  """A sentence if a split has too few images of a class to score it well, else none. `images`: {class: how many show
  it}."""
  rare = [f'{number} image{"s" if number > 1 else ""} with {title}' for title, number in images.items()
          if 0 < number < FEW]
  where = f'task {name}: {describe_split(split, config.tasks[name].dataset, config.data.split)}'
  return [f'{where} has only {join(rare)}, so its scores are uncertain'] if rare else []


def note_rare(config: ConfigDict, split: str, images: Mapping[str, Mapping[str, int]]) -> list[str]:
  """What `describe_rare` says of each task, and what their means are over. `images`: {task: {class: how many show
  it}}."""
  rare = {name: sentences for name, own in images.items() if (sentences := describe_rare(config, name, split, own))}
  means = [MEAN_NOTE] if any(has_mean(images[name]) for name in rare) else []
  return [sentence for sentences in rare.values() for sentence in sentences] + means


def has_mean(images: Mapping[str, int]) -> bool:
  """Whether scores are averaged over classes: there are several. A finding and 'no <finding>' are one."""
  return len({title.removeprefix('no ') if title.removeprefix('no ') in images else title for title in images}) > 1


def join(words: Sequence[str]) -> str:
  """'a, b and 3 more'."""
  rest = f' and {len(words) - MAX_LISTED} more' if len(words) > MAX_LISTED else ''
  return f'{", ".join(words[:MAX_LISTED])}{rest}'


def check_fraction(config: ConfigDict, name: str, classes: Mapping[str, np.ndarray]) -> None:
  """Raises ConfigError if `data.fraction` keeps no training image of a class of which there are some.

  Args:
    classes: {class: (N,) bool, which of the images that are kept show it}.
  """
  missing = [name for name, shown in classes.items() if not shown.any()]
  if not missing:
    return
  task_config, data = config.tasks[name], config.data
  source, usable = open_usable(config, name, 'train')
  shares = read_patient_shares(task_config.dataset, data.dir, data.stored_size, 'train', data.split,
                               data.fraction_seed)
  share_N = np.array([shares[read_text(label['patient'])] for label in usable.labels])
  shown_of = find_kind(task_config.kind).list_classes(source.about, task_config, usable.labels)
  least = {label: float(share_N[shown_of[label]].min()) for label in missing if shown_of[label].any()}
  if not least:
    return
  worst = max(least, key=lambda label: least[label])
  enough = min(math.floor(least[worst] * 10_000 + 1) / 10_000, 1.0)  # a patient is kept above its share
  where = describe_split(source.split, source.name, source.split_rule)
  raise ConfigError(f'data.fraction={data.fraction} keeps no image of {worst!r} of {where}. The smallest fraction that '
                    f'keeps one is {enough:g}', {'data.fraction': enough})


def list_sided_names(task_config: ConfigDict, about: About) -> list[str]:
  """The labels of a task that name a side of the body while none names the other side, such as 'left lung' alone. A
  flip of the image would make them wrong."""
  kind = find_kind(task_config.kind)
  names = kind.select(about, task_config).get(kind.annotation, ())
  return find_unpaired(names) if isinstance(names, Sequence) else []


def check_flip(name: str, task_config: ConfigDict, about: About) -> None:
  """Raises ConfigError if the views of the task `name` are flipped although that makes labels wrong."""
  sided = list_sided_names(task_config, about)
  if sided and task_config.augment.flip:
    raise ConfigError(f'tasks.{name}: {", ".join(map(show, sided[:MAX_LISTED]))} of {task_config.dataset} names one '
                      f'side of the body, and no label names the other side, so a left-right flip would make it wrong',
                      {f'tasks.{name}.augment.flip': 0.0})


def check_flips(config: ConfigDict, name: str, about: About, off: object = False) -> None:
  """Raises ConfigError if predictions of the task `name` are means over flips although the mirror image has other
  labels. `off` is what the advice sets `flips` to."""
  task_config = config.tasks[name]
  if not config.get('flips', False):
    return
  if sided := list_sided_names(task_config, about):
    raise ConfigError(f'flips: {", ".join(map(show, sided[:MAX_LISTED]))} of {task_config.dataset} names one side of '
                      f'the body, and no label names the other side, so the mirror image has other labels',
                      {'flips': off})


def check_uncertain(name: str, task_config: ConfigDict, about: About) -> None:
  """Raises ConfigError for a policy for uncertain labels where the dataset marks none."""
  if task_config.get('uncertain', 'ignore') != 'ignore' and not about.get('uncertain'):
    raise ConfigError(f'tasks.{name}.uncertain={show(task_config.uncertain)}: {task_config.dataset} marks no label as '
                      f'uncertain (-1 in labels.csv; a dataset that an earlier version prepared has to be built again)',
                      {f'tasks.{name}.uncertain': 'ignore'})
