"""The report of stage 1: probe scores as tables, in sentences and in `results.json`, and three pictures."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation import label_shares, probe
from mtpret_jax.objectives import Trunk
from mtpret_jax.objectives.key_age import explain_key_age
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.report import page
from mtpret_jax.report.image_grids import draw_neighbours, draw_views
from mtpret_jax.report.label_shares import count_worse, describe_shares, draw_shares
from mtpret_jax.report.standing import FEW_IMAGES, describe_check, describe_few, find_standing
from mtpret_jax.report.tables import align
from mtpret_jax.report.words import say_count
from mtpret_jax.runtime import distributed, events
from mtpret_jax.runtime.atomic_io import read_json_lines, write_atomically, write_json
from mtpret_jax.runtime.initial_weights import SCRATCH, read_initial_weights
from mtpret_jax.runtime.logging import METRICS, TABLES, list_versions
from mtpret_jax.runtime.prepare_data import PHANTOMS, describe_data
from mtpret_jax.runtime.sharding import gather_state, make_mesh
from mtpret_jax.step import TrainState, init_state, make_optimiser, place_state

PROBES = {'knn': 'kNN', 'linear': 'linear'}
MILD_CROP = 0.6  # smallest share of the image that a mild crop keeps
TITLES = ('pixels', 'histogram', 'initial', 'calibrated', 'pretrained')  # of the features that are probed

log = logging.getLogger(__name__)


def finish(state: TrainState, config: ConfigDict) -> None:
  """Probes the trunk before and after pretraining and some baselines, writes and prints the scores, and draws the
  pictures."""
  log.info('scoring the features of the trunk, before and after pretraining')
  initial = find_initial_trunk(config)
  distributed.run_on_first(lambda: report(initial, probe.find_trunk(state), config))


def find_initial_trunk(config: ConfigDict) -> Trunk:
  """The (params, stats) that the run started from. All processes call it."""
  # Made as at the start of the run, so that it is the same program, which the compilation cache holds.
  objective, optimiser, mesh = make_moco(config), make_optimiser(config.optimiser), make_mesh()
  weights = read_initial_weights(config, quiet=True)
  return probe.find_trunk(gather_state(init_state(objective, optimiser, mesh, config.seed, weights, place_state(
    objective, optimiser, mesh, config.sharding))))


def report(initial: Trunk, pretrained: Trunk, config: ConfigDict) -> None:
  """Everything that the first process does."""
  datasets, workdir = probe.read_datasets(config, config.probe.images), pathlib.Path(config.workdir)
  # Each part can take minutes, and without a terminal not all have a progress bar.
  log.info('computing the features of %s',
           say_count(sum(len(part['image']) for splits in datasets.values() for part in splits.values()), 'image'))
  features = compute_features(initial, pretrained, datasets, config) if datasets else {}
  log.info('fitting k nearest neighbours and linear models to the features')
  rows = probe.score_features(datasets, features, config)
  log.info('fitting linear models to shares of the labels')
  shares = label_shares.score_shares(datasets, features, config)
  log.info('drawing the pictures of the report')
  pictures = [draw_shares(shares, name_start(config), workdir)] if shares else []
  if datasets:
    pictures += [draw_views(workdir, datasets, config), draw_neighbours(workdir, datasets, features['pretrained'])]
  with events.open_events(workdir) as writer:
    for picture in pictures:
      events.add_file(writer, f'report/{picture.stem}', picture, config.steps)
  # The results come last, because `test_scores.is_finished` takes them as proof that the report is complete.
  decline = '' if describe_check(rows, config.steps) else explain_decline(shares, config)
  write_atomically(workdir / TABLES, f'{describe_scores(rows, config)}\n\n{describe_label_shares(shares, config)}\n')
  write_results(workdir, rows, shares, decline, config)
  print(describe_end(rows, shares, decline, config))
  print(f'Nearest neighbours, and baselines without a trunk: {workdir / TABLES}')
  page.announce(workdir)


def describe_end(rows: Sequence[Mapping[str, Any]], shares: Sequence[Mapping[str, Any]], decline: str,
                 config: ConfigDict) -> str:
  """What the terminal shows: the scores of a linear model, what they say, and what to be wary of. `rows` are those of
  `probe.score_features`, `shares` those of `label_shares.score_shares`."""
  lines = [describe_label_shares(shares, config), describe_splits(config)] if shares else []
  if shares:
    found = find_standing(shares)
    lines.append(f'{found.title[0].upper()}{found.title[1:]} {found.value}. {found.meaning}.')
  doubt = describe_check(rows, config.steps) or describe_few(rows)
  return '\n'.join(filter(None, [*lines, *describe_unscored(rows, config), doubt, decline]))


def describe_label_shares(shares: Sequence[Mapping[str, Any]], config: ConfigDict) -> str:
  return describe_shares(shares, name_start(config), config.probe.draws) if shares else ''


def name_start(config: ConfigDict) -> str:
  """What the trunk before pretraining is called."""
  return 'untrained' if config.init == SCRATCH else config.init


def compute_features(initial: Trunk, pretrained: Trunk, datasets: probe.Datasets,
                     config: ConfigDict) -> dict[str, probe.Features]:
  """{title: features}, for the titles in TITLES. Those of the pretrained trunk are of all images, for the picture of
  neighbours; the others are of datasets that can be scored."""
  scored = {name: datasets[name] for name, _, _ in probe.list_scored(datasets)}
  embed = probe.make_embedder(config)
  features = {'pretrained': probe.embed_datasets(embed, pretrained, datasets, 'pretrained')}
  if not scored:
    return features
  trunks = {'initial': initial, 'calibrated': probe.calibrate(config, initial, datasets)}
  return {'pixels': probe.describe_datasets(probe.shrink_images, scored),
          'histogram': probe.describe_datasets(probe.count_greys, scored),
          **{title: probe.embed_datasets(embed, trunk, scored, title) for title, trunk in trunks.items()}, **features}


def describe_scores(rows: Sequence[Mapping[str, Any]], config: ConfigDict) -> str:
  """The rows of `probe.score_features` as a table, with what it leaves out."""
  start = name_start(config)
  pixels = f'{probe.PIXELS} x {probe.PIXELS} px'
  table = [('dataset', 'probe', 'score', pixels, 'histogram', start, 'calibrated', 'pretrained', 'change')]
  table += [(row['dataset'], name, row['metric'],
             *(format_score(row, kind, title) for title in TITLES[:-1]),
             *(format_interval(row, kind, title) for title in ('pretrained', 'change')))
            for row in rows for kind, name in PROBES.items()]
  return '\n'.join([
    'What the trunk has learned: k nearest neighbours (kNN) and a linear model on its frozen features, and on '
    'baselines',
    describe_splits(config),
    *align(table),
    f'{pixels}, histogram ({probe.BINS} bins of grey): without a trunk. {start}: the trunk before pretraining; '
    f'calibrated: the same weights with running statistics of training images. change: pretrained minus {start}.',
    'In brackets: 95 % intervals over patients. AUROC: mean over findings, higher is better, chance is 0.5. MAE: mean '
    'absolute error, lower is better.',
    *(f'{row["dataset"]} has only {row["validation"]} validation images, so its scores mean little.' for row in rows
      if row['validation'] < FEW_IMAGES),
    *describe_unscored(rows, config)])


def describe_splits(config: ConfigDict) -> str:
  patients = ('no patient is in both splits' if config.data.split == 'patient' else
              f'with data.split={config.data.split} a patient may be in both splits')
  return (f'Fitted on the training split, scored on the validation split; {patients}. Data: '
          f'{describe_data(config.data.archives)}.')


def describe_unscored(rows: Sequence[Mapping[str, Any]], config: ConfigDict) -> list[str]:
  """The datasets without a row, a line for each reason."""
  names: dict[str, list[str]] = {}
  for name in config.data.datasets:
    if name not in {row['dataset'] for row in rows}:
      names.setdefault(explain_no_score(name, config), []).append(name)
  return [f'Not scored: {", ".join(group)} ({reason}).' for reason, group in names.items()]


def explain_no_score(name: str, config: ConfigDict) -> str:
  """Why the probe has no row for a dataset."""
  if name in config.data.whole:
    return 'all images were training images: data.whole'
  return 'the validation images have neither a value nor a finding that is both present and absent among them'


def explain_decline(shares: Sequence[Mapping[str, Any]], config: ConfigDict) -> str:
  """Where the pretrained trunk is worse than the initial one for most datasets or in most rows of `shares`, says so and
  what to change; '' elsewhere."""
  datasets, cells = len(shares), sum(len(row['shares']) for row in shares)
  worse, worse_cells = count_worse(shares)
  if 2 * worse <= datasets and 2 * worse_cells <= cells:
    return ''
  lines = read_json_lines(pathlib.Path(config.workdir, METRICS))
  return (f'The pretrained trunk is worse than the one it started from: with all labels its linear score is worse on '
          f'{worse} of {say_count(datasets, "dataset")}, and over all shares in {worse_cells} of '
          f'{say_count(cells, "row")}. '
          f'{advise(lines, count_training_images(config), config)}')


def advise(lines: Sequence[Mapping[str, Any]], images: int, config: ConfigDict) -> str:
  """What to change after a run that did not help: what its log shows first. `images` is the number of its training
  images, `lines` are those of `metrics.jsonl`."""
  if explained := explain_key_age(lines, config):
    return f'The log says why: {explained}.'
  epochs, chance = config.steps * config.batch / max(images, 1), 1 / config.batch
  remedies = [f'more steps (--config.steps; now {say_count(round(epochs), "epoch")})']
  if config.augment.crop_area[0] < MILD_CROP:
    remedies.append(f'milder crops (--config.augment.crop_area="({MILD_CROP}, 1.0)")')
  if config.moco.negatives == 'queue':
    remedies.append('negatives from the batch (--config.moco.negatives=batch)')
  accuracy = lines[-1]['accuracy_batch'] if lines else None
  measured = '' if accuracy is None else (
    f' (at the end, queries find their key in the batch in {accuracy:.0%} of the cases; chance is {chance:.0%})')
  return f'Start again in a new workdir with {join_words(remedies)}{measured}.'


def join_words(words: Sequence[str]) -> str:
  """'one', 'one or two', 'one, two or three'."""
  return ' or '.join([', '.join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def count_training_images(config: ConfigDict) -> int:
  return sum(len(open_source(name, config.data.dir, config.data.stored_size, 'train', config.data.split,
                             images_only=True, whole=name in config.data.whole)) for name in config.data.datasets)


def format_score(row: Mapping[str, Any], kind: str, title: str) -> str:
  """'0.934'; a change is printed with its sign."""
  sign = '+' if title == 'change' else ''
  return f'{row[kind][title][0]:{sign}.{probe.count_digits(row["metric"])}f}'


def format_interval(row: Mapping[str, Any], kind: str, title: str) -> str:
  """'0.934 (0.905 to 0.964)'; the numbers of a change are printed with their signs."""
  sign, interval = '+' if title == 'change' else '', row[kind][title][1]
  digits = probe.count_digits(row['metric'])
  ends = f' ({" to ".join(f"{end:{sign}.{digits}f}" for end in interval)})' if interval else ''
  return f'{format_score(row, kind, title)}{ends}'


def write_results(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]], shares: Sequence[Mapping[str, Any]],
                  decline: str, config: ConfigDict) -> None:
  """`results.json`: the probe scores, with the config and the versions that gave them. `decline`: see
  `explain_decline`."""
  write_json(workdir / 'results.json', {
    'data': config.data.archives or PHANTOMS, 'probe': rows, 'label_shares': shares, 'decline': decline,
    'versions': list_versions(), 'config': config.to_dict()})
