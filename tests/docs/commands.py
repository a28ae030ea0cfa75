"""The fenced commands and snippets of the docs, and how each is tested.

`PROGRAMS` has a row for each program, matched by the start of the command. A command without a row fails the tests.

  run     runs as written, in a folder with phantom archives (`tests/docs/test_commands.py`)
  config  the config is loaded with the command's overrides and checked; other tests run the program
  flags   the program parses its flags and stops; a real run takes minutes
  skip    does not run here, for the reason given
"""

import json
import re
from typing import NamedTuple

from tests.support.paths import ROOT

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
NOTEBOOKS = sorted((ROOT / 'docs').glob('*.ipynb'))
BLOCK = re.compile(r'^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```', re.MULTILINE | re.DOTALL)


class Treatment(NamedTuple):
  mode: str
  reason: str = ''


PROGRAMS = {
  'python -m mtpret_jax.main': Treatment('config'),
  'python -m mtpret_jax.preflight': Treatment('config', 'tests/preflight/ compiles for devices that are not here'),
  'python -m tfds_builders.build nih_chest_xray vinbigdata_cxr': Treatment('skip', 'needs Apache Beam'),
  'python -m mtpret_jax.report': Treatment('flags', 'tests/report/ makes pages of small runs'),
  'python -m mtpret_jax.predict': Treatment('flags', 'tests/predict/ predicts with small runs'),
  'python -m mtpret_jax.export': Treatment('flags', 'tests/export/ exports drawn models'),
  'python -m tfds_builders': Treatment('run'),
  'python -m benchmarks': Treatment('flags'),
  'python -m pytest': Treatment('skip', 'this is the test suite'),
  'python -m tests.reference': Treatment('skip', 'needs PyTorch'),
  'python3 -m venv': Treatment('skip', 'sets up an environment'),
  '. .venv/bin/activate': Treatment('skip', 'sets up an environment'),
  'pip install': Treatment('skip', 'downloads'),
  'apt install': Treatment('skip', 'downloads'),
  'tfds build': Treatment('skip', 'needs TensorFlow; tests/tfds_builders/ builds with the same classes'),
  'pre-commit': Treatment('skip', 'needs a git checkout'),
  'cp': Treatment('skip', 'copies files of the repository'),
  'mv': Treatment('skip', 'copies files of the repository'),
  'python -m tfds_builders.phantoms --names my_chest': Treatment('skip', 'the dataset is an example'),
  'python -m tfds_builders.build my_chest': Treatment('skip', 'the dataset is an example'),
  'python -m tfds_builders.inspect my_chest': Treatment('skip', 'the dataset is an example'),
  'ruff check': Treatment('skip', 'CI runs it'),
  'mypy': Treatment('skip', 'CI runs it'),
}
# A model of one block, in place of the run that the pages train first.
SMALL_RUN = '''
import pathlib

import matplotlib

matplotlib.use('Agg')

from mtpret_jax import cpu
from mtpret_jax.export import own_weights
from mtpret_jax.models import resnet
from tests.support import drawn_models

cpu.install()
resnet.LAYERS['resnet18'] = (resnet.BasicBlock, (1, 0, 0, 0))
folder = pathlib.Path('runs/finetune/pneumonia')
folder.mkdir(parents=True)
own_weights.write(drawn_models.make_trained('classification'), [drawn_models.TASK], folder)
'''
# page: what runs before its snippets
SNIPPETS = {'docs/python-api.md': SMALL_RUN, 'docs/predict.ipynb': SMALL_RUN, 'docs/own-data.md': ''}


def find_treatment(command):
  """The treatment in the row of a command, or None."""
  return PROGRAMS.get(find_program(command))


def find_program(command):
  """The longest program that the command starts with, or None."""
  rows = [program for program in PROGRAMS if command == program or command.startswith((f'{program} ', f'{program}.'))]
  return max(rows, key=len, default=None)


def list_commands():
  """[(page, command)] of all ```sh blocks: one command each, without comments, environment variables and taskset."""
  return [(page.name, command) for page in PAGES for block in BLOCK.finditer(page.read_text())
          if block['language'] == 'sh' for command in split_commands(block['text'])]


def split_commands(text):
  for line in text.replace('\\\n', ' ').splitlines():
    for command in re.sub(r'(^|\s)# .*', '', line).split('&&'):
      command = ' '.join(command.split()).replace('.venv/bin/python ', 'python ').replace('.venv/bin/pip ', 'pip ')
      command = re.sub(r'^([A-Z_]+=\S+ )*(taskset -c \S+ )?', '', command)
      if command:
        yield command


def list_snippets():
  """{page: its ```python blocks, joined}, and {notebook: its cells of code, joined}."""
  found = {}
  for page in PAGES:
    blocks = [block['text'] for block in BLOCK.finditer(page.read_text()) if block['language'] == 'python']
    if blocks:
      found[str(page.relative_to(ROOT))] = '\n'.join(blocks)
  for page in NOTEBOOKS:
    found[str(page.relative_to(ROOT))] = '\n'.join(''.join(cell['source']) for cell in read_cells(page, 'code'))
  return found


def read_cells(notebook, kind):
  return [cell for cell in json.loads(notebook.read_text())['cells'] if cell['cell_type'] == kind]
