"""Draws commands of `mtpret_jax.main`: every config file, with unexpected values, fields and flags."""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.fuzz import values
from tests.support.paths import ROOT

TASKS = ('pneumonia', 'abnormality', 'lung', 'tuberculosis', 'bone_age', 'jaw', 'knee', 'covid', 'findings', 'fracture')
FILES = (
  *(f'pretrain.py{variant}' for variant in ('', '', '', '', ':smoke', ':real', ':muscle9', ':mtpret11')),
  *(f'continual.py{variant}' for variant in ('', '', ':smoke', ':muscle4', ':mtpret7')),
  *(f'finetune.py:{size}{task}' for size in ('', 'smoke,', 'real,') for task in TASKS[:5]),
  *(f'finetune.py:{task}' for task in TASKS[5:]), 'mtpret.py', 'mtpret.py:smoke', 'evaluate.py', 'evaluate.py')
ODD_VARIANTS = (
  'nope', '', ',', 'smoke,lung,x', 'lung,smoke', 'real,', ' smoke', 'é', 'a\nb', '\0', 'x' * 5000, 'smoke:a')
IMPORT = b'from ml_collections import ConfigDict\n'
ODD_FILES = {  # name: what is in it
  'empty.py': b'', 'syntax.py': b'def get_config(:', 'none.py': b'def get_config():\n  return None',
  'dict.py': b'def get_config():\n  return {"objective": "moco"}', 'raises.py': b'1 / 0',
  'key.py': b'def get_config():\n  return {}["a"]', 'zeros.py': bytes(99), 'imports.py': b'import no_such_module',
  'few.py': IMPORT + b'def get_config():\n  return ConfigDict(dict(objective="moco", moco=5))',
  'odd.py': IMPORT + b'def get_config():\n  return ConfigDict(dict(batch=3))', 'bytes.py': b'\xff\xfe\x00',
  'tasks.py': IMPORT + b'def get_config():\n  return ConfigDict(dict(objective="multitask", tasks=dict(a=1)))',
  'stages.py': IMPORT + b'def get_config():\n  return ConfigDict(dict(objective="recipe", workdir="w", stages=3))',
  'text.txt': b'config'}
NO_FILES = ('folder', 'missing.py', '', '/dev/null', 'locked/x.py', 'a\0b.py', 'x' * 300, 'a\nb', '\udcff.py')
WHOLE = (*range(-2, 10), 12, 16, 24, 31, 32, 48, 64, 96, 100, 128, 256, 500, 512, 1000, 1024, 4096, 65_536, 10**6,
         10**9, 2**31 - 1, 2**31, 2**63, 10**30)
ODD_WHOLE = (
  '1e3', '1.5', 'nan', '', ' ', 'True', '0x10', '1_000', '٣', '²', '9' * 5000, 'None', '(1,)', '-0')
REAL = ('0.0', '-0.0', '1.0', '0.5', '-0.5', '1.0000001', '2', '10.0', '1e-9', '1e-320', '1e9', '1e308', '1e999', 'nan',
        'inf', '-inf', '-1', '0,5', '', 'x', 'True', '1e', '9' * 400)
PATHS = ('', ' ', '.', 'file', 'file/below', 'folder', 'folder/new', 'locked', 'locked/new', 'loop', 'gone', 'ä/🩻',
         '~', '~/x', '-rf', '%s%n', '$HOME', 'x' * 300, 'a/' * 3000, 'a\nb', 'a\0b', '\udcff', '/dev/null',
         '/dev/zero', '/proc/1', 'gs://bucket/run', 's3://bucket', 'https://example.org/x.safetensors', 'file:///x',
         'a b', "a'b", 'C:\\x', 'pipe')
TEXTS = (
  *values.WORDS[:-1], 'x' * 5000, '\udcff', 'adamw', 'sgd', 'float16', 'bfloat16', 'resnet50', 'resnet18', 'all',
  'none', 'balanced', '1,1,1,1,1', '1,nan,1,1,1', '1,inf,1,1,1', '-1,1,1,1,1', '1e-300,1,1,1,1', '1,2', '0', 'joint',
  'sequential', 'cyclic', 'start', 'previous_visit', 'shared', 'head', 'skip', 'original', '512', 'paper',
  'official', 'regression', 'segmentation', 'detection', 'classification', 'mura', 'tbx11k', 'lung_masks',
  'rsna_bone_age', 'scratch', 'imagenet', 'md_moco', 'moco', 'multitask', 'recipe', 'evaluate', 'queue', 'batch',
  'both', 'image', 'patient')
TUPLES = (
  '()', '(1,)', '(0.2, 1.0)', '(1.0, 0.2)', '(0, 0)', '(-1, 1)', '(0.0, 1e999)', "('a', 'b')", '(1, 2, 3)',
  '((8,), (16,), (32,), (64,), (128,))', '((1,), (2,))', '(True, False)', '(None, None)', '[1, 2]', '1', '(',
  '((((((1,))))))', f'(1{", 1" * 500})', '(0.5, 0.5)', '(256, 128)', '(128, 256)', '(10**9, 10**9)',
  "('mura',)", "('mura', 'mura')", "('murra',)", "('../x',)", "('a\\nb',)", '(12, 24, 36)', '(0, 1)', '(1e-9, 1)',
  '("nih_chest_xray", "rsna_bone_age")', '(2, 1000000)', "''", '{}', '__import__("os").getpid()', '(' * 300)
OTHER_FLAGS = (
  '--nosuch=1', 'positional', '--processes=0', '--process=-1', '--stall_timeout=x', '--distributed=maybe', '--config.',
  '--config..batch=1', '--config.batch.x=1', '--config.__class__=x', '--config.update=1', '--config.items=1',
  '--config.lock=1', '--config=', '--', '-x', '--flagfile=nothing', '--config.data=1', '--config.data={}',
  '--config.data={"a": 1}', '--config.moco', '--noconfig.batch', '--config.batch', '--config.tasks.none.batch=1',
  "--config.tasks['lung'].batch=3", '--config.data.datasets[0]=mura', '--config.objective=evaluate',
  '--config.objective=moco', '--config.objective=multitask', '--config.objective=recipe', '--config._fields=1')
PLACES = re.compile(r'dir$|archives|init_from|^run$|state$|\.run')
JOINED = re.compile(r'batch|group|queue|size|steps|init|dataset|kind|sides')  # fields that must fit each other
ONE, SEVERAL = 'config: one value', 'config: values'


def make_surroundings(case: pathlib.Path) -> pathlib.Path:
  """The current folder of the command, deep enough that `../../..` is still inside the folder of the case."""
  home = case / 'a/b/c'
  (home / 'folder').mkdir(parents=True)
  (home / 'file').write_text('x')
  (home / 'locked').mkdir(mode=0o500)
  (home / 'loop').symlink_to('loop')
  (home / 'gone').symlink_to('nothing')
  os.mkfifo(home / 'pipe')
  for name, data in ODD_FILES.items():
    (home / name).write_bytes(data)
  return home


def draw(rng: np.random.Generator, read_fields: Callable[[str], dict[str, Any]]) -> tuple[str, list[str]]:
  """(kind, arguments of the command). read_fields(file) -> {dotted name: default} of a config file."""
  way = rng.random()
  if way < 0.03:
    return 'config: odd file', [f'--config={values.pick(rng, (*ODD_FILES, *NO_FILES))}']
  if way < 0.06:
    file = values.pick(rng, FILES).partition(':')[0]
    return 'config: odd variant', [f'--config={ROOT}/configs/{file}:{values.pick(rng, ODD_VARIANTS)}']
  file = f'--config={ROOT}/configs/{values.pick(rng, FILES)}'
  if way < 0.11:
    return 'config: odd flag', [file, values.pick(rng, OTHER_FLAGS)][::1 if way < 0.1 else -1]
  fields = read_fields(file)
  if way < 0.16:
    return 'config: misspelt field', [file, misspell(rng, *values.pick(rng, list(fields.items())))]
  count = 1 if rng.random() < 0.6 else rng.integers(2, 4)
  names = dict.fromkeys(pick_field(rng, list(fields)) for _ in range(count))
  return ONE if len(names) == 1 else SEVERAL, [
    file, *(f'--config.{name}={draw_value(rng, name, fields[name])}' for name in names)]


def pick_field(rng: np.random.Generator, names: Sequence[str]) -> str:
  joined = [name for name in names if JOINED.search(name)]
  return values.pick(rng, joined if joined and rng.random() < 0.4 else names)


def draw_value(rng: np.random.Generator, name: str, default: Any) -> Any:
  way = rng.random()
  if isinstance(default, str) and PLACES.search(name):
    return values.pick(rng, PATHS)
  pools = {bool: ('True', 'False', '1', 'maybe', ''), int: WHOLE if way < 0.85 else ODD_WHOLE, float: REAL, str: TEXTS,
           tuple: TUPLES, dict: ('{}', '1', '{"a": 1}', 'None', "{'width': 5}")}
  if isinstance(default, tuple) and default and way < 0.3:
    return str(default)[:-1].rstrip(',') + f', {values.pick(rng, WHOLE)})'
  if type(default) is int and way < 0.3:
    return int(default * values.pick(rng, (0.5, 2, 3, 4, 1.5)))
  return values.pick(rng, pools[type(default)])


def misspell(rng: np.random.Generator, name: str, default: Any) -> str:
  place = int(rng.integers(len(name)))
  wrong = values.pick(rng, (name[:place] + name[place + 1:], name[:place] + 'x' + name[place:], name.upper(),
                            name.replace('_', '-'), f'{name}.x', name.rpartition('.')[2], f'data.{name}', name + 's'))
  return f'--config.{wrong}={default}'
