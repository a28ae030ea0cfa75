"""The model card, README.md of an export."""

import functools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mtpret_jax
import tfds_builders
from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.test_scores import FILE as SCORES
from mtpret_jax.export import folder as export_folder
from mtpret_jax.export.trained import Trained
from mtpret_jax.report.scores import describe_result
from mtpret_jax.runtime import lineage, prepare_data
from tfds_builders.common.dataset import SIZES

LICENCE = re.compile(r'^\*\*Licence\*\*: (.+?)\n\n', re.MULTILINE | re.DOTALL)  # in a builder's README.md
OWN = 'a dataset of your own: state its terms here before you pass the model on'
SUMMARY = ('init', 'train', 'steps', 'rounds', 'batch', 'seed', 'dtype')  # config fields of the card, where they are
PHANTOMS = ('**Phantoms** are computed images in the layout of the archive, not images of patients. Its licence does '
            'not apply to them, and scores on them say nothing about real radiographs.')


def write(trained: Trained, tasks: Sequence[str], folder: pathlib.Path, usage: str) -> None:
  """Writes README.md to an export's folder, whose other files are there already.

  Args:
    tasks: the ones exported; none after stage 1.
    usage: a section in Markdown, which says how the files are loaded.
  """
  earlier = lineage.trace_lineage(trained.config, workdir=trained.run)
  sections = [describe_model(trained, tasks), describe_use(), describe_data(trained, earlier),
              describe_training(trained, tasks, earlier), describe_scores(trained, tasks),
              *(describe_input(trained, task) for task in tasks or (None,)), usage, describe_files(folder)]
  (folder / export_folder.MARK).write_text('\n\n'.join(sections) + '\n', encoding='utf-8')


# What it is


def describe_model(trained: Trained, tasks: Sequence[str]) -> str:
  config = trained.config
  title = f'{config.trunk}: {", ".join(tasks) or "a trunk without a head"}'
  outputs = '\n'.join(f'* `{task}`, {trained.tasks[task].kind} on {trained.tasks[task].dataset}: '
                      f'{name_outputs(trained.tasks[task].about)}' for task in tasks)
  return '\n'.join([
    '---', 'library_name: mtpret_jax', 'tags: [x-ray, radiology, mtpret]', '---', '', f'# {title}', '',
    f'{export_folder.WORDS} {mtpret_jax.__version__} from the run `{trained.run.name}`, {trained.chosen} state, step '
    f'{trained.step:,}. **Not a medical device.**', '', outputs or 'Its output is the mean of the last feature map.'])


def name_outputs(about: Mapping[str, Any]) -> str:
  """The names of what a task predicts."""
  if about.get('value'):
    unit = about['value']['unit']
    return f'{about["value"]["name"]} ({unit})' if unit else about['value']['name']
  names = about.get('findings') or about.get('mask') or about.get('box_classes') or ()
  relation = {'exclusive': ', exactly one of them', 'ordinal': ', exactly one of them, from least to most severe'}
  return ', '.join(names) + (relation.get(about.get('relation', ''), '') if about.get('findings') else '')


def describe_use() -> str:
  return '\n'.join([
    '## Intended use', '',
    'For research on methods. It must not be used for decisions about patients: it is not approved as a medical '
    'device, and has not been tested beyond the data below. Radiographs of another body part, projection, age group, '
    'hospital or scanner can give wrong predictions with high scores.'])


# Data and training


def describe_data(trained: Trained, earlier: lineage.Lineage) -> str:
  """The datasets of this run and of the earlier ones, with their licences."""
  this = lineage.describe_run(trained.config, trained.run)
  rows = [(name, run, read_archives(trained, run)) for run in (*earlier.runs, this) for name in run.datasets]
  table = ['| dataset | used with labels | images | licence of the archive |', '|---|---|---|---|']
  table += dict.fromkeys(f'| {name} | {"yes" if run.labels else "no"} | {describe_archives(archives)} | '
                         f'{find_licence(name)} |' for name, run, archives in rows)
  lines = ['## Training data', '', *table]
  if any(archives == '' for *_, archives in rows):
    lines += ['', PHANTOMS]
  if earlier.unknown_start:
    lines += ['', f'The trunk started from {earlier.unknown_start}. Its terms apply, too.']
  return '\n'.join(lines)


def read_archives(trained: Trained, run: lineage.EarlierRun) -> str | None:
  """The folder of archives of a run; '' if it used phantoms, None if that is not known."""
  if pathlib.Path(run.workdir) == trained.run:
    return trained.config.data.archives
  try:
    return saved.read_config(run.workdir)['data'].get('archives')
  except ConfigError:
    return None


def describe_archives(archives: str | None) -> str:
  return 'unknown' if archives is None else 'real' if archives else 'phantoms'


@functools.cache
def find_licence(dataset: str) -> str:
  """The licence terms of a dataset, one line from its builder's README.md."""
  path = pathlib.Path(tfds_builders.__path__[0], dataset, 'README.md')
  found = LICENCE.search(path.read_text(encoding='utf-8')) if path.is_file() else None
  return ' '.join(found[1].split()) if found else OWN


def describe_training(trained: Trained, tasks: Sequence[str], earlier: lineage.Lineage) -> str:
  config = trained.config
  lines = ['## Training', '', f'* stage: {name_stage(trained)}']
  lines += [f'* {field}: {config[field]}' for field in SUMMARY if field in config and config[field] != '']
  lines += [f'* {task}: {config.tasks[task].size} px, crops of {config.tasks[task].augment.size} px, batch '
            f'{config.tasks[task].batch}' for task in tasks]
  lines += [f'* optimiser: {", ".join(f"{key} {value}" for key, value in config.optimiser.items())}',
            f'* split: by the rule `{config.data.split}`; share of the training patients: '
            f'{config.data.get("fraction", 1.0):g}']
  lines += [f'* earlier run: `{pathlib.Path(run.workdir).name}`, {"with" if run.labels else "without"} labels, on '
            f'{", ".join(run.datasets)}' for run in earlier.runs]
  notes = lineage.list_notes(config, earlier) if 'tasks' in config else []
  return '\n'.join([*lines, *(f'* note: {note}' for note in notes)])


def name_stage(trained: Trained) -> str:
  if not trained.tasks:
    return '1, contrastive pretraining without labels'
  config = trained.config
  is_single = len(config.tasks) == len(config.data.datasets) == 1  # an export of stage 2 may have one of its tasks
  return '3, fine-tuning on one task' if is_single else '2, continual learning on several tasks'


# Scores


def describe_scores(trained: Trained, tasks: Sequence[str]) -> str:
  lines = list(list_scores(trained, tasks))
  return '\n'.join(['## Scores', '', *(lines or ['The run has no test scores.'])])


def list_scores(trained: Trained, tasks: Sequence[str]) -> Iterator[str]:
  path = trained.run / SCORES
  try:
    results = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return
  except ValueError as error:
    raise ConfigError(f'{path} is damaged ({error}): delete it, or restore it from a backup') from error
  for task in tasks:
    if task in results['tasks']:
      yield (f'`{task}`, {results["split"]} split (rule: {results["split_rule"]}), state after step '
             f'{results["step"]:,}. Data: {prepare_data.describe_data(results["data"])}.')
      if results['step'] != trained.step:
        yield f'**These are the scores of another state; this export is step {trained.step:,}.**'
      yield f'\n```\n{describe_result(results["tasks"][task])}\n```'
  yield from (f'\nNote: {note}.' for note in (*results.get('notes', ()), *results['pretraining']['notes']))


# Files


def describe_input(trained: Trained, task: str | None) -> str:
  """How an image becomes the input of the network."""
  fitted = trained.tasks[task] if task else None
  size, view = (fitted.size, fitted.view) if fitted else (trained.config.data.size, trained.config.augment.size)
  longest = SIZES[trained.config.data.stored_size]
  steps = [
    'One grey channel of 8 bits, bone bright, upright. `python -m mtpret_jax.predict` also reads DICOM, colours and 16 '
    'bits.',
    f'The longer side is reduced to {longest} px if it is longer (area averaging, rounded to whole grey values).'
    if longest else 'The image keeps its size.',
    f'Stretched to {size} x {size} px: area averaging if it has more pixels, bilinear if fewer; rounded to whole grey '
    'values.',
    f'Divided by 255, and resized to {view} x {view} px: bilinear with antialiasing.',
    'Standardised by the mean and standard deviation of that image before the last resizing (the deviation is at least '
    '1/255).']
  return '\n'.join([f'## Input{f" of {task}" if task and len(trained.tasks) > 1 else ""}', '',
                    *(f'{number}. {step}' for number, step in enumerate(steps, 1))])


def describe_files(folder: pathlib.Path) -> str:
  table = [f'| `{name}` | {size:,} | `{digest}` |' for name, size, digest in export_folder.list_files(folder)]
  return '\n'.join(['## Files', '', '| file | bytes | SHA-256 |', '|---|---|---|', *table])
