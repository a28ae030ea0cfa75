"""Writes docs/configs.md from the comments and values of configs/.

    python -m docs.make_configs
"""

import inspect
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import common, continual, evaluate, finetune, mtpret, pretrain, table, tasks
from mtpret_jax.config.comments import read_comments

PAGE = pathlib.Path(__file__).with_name('configs.md')
LISTS = ('embedded', 'muscle9', 'mtpret11')  # of datasets, in configs/common.py

INTRO = '''# Configs

<!-- Written by `python -m docs.make_configs` from the comments in configs/. Change those, then run it. -->

A config file is Python and returns a nested dict of values. Choose one, with a variant after a colon, and set any field
on the command line:

```sh
python -m mtpret_jax.main --config=configs/pretrain.py:smoke --config.batch=64 --config.moco.temperature=0.1 \\
  --config.data.datasets=mura,rsna_bone_age
```

All fields are checked before anything slow starts. If a value is invalid, the message names the rule and a valid value.
For a config of your own, copy a file, change its values and pass its path to `--config`.

The meanings below also say where a value comes from, in the four classes of [method.md](method.md):

* *Paper*: stated in MUSCLE's abstract or documentation (the table says *MUSCLE*), or the value of a reference
  implementation (the table says *MoCo v2* or *torchvision*).
* *Inferred*: follows from published tables or other evidence.
* *Recalled*: remembered from a paper but not verified.
* *Assumed*: our choice.

Where nothing is said, the value is our choice as well, or the field only concerns running the code.

*Phantoms* are simulated radiographs. The variants without a name in the table use them and need no download. A *visit*
is a number of steps on one task, and a *round* visits every task once.

The variants for real archives (`real`, `real,TASK`, `own`, `muscle4`, `mtpret7`) have the field `preset`: `small`
(ResNet-18 at 64 or 96 px), `base` (ResNet-18 at 128 or 256 px) or `paper` (ResNet-50 at 224 or 512 px). It chooses the
trunk, image sizes, heads, batches, lengths and optimiser together. A field that you set yourself keeps its value.

## Files and variants
'''

TASKS_INTRO = '''
### Tasks

`configs/finetune.py:TASK` takes one of these. The first four are MUSCLE's, which `configs/continual.py` and its variant
`muscle4` visit. The others are assumed; `mtpret7` visits all that are not external. An *external* task refuses a trunk
that was pretrained on its images.
'''

DATASETS_INTRO = '''
### Lists of datasets

In stage 1, `data.datasets` accepts the name of any [dataset](datasets.md), your own included. `configs/common.py` has
these lists. `embedded` is the default, as phantoms. `muscle9` is MUSCLE's; the last two of `mtpret11` are assumed.
'''

FIELDS_INTRO = '''
## Fields

The second column is the default. The third is the value at full scale, where it differs. *Full scale* means ResNet-50
with MoCo v2's settings in stage 1, and our own values where the papers' are unknown.
'''


class Section(NamedTuple):
  """A table of fields: those below `prefix` that `function` lists, at the default and at full scale."""

  title: str
  words: str
  function: Callable
  prefix: str
  small: ConfigDict
  full: ConfigDict | None
  full_name: str = ''


def list_sections() -> list[Section]:
  pretrain_pair = pretrain.get_config(), pretrain.get_config('mtpret11'), ':mtpret11'
  continual_pair = continual.get_config(), continual.get_config('mtpret7'), ':mtpret7'
  tasks_of = {task: (finetune.get_config(task), finetune.get_config(f'real,{task}'), f':real,{task}')
              for task in ('pneumonia', 'lung', 'tuberculosis')}
  return [
    Section('Stage 1: pretraining', '`configs/pretrain.py`', pretrain.base, '', *pretrain_pair),
    Section('Stage 1: augmentation', 'Each image gives two views.', common.moco_v2_augment, 'augment.',
            *pretrain_pair),
    Section('Stages 2 and 3', '`configs/continual.py` and `configs/finetune.py`, which sets `order=\'cyclic\'`, '
            '`rounds=1`, `memory.anchor=\'none\'`, `optimiser.warmup=0.02`, `resamples=1000` and one validation per 50 '
            'steps of the visit (`validations=6`, or 12 for `abnormality` and `bone_age`). At full scale it sets '
            '`validations=50` and `patience=20`, whatever the number of steps.',
            continual.base, '',
            *continual_pair),
    Section('Stages 2 and 3: a task', 'The values are those of `pneumonia` in stage 3. Stage 2 has `steps=40`, and at '
            'full scale `epochs=1` and `min_steps=20`.', tasks.make_task_config, 'tasks.pneumonia.',
            *tasks_of['pneumonia']),
    Section('Stages 2 and 3: augmentation of a task', 'The values are those of `pneumonia`.', common.labelled_augment,
            'tasks.pneumonia.augment.', *tasks_of['pneumonia']),
    Section('The segmentation head', 'DeepLab-V3. The values are those of `lung`.', common.deeplab_v3,
            'tasks.lung.head.', *tasks_of['lung']),
    Section('The detection head', 'Faster R-CNN on a feature pyramid. The values are those of `tuberculosis`.',
            common.faster_rcnn, 'tasks.tuberculosis.head.', *tasks_of['tuberculosis']),
    Section('Stages 2 and 3: a task on a dataset of your own', 'Below `task` with the variant `own`, beside the fields '
            'of any other task ([own-data.md](own-data.md#6-fine-tune-on-it)). The sizes are those of the preset '
            '`small`; [own-data.md](own-data.md#6-fine-tune-on-it) has the lengths of each preset. A run has `epochs`, '
            'but at least `min_steps` and at most `max_steps` steps; with `steps=40` it has exactly 40.',
            tasks.own_fields, 'task.', ConfigDict({'task': tasks.own_fields(**tasks.small_numbers())}),
            None),
    Section('Phantoms', 'Used while `data.archives` is empty.', common.phantoms, 'data.phantoms.',
            pretrain.get_config(), None),
    Section('Scoring again', '`configs/evaluate.py`', evaluate.get_config, '', evaluate.get_config(), None),
    Section('The whole recipe', '`configs/mtpret.py`. The fields below hold for all stages. Set any other field for '
            'each stage by itself: `--config.stages.STAGE.FIELD`, such as `--config.stages.pretrain.steps=600`. STAGE '
            'is `pretrain`, `continual` or the name of a task.', mtpret.make_recipe, '', mtpret.get_config(),
            mtpret.get_config('muscle'), ':muscle'),
    Section("The papers' table", '`configs/table.py`. The fields of stages 1 to 3 are below `stages`: '
            '`--config.stages.pretrain.FIELD`, `--config.stages.continual.FIELD` and '
            '`--config.stages.finetune.TASK.FIELD`. The table sets their seeds, shares of the labels, folders and '
            'initial weights.', table.make_fields, '', table.get_config(), table.get_config('muscle'), ':muscle')]


def get_value(config: ConfigDict, field: str) -> Any:
  for part in field.split('.'):
    config = config[part]
  return config


def show(value: Any) -> str:
  """A value as it is typed, or the name of a list of datasets."""
  if isinstance(value, ConfigDict):
    return ''
  for name in LISTS:
    if value == getattr(common, name):
      return f'`{name}`'
  return f'`{shorten(value)!r}`'


def shorten(value: Any) -> Any:
  if isinstance(value, float):
    return float(f'{value:.3g}')
  return tuple(map(shorten, value)) if isinstance(value, tuple) else value


def make_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
  header = list(header)
  cells = [[cell.replace('|', '\\|') for cell in row] for row in rows]
  return ['', *(f'| {" | ".join(row)} |'.replace('|  |', '| |') for row in (header, ['---'] * len(header), *cells))]


def make_section(section: Section) -> list[str]:
  rows = []
  for field, meaning in read_comments(section.function).items():
    path = f'{section.prefix}{field}'
    small = show(get_value(section.small, path))
    full = show(get_value(section.full, path)) if section.full else small
    shown = path.replace(section.prefix.split('.')[1], 'TASK') if path.startswith('tasks.') else path
    rows.append([f'`{shown}`', small, *([full if full != small else ''] if section.full else []), meaning])
  header = ['field', 'default', *([f'`{section.full_name}`'] if section.full else []), 'meaning']
  return ['', f'### {section.title}', '', section.words, *make_table(header, rows)]


def list_variants() -> Iterator[tuple[str, Callable]]:
  """(what `--config` takes, the function whose docstring describes it)."""
  files: tuple[tuple[str, Mapping[str, Callable]], ...] = (
    ('pretrain', pretrain.VARIANTS), ('continual', continual.VARIANTS), ('mtpret', mtpret.VARIANTS),
    ('table', table.VARIANTS))
  for name, variants in files:
    for variant, function in variants.items():
      yield f'configs/{name}.py' + (f':{variant}' if variant != 'embedded' else ''), function
  for size, function in finetune.SIZES.items():
    yield f'configs/finetune.py:{size},TASK', function


def make_variants() -> list[str]:
  rows = [[f'`{name}`', first_line(function)] for name, function in list_variants()]
  rows.insert(-2, ['`configs/continual.py:TASK,TASK`', 'The listed tasks, such as `pneumonia,lung`, on phantoms. '
                   '`smoke,TASK,TASK` is short, `real,TASK,TASK` on real archives like `muscle4`.'])
  rows.insert(-2, ['`configs/finetune.py:TASK`', 'One task on phantoms, ResNet-18 at 64 or 96 px, for two cores.'])
  rows.append(['`configs/finetune.py:own`', f'{first_line(finetune.own)} Also `smoke,own`, and in stage 2 '
               '`configs/continual.py:real,TASK,own`.'])
  rows.append(['`configs/evaluate.py`', first_line(evaluate)])
  return make_table(['`--config=`', 'what it runs'], rows)


def first_line(documented: Any) -> str:
  return ' '.join((inspect.getdoc(documented) or '').split('\n\n')[0].split())


def make_tasks() -> list[str]:
  rows = []
  for name in tasks.TASKS:
    small, full = (finetune.get_config(f'{size}{name}').tasks[name] for size in ('', 'real,'))
    rows.append([f'`{name}`', small.kind, f'`{small.dataset}`', f'{small.augment.size}', f'{full.augment.size}',
                 'yes' if small.external else ''])
  return make_table(['task', 'kind', 'dataset', 'px', 'px, `real`', 'external'], rows)


def make_datasets() -> list[str]:
  return make_table(['list', 'datasets'], [
    [f'`{name}`', ', '.join(f'`{dataset}`' for dataset in getattr(common, name))] for name in LISTS])


def make_page() -> str:
  lines = [INTRO.rstrip(), *make_variants(), TASKS_INTRO.rstrip(), *make_tasks(), DATASETS_INTRO.rstrip(),
           *make_datasets(), FIELDS_INTRO.rstrip()]
  for section in list_sections():
    lines += make_section(section)
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  PAGE.write_text(make_page())
