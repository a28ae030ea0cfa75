"""How many images each share of the labels keeps, counted before anything is trained.

N images.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.data.records import read_text
from mtpret_jax.data.sources import rank_patients, read_patient_shares
from mtpret_jax.runtime import image_counts
from mtpret_jax.stages.table.cells import Labels, has_cell, list_inits, list_stages
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.dataset import open_usable
from tfds_builders import build


class Kept(NamedTuple):
  """What a share of the labels keeps with one seed. `classes`: {class: (images that are kept, all training images)}.
  `defect`: why the task cannot be learned from them, see `TaskKind.find_split_defect`; '' if it can."""

  images: int
  classes: dict[str, tuple[int, int]]
  defect: str = ''


def count_kept(config: ConfigDict) -> dict[Labels, list[Kept]]:
  """{(task, fraction): what it keeps with each seed} for the tasks of stages 2 and 3. Tasks whose dataset is neither
  prepared nor in an archive, as phantoms before they are rendered, are left out."""
  kept: dict[Labels, list[Kept]] = {}
  for stage in list_stages(config):  # stage 3 comes last, because its tasks count where stage 2 has others
    for name in stage.get('tasks', ()):
      kept |= dict(count_task(stage, name, config.fractions, config.seeds))
  return kept


def count_task(stage: ConfigDict, name: str, fractions: Sequence[float],
               seeds: Sequence[int]) -> Iterator[tuple[Labels, list[Kept]]]:
  task_config, data = stage.tasks[name], stage.data
  if build.is_prepared(build.locate(task_config.dataset, data.dir, data.stored_size)):
    source, usable = open_usable(stage, name, 'train')
    about, labels = source.about, usable.labels
    patients = [read_text(label['patient']) for label in labels]
    shares = {seed: read_patient_shares(task_config.dataset, data.dir, data.stored_size, 'train', data.split, seed)
              for seed in seeds}
  else:
    rows = image_counts.list_rows(task_config.dataset, stage)
    if rows is None:
      return
    about = image_counts.read_tables(task_config.dataset, data).info.metadata
    rows = [row for row in rows if row['splits'][data.split] == 'train']
    usable_rows = image_counts.select_usable(task_config, about, rows, 'train')
    labels, patients = [row['labels'] for row in usable_rows], [row['patient'] for row in usable_rows]
    shares = {seed: rank_patients(rows, seed) for seed in seeds}
  kind = find_kind(task_config.kind)
  classes = kind.list_classes(about, task_config, labels)
  shown = {label: shown_N for label, shown_N in classes.items() if shown_N.any()}
  shown = shown or {'a label': np.ones(len(labels), bool)}

  def count_share(fraction: float, seed: int) -> Kept:
    is_kept = [shares[seed][patient] < fraction for patient in patients]
    kept = list(itertools.compress(labels, is_kept))
    defect = kind.find_split_defect(about, task_config, kept) if kept else ''
    return count_classes(shown, is_kept)._replace(defect=defect)

  for fraction in fractions:
    yield (name, fraction), [count_share(fraction, seed) for seed in seeds]


def count_classes(shown: dict[str, np.ndarray], kept: Sequence[bool]) -> Kept:
  """Args:
    shown: {class: (N,) bool, which images show it}.
    kept: N bool, which images the share of the labels keeps.
  """
  kept_N = np.array(kept, bool)
  return Kept(int(kept_N.sum()), {label: (int((shown_N & kept_N).sum()), int(shown_N.sum()))
                                  for label, shown_N in shown.items()})


def find_too_few(kept: Mapping[Labels, Sequence[Kept]], min_images: int) -> dict[Labels, str]:
  """{(task, fraction): why} where a class keeps fewer than `min_images` images, or fewer than all of them if there are
  not so many, or where the task cannot be learned from what is kept, with one of the seeds. The share is left out with
  all seeds, so that they are the same in the table."""
  reasons = {}
  for (task, fraction), counts in kept.items():
    lacking = [(images, every, label) for count in counts for label, (images, every) in count.classes.items()
               if images < min(min_images, every)]
    if lacking:
      images, every, label = min(lacking)
      reasons[task, fraction] = (f'{100 * fraction:.4g} % of the labels keeps {images} of {every} training images with '
                                 f'{label}, and min_images={min_images}')
    elif defect := next((count.defect for count in counts if count.defect), ''):
      reasons[task, fraction] = f'{100 * fraction:.4g} % of the labels {defect}'
  return reasons


def describe_left_out(config: ConfigDict, reasons: Mapping[Labels, str]) -> list[str]:
  """A line for each group of cells that the table lacks."""
  lines = [f'left out: {task} with {why}' for (task, _), why in reasons.items() if task in config.tasks]
  if 'imagenet' in config.inits and not config.imagenet:
    lines.append('left out: imagenet, because --config.imagenet names no file')
  for init in list_inits(config):
    without = [f'{task} ({100 * fraction:.4g} %)' for task in config.tasks for fraction in sorted(config.fractions)
               if (task, fraction) not in reasons and not has_cell(config, task, init, fraction, reasons)]
    if without:
      why = ('stage 1 must not see the dataset of an external task' if init == 'moco' else
             'stage 2 has fewer than two tasks with enough labels')
      lines.append(f'left out: {init} of {", ".join(without)}, because {why}')
  return lines
