"""The report of stage 1: probe scores as a table and in `results.json`, and two pictures."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.augment import views
from mtpret_jax.evaluation import probe
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.report.tables import align
from mtpret_jax.runtime import distributed
from mtpret_jax.runtime.atomic_io import write_json
from mtpret_jax.runtime.initial_weights import SCRATCH, read_initial_weights
from mtpret_jax.runtime.logging import list_versions
from mtpret_jax.runtime.prepare_data import PHANTOMS
from mtpret_jax.step import TrainState

FEW_IMAGES = 50  # with fewer validation images the report warns
PROBES = {'knn': 'kNN', 'linear': 'linear'}
TITLES = ('pixels', 'histogram', 'initial', 'calibrated', 'pretrained')  # of the features that are probed


def finish(state: TrainState, config: ConfigDict) -> None:
  """Probes the trunk before and after pretraining and some baselines, writes and prints the scores, and draws the
  pictures."""
  initial = read_initial_weights(config, quiet=True)  # in all processes, since Orbax waits for each of them
  distributed.run_on_first(lambda: report(state, initial, config))


def report(state: TrainState, initial: Any, config: ConfigDict) -> None:
  """`initial`: the (params, stats) that the trunk started from, or None for random ones."""
  datasets = probe.read_datasets(config)
  features = compute_features(state, initial, datasets, config) if datasets else {}
  rows = probe.score_features(datasets, features, config)
  workdir = pathlib.Path(config.workdir)
  pictures = [draw_views(workdir, datasets, config),
              draw_neighbours(workdir, datasets, features['pretrained'])] if datasets else []
  # The results come last, because `test_scores.is_finished` takes them as proof that the report is complete.
  paths = [write_results(workdir, rows, config), *pictures, workdir / 'checkpoints', workdir / 'tensorboard']
  print(describe_scores(rows, config))
  print('See ' + ', '.join(map(str, paths)))


def compute_features(state: TrainState, initial: Any, datasets: probe.Datasets,
                     config: ConfigDict) -> dict[str, probe.Features]:
  """{title: features of all images}, for the titles in TITLES."""
  params, carry = jax.jit(make_moco(config).init)(jax.random.key(config.seed), initial)
  before, after = jax.device_get(((params['trunk'], carry['stats']['trunk']),
                                  (state.params['trunk'], state.carry['stats']['trunk'])))
  trunks = {'initial': before, 'calibrated': probe.calibrate(config, before, datasets), 'pretrained': after}
  embed = probe.make_embedder(config)
  return {'pixels': probe.describe_datasets(probe.shrink_images, datasets),
          'histogram': probe.describe_datasets(probe.count_greys, datasets),
          **{title: probe.embed_datasets(embed, trunk, datasets, title) for title, trunk in trunks.items()}}


def describe_scores(rows: Sequence[Mapping[str, Any]], config: ConfigDict) -> str:
  """The rows of `probe.score_features` as a table, with a sentence for each dataset."""
  start = 'untrained' if config.init == SCRATCH else config.init
  pixels = f'{probe.PIXELS} x {probe.PIXELS} px'
  table = [('dataset', 'probe', 'score', pixels, 'histogram', start, 'calibrated', 'pretrained', 'change')]
  table += [(row['dataset'], name, row['metric'],
             *(format_score(row, kind, title) for title in TITLES[:-1]),
             *(format_interval(row, kind, title) for title in ('pretrained', 'change')))
            for row in rows for kind, name in PROBES.items()]
  data = f'archives in {config.data.archives}' if config.data.archives else PHANTOMS
  patients = ('no patient is in both splits' if config.data.split == 'patient' else
              f'with data.split={config.data.split} a patient may be in both splits')
  scored = {row['dataset'] for row in rows}
  return '\n'.join([
    'What the trunk has learned: k nearest neighbours (kNN) and a linear model on its frozen features, and on '
    'baselines',
    f'Fitted on the training split, scored on the validation split; {patients}. Data: {data}.',
    *align(table),
    f'Without a trunk: {pixels}, the small image itself; histogram, {probe.BINS} bins of its greys. '
    f'{start}: the trunk before pretraining; calibrated: the same weights with running statistics of training images.',
    f'change: pretrained minus {start}. In brackets: 95 % intervals over patients; results.json has those of all '
    f'columns. AUROC: mean over findings, higher is better, chance is 0.5. MAE: mean absolute error, lower is better.',
    *map(describe_change, rows),
    *(f'{row["dataset"]} has only {row["validation"]} validation images, so its scores mean little.' for row in rows
      if row['validation'] < FEW_IMAGES),
    *(f'{name} is not scored: {explain_no_score(name, config)}.' for name in config.data.datasets
      if name not in scored)])


def explain_no_score(name: str, config: ConfigDict) -> str:
  """Why the probe has no row for a dataset."""
  if name in config.data.whole:
    return 'all its images were training images (data.whole)'
  return 'its validation images have neither a value nor a finding that is both present and absent among them'


def describe_change(row: Mapping[str, Any]) -> str:
  """A sentence such as 'Linear-probe AUROC on kermany_pneumonia rises from 0.824 to 0.934 (1592 training and 196
  validation images).'"""
  (before, _), (after, _), (change, interval) = (row['linear'][title] for title in ('initial', 'pretrained', 'change'))
  digits = count_digits(row)
  verb = 'rises' if change > 0 else 'falls'
  worse = ' (worse)' if (change < 0) == (row['metric'] == 'AUROC') else ''  # of an error, lower is better
  moves = f'{verb} from {before:.{digits}f} to {after:.{digits}f}{worse}' if change else f'stays at {after:.{digits}f}'
  doubt = '; the interval of the change includes 0' if interval and interval[0] <= 0 <= interval[1] else ''
  return (f'Linear-probe {row["metric"]} on {row["dataset"]} {moves} ({row["train"]:,} training and '
          f'{row["validation"]:,} validation images{doubt}).')


def format_score(row: Mapping[str, Any], kind: str, title: str) -> str:
  """'0.934'; a change is printed with its sign."""
  sign = '+' if title == 'change' else ''
  return f'{row[kind][title][0]:{sign}.{count_digits(row)}f}'


def format_interval(row: Mapping[str, Any], kind: str, title: str) -> str:
  """'0.934 (0.905 to 0.964)'; the numbers of a change are printed with their signs."""
  sign, interval = '+' if title == 'change' else '', row[kind][title][1]
  ends = f' ({" to ".join(f"{end:{sign}.{count_digits(row)}f}" for end in interval)})' if interval else ''
  return f'{format_score(row, kind, title)}{ends}'


def count_digits(row: Mapping[str, Any]) -> int:
  """Decimals to print."""
  return 3 if row['metric'] == 'AUROC' else 1


def write_results(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]], config: ConfigDict) -> pathlib.Path:
  """`results.json`: the probe scores, with the config and the versions that gave them."""
  return write_json(workdir / 'results.json', {
    'data': config.data.archives or PHANTOMS, 'probe': rows, 'versions': list_versions(), 'config': config.to_dict()})


def draw_views(workdir: pathlib.Path, datasets: probe.Datasets, config: ConfigDict, samples: int = 8) -> pathlib.Path:
  """`views.png`: training images from all datasets, and two augmented views of each, as the trunk gets them."""
  pools = [splits['train']['image'] for splits in datasets.values()]
  images = np.stack([pools[index % len(pools)][index // len(pools) % len(pools[index % len(pools)])]
                     for index in range(samples)])
  make_view = jax.jit(lambda images, rng: views.make_view(images, rng, config.augment, 'float32'))
  first, second = (np.asarray(make_view(images, rng)) for rng in jax.random.split(jax.random.key(config.seed)))
  return draw_grid(pathlib.Path(workdir, 'views.png'), [list(images), list(first), list(second)],
                   ['image', 'one view', 'another view'])


def draw_neighbours(workdir: pathlib.Path, datasets: probe.Datasets, features: probe.Features, queries: int = 8,
                    neighbours: int = 4) -> pathlib.Path:
  """`neighbours.png`: validation images in the top row; below each, the training images of all datasets whose features
  are nearest by cosine similarity."""
  bank = np.concatenate([probe.normalise_rows(features[name]['train']) for name in datasets])
  images = [image for splits in datasets.values() for image in splits['train']['image']]
  names = list(datasets)
  columns = []
  for index in range(queries):
    name = names[index % len(names)]
    row = index // len(names) % len(features[name]['validation'])
    query = probe.normalise_rows(features[name]['validation'])[row]
    nearest = np.argsort(-(bank @ query))[:neighbours]
    columns.append([datasets[name]['validation']['image'][row], *(images[at] for at in nearest)])
  return draw_grid(pathlib.Path(workdir, 'neighbours.png'), list(zip(*columns, strict=True)),
                   ['validation', *(f'nearest {rank + 1}' for rank in range(neighbours))])


def draw_grid(path: pathlib.Path, rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> pathlib.Path:
  """Draws rows of (H, W, 1) images, a title to the left of each row."""
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  figure = Figure(figsize=(1.5 * len(rows[0]), 1.55 * len(rows)))
  axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
  for row, title, cells in zip(rows, titles, axes, strict=True):
    for image, cell in zip(row, cells, strict=True):
      cell.imshow(image[..., 0], cmap='gray')
      cell.set(xticks=[], yticks=[])
    cells[0].set_ylabel(title)
  figure.tight_layout(pad=0.3)
  figure.savefig(path, dpi=110)
  return path
