"""The commands and snippets in README.md, CONTRIBUTING.md and docs/ work. `commands.py` says how each is tested."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from mtpret_jax.config.bare_words import quote_words
from mtpret_jax.config.validate import check_config
from mtpret_jax.runtime import own_task
from tests.docs.commands import (
  NOTEBOOKS,
  PROGRAMS,
  SNIPPETS,
  find_program,
  find_treatment,
  list_commands,
  list_snippets,
  read_cells,
)
from tests.support.paths import ROOT
from tfds_builders import phantoms

COMMANDS = sorted({command for _, command in list_commands()})
ARCHIVES = ('nih_chest_xray', 'mura', 'kermany_pneumonia', 'covid19_radiography')


def list_with(mode):
  return [command for command in COMMANDS if (row := find_treatment(command)) and row.mode == mode]


def test_every_command_has_a_row():
  assert [(page, command) for page, command in list_commands() if not find_treatment(command)] == []
  assert set(list_snippets()) == set(SNIPPETS)


def test_every_row_has_a_command():
  assert set(PROGRAMS) - set(map(find_program, COMMANDS)) == set()


def test_every_row_that_is_not_tried_says_why():
  assert [program for program, row in PROGRAMS.items() if row.mode == 'skip' and not row.reason] == []


@pytest.mark.parametrize('command', list_with('config'))
def test_the_config_and_its_overrides_are_valid(command, monkeypatch):
  monkeypatch.chdir(ROOT)
  arguments = quote_words([argument for argument in shlex.split(command)[3:]
                           if not argument.startswith(('--pod=', '--dry_run'))])
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=['main', *arguments])
  values(['main', *arguments])
  # The user's own dataset is not here.
  monkeypatch.setattr(own_task, 'describe_dataset', lambda name, data: {'findings': ['fracture'],
                                                                        'relation': 'independent'})
  config = own_task.resolve(holder.value)
  for stage in config.stages.values() if config.objective == 'recipe' else [config]:
    check_config(stage, devices=1, processes=1)


def test_programs_take_their_flags():
  lines = [json.dumps(shlex.split(command)[2:]) for command in list_with('flags')]
  done = subprocess.run([sys.executable, '-m', 'tests.docs.parse_flags'], input='\n'.join(lines), cwd=ROOT, text=True,
                        capture_output=True)
  assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder as the docs assume it: phantom archives, a download and a dataset of one's own."""
  folder = tmp_path_factory.mktemp('docs')
  for name in ARCHIVES:
    phantoms.write(name, folder / 'archives', images=24, size=64, seed=0)
  (folder / 'downloads').mkdir()
  with zipfile.ZipFile(folder / 'downloads' / 'more.zip', 'w') as archive:
    archive.write(ROOT / 'LICENSE', 'LICENSE')
  write_clinic(folder / 'archives' / 'clinic')
  return folder


def write_clinic(folder):
  (folder / 'images').mkdir(parents=True)
  rows = [('image', 'patient', 'fracture')]
  for number in range(24):
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64), np.uint8)
    cv2.imwrite(str(folder / 'images' / f'{number}.png'), pixels)
    rows.append((f'{number}.png', f'p{number}', number % 2))
  with open(folder / 'labels.csv', 'w', newline='') as file:
    csv.writer(file).writerows(rows)


def run_in(folder, program, text=''):
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''}
  done = subprocess.run([sys.executable, '-c', program], input=text, cwd=folder, env=environment, text=True,
                        capture_output=True)
  assert done.returncode == 0, done.stderr[-3000:]


# One process for all commands: most of their time is imports.
RUN_ALL = '''
import glob, json, runpy, sys
for line in sys.stdin:
  module, *arguments = json.loads(line)
  sys.argv[1:] = [part for argument in arguments for part in (sorted(glob.glob(argument)) or [argument])
                  if '*' not in part]
  print(module, *sys.argv[1:], file=sys.stderr)
  try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  except SystemExit as error:
    if error.code not in (None, 0):
      raise
'''


def test_commands_run(folder):
  order = ('unpack', 'build', 'inspect', 'leakage')
  lines = [shlex.split(command)[2:] for command in list_with('run')]
  lines.sort(key=lambda line: order.index(line[0].split('.')[1]))
  made = {line[index + 1] for line in lines for index, word in enumerate(line) if word == '--data_dir'}
  for data_dir in sorted(made):  # what the pages before this command have prepared
    lines.insert(1, ['tfds_builders.build', *ARCHIVES, 'clinic', '--archives', 'archives', '--data_dir', data_dir,
                     '--size', '256'])
  run_in(folder, RUN_ALL, '\n'.join(map(json.dumps, lines)))


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_what_it_printed(notebook):
  assert all(not cell['outputs'] and cell['execution_count'] is None for cell in read_cells(notebook, 'code'))


@pytest.mark.parametrize('page', SNIPPETS)
def test_snippets_run(page, folder):
  run_in(folder, SNIPPETS[page] + list_snippets()[page])
  shutil.rmtree(folder / 'runs', ignore_errors=True)
