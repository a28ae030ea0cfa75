"""The structure of docs/architecture.md, checked on the files."""

import ast
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PACKAGES = ('configs', 'tfds_builders', 'mtpret_jax')

# Who may import whom, from the bottom up. A module without a row of its own has that of its package. Arrows point down:
# main > cli > stages > {train, stages.table > report} > evaluation > step > {objectives, runtime} > {tasks, augment}
# > models
# Only main, cli, predict and export import cpu.
ALLOWED = {
  'configs': set(),
  'tfds_builders': set(),
  'mtpret_jax.config.errors': {'tfds_builders.common.plain_text'},
  'mtpret_jax.config.rules': {'tfds_builders.common.paths'},
  'mtpret_jax.runtime.backend': {'mtpret_jax.config.errors'},
  'mtpret_jax.cpu': {'mtpret_jax.runtime.backend'},
  'mtpret_jax.models': {'mtpret_jax.runtime.backend', 'mtpret_jax.config.errors'},
  'mtpret_jax.augment': {'mtpret_jax.models.detection.boxes'},
  'mtpret_jax.data': {'tfds_builders.common.build_command', 'tfds_builders.common.label_columns'},
  'mtpret_jax.evaluation.metrics': set(),
  'mtpret_jax.tasks': {'mtpret_jax.models', 'mtpret_jax.data', 'mtpret_jax.evaluation.metrics',
                       'mtpret_jax.config.errors', 'mtpret_jax.config.rules',
                       'tfds_builders.common.label_columns'},
  'mtpret_jax.config': {'mtpret_jax.tasks', 'mtpret_jax.data', 'mtpret_jax.models', 'mtpret_jax.runtime.sharding',
                        'tfds_builders.common.paths', 'tfds_builders.common.suggest'},
  'mtpret_jax.config.help': {'configs', 'mtpret_jax.config'},
  'mtpret_jax.config.comments': set(),
  'mtpret_jax.runtime.sharding': set(),
  'mtpret_jax.runtime': {'mtpret_jax.config', 'mtpret_jax.data', 'mtpret_jax.models', 'mtpret_jax.tasks',
                         'tfds_builders'},
  'mtpret_jax.objectives': {'mtpret_jax.tasks', 'mtpret_jax.augment', 'mtpret_jax.models', 'mtpret_jax.data',
                            'mtpret_jax.runtime.sharding'},
  'mtpret_jax.step': {'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.data.task_schedule'},
  'mtpret_jax.evaluation': {'mtpret_jax.step', 'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.config',
                            'mtpret_jax.tasks', 'mtpret_jax.augment', 'mtpret_jax.models', 'mtpret_jax.data'},
  'mtpret_jax.report': {'mtpret_jax.evaluation', 'mtpret_jax.step', 'mtpret_jax.objectives', 'mtpret_jax.runtime',
                        'mtpret_jax.tasks', 'mtpret_jax.augment', 'mtpret_jax.config.errors',
                        'mtpret_jax.config.own_section', 'mtpret_jax.data', 'configs',
                        'tfds_builders.common.build_command', 'tfds_builders.common.exits',
                        'tfds_builders.build'},
  'mtpret_jax.train': {'mtpret_jax.step', 'mtpret_jax.objectives', 'mtpret_jax.evaluation', 'mtpret_jax.runtime',
                       'mtpret_jax.config', 'mtpret_jax.data', 'mtpret_jax.tasks.fitted'},
  'mtpret_jax.stages.table': {'mtpret_jax.report', 'mtpret_jax.evaluation', 'mtpret_jax.runtime',
                              'mtpret_jax.models', 'mtpret_jax.tasks', 'mtpret_jax.config', 'mtpret_jax.data',
                              'tfds_builders'},
  'mtpret_jax.stages': {'mtpret_jax.train', 'mtpret_jax.report', 'mtpret_jax.evaluation', 'mtpret_jax.objectives',
                        'mtpret_jax.step', 'mtpret_jax.runtime', 'mtpret_jax.tasks', 'mtpret_jax.config',
                        'mtpret_jax.data'},
  'mtpret_jax.cli': {'mtpret_jax.stages', 'mtpret_jax.runtime', 'mtpret_jax.config', 'mtpret_jax.cpu',
                     'tfds_builders.common.exits', 'tfds_builders.common.suggest'},
  'mtpret_jax.main': {'mtpret_jax.cli', 'mtpret_jax.cpu', 'mtpret_jax.runtime.backend', 'tfds_builders.common.exits'},
  # Commands of their own: only `mtpret_jax.load` and each other import them.
  'mtpret_jax.predict': {'mtpret_jax.evaluation', 'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.tasks',
                         'mtpret_jax.augment', 'mtpret_jax.models', 'mtpret_jax.config', 'mtpret_jax.data',
                         'mtpret_jax.cpu', 'mtpret_jax.export', 'tfds_builders'},
  'mtpret_jax.export': {'mtpret_jax.evaluation', 'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.tasks',
                        'mtpret_jax.augment', 'mtpret_jax.models', 'mtpret_jax.config', 'mtpret_jax.data',
                        'mtpret_jax.cpu', 'mtpret_jax.predict', 'mtpret_jax.report.scores', 'tfds_builders'},
  'mtpret_jax.preflight': {'mtpret_jax', 'tfds_builders'},  # and nothing imports it
}
FORBIDDEN = {'mtpret_jax.data': {'jax', 'flax'}, 'mtpret_jax.evaluation.metrics': {'jax', 'flax'},
             'configs': {'jax', 'flax'}, 'tfds_builders': {'jax', 'flax', 'tensorflow'}}
OUTSIDE = ('tests', 'benchmarks')  # no package imports these


def list_imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f'{node.module}.{name.name}' for name in node.names)


def covers(modules, name):
  return any(name == module or name.startswith(f'{module}.') for module in modules)


def list_modules(*packages):
  for package in packages or PACKAGES:
    for path in sorted((ROOT / package).rglob('*.py')):
      yield '.'.join(path.relative_to(ROOT).with_suffix('').parts), path


def find_row(module):
  """The longest name in ALLOWED that covers the module."""
  row = max((row for row in ALLOWED if covers([row], module)), key=len, default=None)
  assert row, f'{module} has no row in ALLOWED'
  return row


def test_imports_only_go_down():
  wrong = []
  for module, path in list_modules():
    if module == 'mtpret_jax.__init__':
      continue
    row = find_row(module)
    for name in list_imports(path):
      allowed = (name in PACKAGES or covers(ALLOWED[row] | {row}, name)
                 or any(covers([name], allowed) for allowed in ALLOWED[row]))  # the package of an allowed module
      if (covers(PACKAGES, name) and not allowed) or covers((*FORBIDDEN.get(row, ()), *OUTSIDE), name):
        wrong.append(f'{module} imports {name}')
  assert not wrong


def is_test(module):
  return covers(['tests'], module) and module.split('.')[-1].startswith('test_')


def test_no_test_imports_another_test_or_a_helper_of_the_benchmarks():
  """What tests share lies in tests/support and in conftest.py; benchmarks may use it too, and tests/reference."""
  wrong = []
  for module, path in list_modules('tests', 'benchmarks'):
    for name in list_imports(path):
      of_benchmarks = covers(['benchmarks'], name) and not covers(['benchmarks', 'tests.benchmarks'], module)
      if of_benchmarks or is_test(name) or is_test(name.rpartition('.')[0]):
        wrong.append(f'{module} imports {name}')
  assert not wrong


def test_the_package_has_few_entries():
  # `predict` and `export` use the rest, as a command of a user would.
  others = {'__init__.py', '__pycache__', 'py.typed', 'predict', 'export'}
  entries = {path.name for path in (ROOT / 'mtpret_jax').iterdir()} - others
  assert len(entries) <= 16, sorted(entries)


def test_progress_bars_are_silent_in_a_log_file():
  loud = []
  for package in (*PACKAGES, 'benchmarks'):
    for path in sorted((ROOT / package).rglob('*.py')):
      for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ('tqdm', 'tqdm.tqdm'):
          value = next((ast.unparse(word.value) for word in call.keywords if word.arg == 'disable'), '')
          if not value.endswith('None') and value != 'not is_shown()':
            loud.append(f'{path.relative_to(ROOT)}:{call.lineno}')
  assert not loud, 'add disable=None, so that tqdm writes only to a terminal'


def test_nothing_is_called_utils():
  vague = ('utils', 'util', 'helpers', 'misc')
  assert not [module for module, _ in list_modules(*PACKAGES, *OUTSIDE) if set(vague) & set(module.split('.'))]


def list_loaded(imported):
  """The modules that a fresh process has loaded after `import imported`."""
  program = f'import sys, {imported}; print(*sys.modules)'
  done = subprocess.run([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
  return set(done.stdout.split())


def test_a_start_waits_for_no_library_that_only_its_end_needs():
  assert not {'matplotlib', 'sklearn'} & list_loaded('mtpret_jax.cli, mtpret_jax.stages')


# The command of predict reports a typo before jax is imported, which takes seconds.
@pytest.mark.parametrize('imported', ['mtpret_jax', 'mtpret_jax.tasks', 'mtpret_jax.data.records',
                                      'mtpret_jax.evaluation.metrics', 'mtpret_jax.predict.__main__'])
def test_what_reading_processes_and_checks_of_arguments_import_does_not_load_jax(imported):
  assert 'jax' not in list_loaded(imported)
