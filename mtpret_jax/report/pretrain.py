"""The end of a run: a table in words, `results.json`, and pictures to look at."""

import json
import pathlib

import jax
import numpy as np

from mtpret_jax.augment import views
from mtpret_jax.evaluation import probe
from mtpret_jax.evaluation.metrics import align
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.runtime import distributed
from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.runtime.initial_weights import read_initial_weights
from mtpret_jax.runtime.logging import list_versions
from mtpret_jax.runtime.prepare_data import PHANTOMS


def finish(state, config):
  """Probes the trunk before and after training, writes what they scored, draws, and prints where everything lies."""
  start = read_initial_weights(config, quiet=True)  # by all processes: Orbax waits for them
  distributed.run_on_first(lambda: report(state, start, config))


def report(state, start, config):
  sets, embed = probe.read_sets(config), probe.make_embedder(config)
  params, carry = jax.jit(make_moco(config).init)(jax.random.key(config.seed), start)
  trunks = jax.device_get({'first': (params['trunk'], carry['stats']['trunk']),
                           'trained': (state.params['trunk'], state.carry['stats']['trunk'])})
  features = {title: probe.embed_sets(embed, trunk, sets, title) for title, trunk in trunks.items()}
  rows = probe.score_sets(sets, features['first'], features['trained'], config)
  workdir = pathlib.Path(config.workdir)
  paths = [workdir / 'checkpoints', workdir / 'tensorboard', write_results(workdir, rows, config),
           draw_views(workdir, sets, config), draw_neighbours(workdir, sets, features['trained'])]
  print(describe_scores(rows, config))
  print('See ' + ', '.join(map(str, paths)))


def describe_scores(scored, config):
  """The probe of the trunk before and after training as a plain table."""
  rows = [('dataset', 'metric', 'images fitted/scored', 'kNN before', 'kNN after', 'kNN change',
           'linear before', 'linear after', 'linear change')]
  rows += [(row['dataset'], row['metric'], f'{row["train"]}/{row["validation"]}',
            *(describe_score(row, kind, title) for kind in ('knn', 'linear') for title in row[kind])) for row in scored]
  what = PHANTOMS if not config.data.archives else f'archives in {config.data.archives}'
  named = {row['dataset'] for row in scored}
  unscored = [name for name in config.data.datasets if name not in named]
  apart = 'patients apart' if config.data.split == 'patient' else f'rule {config.data.split}: patients may be in both'
  return '\n'.join([f'Probe on the validation split, {apart} ({what}); 95 % interval over patients',
                    *align(rows), 'AUROC, the mean over findings: higher is better. MAE: lower is better.',
                    *(f'{name} has no label that the probe scores.' for name in unscored)])


def describe_score(row, kind, title):
  digits, sign = 3 if row['metric'] == 'AUROC' else 1, '+' if title == 'change' else ''
  score, interval = row[kind][title]
  ends = f' ({" to ".join(f"{end:{sign}.{digits}f}" for end in interval)})' if interval else ''
  return f'{score:{sign}.{digits}f}{ends}'


def write_results(workdir, rows, config):
  """`results.json`: the probe's rows, the config and the versions that gave them."""
  results = {
    'data': PHANTOMS if not config.data.archives else config.data.archives,
    'probe': rows, 'versions': list_versions(), 'config': config.to_dict()}
  path = pathlib.Path(workdir, 'results.json')
  write_atomically(path, json.dumps(results, indent=2, default=list) + '\n')
  return path


def draw_views(workdir, sets, config, samples=8):
  """`views.png`: a few training images and two views of each, as the trunk gets them."""
  pools = [splits['train']['image'] for splits in sets.values()]
  images = np.stack([pools[i % len(pools)][i // len(pools) % len(pools[i % len(pools)])] for i in range(samples)])
  make_view = jax.jit(lambda images, rng: views.make_view(images, rng, config.augment, 'float32'))
  first, second = (np.asarray(make_view(images, rng)) for rng in jax.random.split(jax.random.key(config.seed)))
  return draw_grid(pathlib.Path(workdir, 'views.png'), [list(images), list(first), list(second)],
                   ['image', 'one view', 'another view'])


def draw_neighbours(workdir, sets, features, queries=8, neighbours=4):
  """`neighbours.png`: validation images in the top row, under each the training images nearest to it, of any set."""
  bank = np.concatenate([probe.unit(features[name]['train']) for name in sets])
  images = [image for splits in sets.values() for image in splits['train']['image']]
  names = list(sets)
  columns = []
  for index in range(queries):
    name = names[index % len(names)]
    row = index // len(names) % len(features[name]['validation'])
    query = probe.unit(features[name]['validation'])[row]
    nearest = np.argsort(-(bank @ query))[:neighbours]
    columns.append([sets[name]['validation']['image'][row], *(images[i] for i in nearest)])
  return draw_grid(pathlib.Path(workdir, 'neighbours.png'), list(zip(*columns, strict=True)),
                   ['validation', *(f'nearest {rank + 1}' for rank in range(neighbours))])


def draw_grid(path, rows, titles):
  from matplotlib.figure import Figure  # not before something is drawn: half a second of each start
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
