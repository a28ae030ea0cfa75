"""What `--help` prints: the stages and their variants, or with --config the fields of one config."""

import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from configs import common, continual, evaluate, finetune, mtpret, pretrain, table, tasks
from mtpret_jax.config.comments import read_comments
from mtpret_jax.config.fields import flatten

STAGES: Sequence[tuple[str, ModuleType, str]] = (
  ('stage 1, pretraining', pretrain, 'configs/pretrain.py'),
  ('stage 2, continual learning', continual, 'configs/continual.py'),
  ('stage 3, fine-tuning', finetune, 'configs/finetune.py'),
  ('all three stages', mtpret, 'configs/mtpret.py'),
  ("the papers' table", table, 'configs/table.py'),
  ('scoring a run again', evaluate, 'configs/evaluate.py'))
MAIN_FIELDS = {
  'workdir': 'folder of the run; the same command resumes it',
  'init, init_from': 'what the trunk was pretrained with, and the run or the file with its weights',
  'data.archives': "folder of archives or of your own datasets; '' renders phantoms",
  'data.datasets': 'stage 1: names of the datasets',
  'preset': "with real archives: 'small', 'base' or 'paper', the size of the run",
  'task.dataset': "stage 3, variant own: your own dataset, whose labels say the kind of task",
  'steps, batch': 'stage 1: length, and images in a step',
  'rounds': 'stage 2: visits to each task',
  'tasks.TASK.steps': 'stages 2 and 3: steps of a visit; likewise .batch, .size, .epochs',
  'data.fraction': 'stages 2 and 3: share of the training patients',
  'trunk': "'resnet18', 'resnet34', 'resnet50' or 'densenet121'",
  'optimiser.learning_rate': 'peak learning rate',
  'seed': 'of weights, order and augmentation'}
FLAGS = {
  '--config=FILE:VARIANT': 'what to run',
  '--config.FIELD=VALUE': 'sets a field, after --config',
  '--dry_run': 'prints data, parameters, memory, disk and time, and stops',
  '--images_per_second=N': 'with --dry_run: the speed to count with',
  '--distributed': 'one of several processes, with --coordinator, --processes, --process, --stall_timeout '
                   '(docs/pods.md)'}
# objective -> (function whose comments explain fields, what comes before them). `tasks.*` is any task.
COMMENTS: Mapping[str, Sequence[tuple[Callable, str]]] = {
  'moco': ((pretrain.base, ''), (common.moco_v2_augment, 'augment.'), (common.phantoms, 'data.phantoms.')),
  'multitask': ((continual.base, ''), (common.phantoms, 'data.phantoms.'), (tasks.make_task_config, 'tasks.*.'),
                (common.labelled_augment, 'tasks.*.augment.'), (tasks.make_task_config, 'task.'),
                (tasks.own_fields, 'task.'), (common.labelled_augment, 'task.augment.'),
                (common.deeplab_v3, 'task.heads.segmentation.'), (common.faster_rcnn, 'task.heads.detection.')),
  'recipe': ((mtpret.make_recipe, ''), (common.phantoms, 'data.phantoms.')),
  'table': ((table.make_fields, ''),),
  'evaluate': ((evaluate.get_config, ''),)}
# kind of task -> its head
HEADS: Mapping[str, Callable] = {'segmentation': common.deeplab_v3, 'detection': common.faster_rcnn}
INDENT = 34  # columns before a meaning


def describe() -> str:
  """The screen of `--help` alone."""
  lines = ['Runs a config: prepares the data, trains, evaluates, writes a report. The same command resumes a run.', '',
           '  python -m mtpret_jax.main --config=FILE:VARIANT [--config.FIELD=VALUE ...]', '', 'What to run']
  for title, module, path in STAGES:
    lines += ['', f'  {title}: --config={path}']
    lines += align([(f'  :{name}', first_line(function)) for name, function in list_variants(module)])
  lines += ['', 'Main fields (all fields of a config: --help --config=FILE:VARIANT, or docs/configs.md)', '',
            *align(MAIN_FIELDS.items()), '', 'Flags', '', *align(FLAGS.items())]
  return '\n'.join(lines)


def describe_config(config: ConfigDict) -> str:
  """The screen of `--help` with a config: each field with its value and its meaning."""
  sections = config.get('tasks', {})
  sections = sections if isinstance(sections, ConfigDict) else {}  # a table has the names of its tasks only
  first, rows = next(iter(sections), ''), []
  kind = sections[first].kind if first else ''
  functions: list[tuple[Callable, str]] = [*COMMENTS.get(config.get('objective'), ())]
  functions += [(function, 'tasks.*.head.') for own, function in HEADS.items() if own == kind]
  meanings = {prefix + field: text for function, prefix in functions for field, text in read_comments(function).items()}
  meanings['preset'] = MAIN_FIELDS['preset']
  for field, value in flatten(config):
    parts = field.split('.')
    if parts[0] == 'stages' or sections and parts[0] == 'tasks' and parts[1] != first:
      continue  # the same fields again
    general = '.'.join(['tasks', '*', *parts[2:]]) if sections and parts[0] == 'tasks' else field
    rows.append((f'{field}={value!r}', meanings.get(general, '')))
  lines = ['Fields, with their values. Set one with --config.FIELD=VALUE.', '', *align(rows)]
  if len(sections) > 1:
    lines += ['', f'The tasks {", ".join(sections)} have the same fields.']
  if 'stages' in config:
    lines += ['', f'Each stage ({", ".join(config.stages)}) has the fields of its own config file: '
              f'--config.stages.{next(iter(config.stages))}.FIELD=VALUE']
  return '\n'.join(lines)


def list_variants(module: ModuleType) -> Iterator[tuple[str, Callable]]:
  if module is finetune:
    yield 'TASK', finetune.base
    for size, function in finetune.SIZES.items():
      yield f'{size},TASK', function
    yield 'own', finetune.own
  else:
    yield from getattr(module, 'VARIANTS', {}).items()


def first_line(documented: Any) -> str:
  """The first sentences of a docstring, up to an empty line."""
  return ' '.join((inspect.getdoc(documented) or '').split('\n\n')[0].split())


def align(rows: Iterable[tuple[str, str]]) -> list[str]:
  """Lines with a name and, beside it, what it means, as wide as the terminal."""
  width = max(shutil.get_terminal_size((100, 24)).columns, INDENT + 30)
  lines = []
  for name, text in rows:
    name = f'  {name}'
    wrapped = textwrap.wrap(text, width - INDENT, break_on_hyphens=False) or ['']
    if len(name) >= INDENT - 1:
      lines.append(name)
    else:
      wrapped[0] = f'{name.ljust(INDENT)}{wrapped[0]}'.rstrip()
    start = int(len(name) < INDENT - 1)
    lines += wrapped[:start] + [' ' * INDENT + line for line in wrapped[start:] if line]
  return lines
