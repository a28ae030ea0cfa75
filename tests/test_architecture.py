"""The structure that the README promises, read off the files."""

import ast
import subprocess
import sys

from tests.support.paths import ROOT

# Who may import whom, from the bottom up; a row without an entry of its own has that of its package. Arrows point down:
# main > cli > stages > train > {step, evaluation, report} > {objectives, runtime} > {tasks, augment} > models > cpu
ALLOWED = {
  'configs': set(),
  'tfds_builders': set(),
  'mtpret_jax.config.errors': set(),
  'mtpret_jax.config.rules': set(),
  'mtpret_jax.cpu': {'mtpret_jax.config'},
  'mtpret_jax.models': {'mtpret_jax.cpu', 'mtpret_jax.config.errors'},
  'mtpret_jax.augment': {'mtpret_jax.models.detection.boxes'},
  'mtpret_jax.data': {'mtpret_jax.config.errors'},
  'mtpret_jax.evaluation.metrics': set(),
  'mtpret_jax.tasks': {'mtpret_jax.models', 'mtpret_jax.data', 'mtpret_jax.evaluation.metrics',
                       'mtpret_jax.config.errors', 'mtpret_jax.config.rules'},
  'mtpret_jax.config': {'mtpret_jax.tasks', 'mtpret_jax.data', 'mtpret_jax.models', 'mtpret_jax.runtime.sharding'},
  'mtpret_jax.runtime.sharding': set(),
  'mtpret_jax.runtime': {'mtpret_jax.config', 'mtpret_jax.data', 'mtpret_jax.models', 'mtpret_jax.tasks',
                         'mtpret_jax.cpu', 'tfds_builders'},
  'mtpret_jax.objectives': {'mtpret_jax.tasks', 'mtpret_jax.augment', 'mtpret_jax.models', 'mtpret_jax.data',
                            'mtpret_jax.runtime.sharding'},
  'mtpret_jax.step': {'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.cpu'},
  'mtpret_jax.evaluation': {'mtpret_jax.step', 'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.config',
                            'mtpret_jax.tasks', 'mtpret_jax.augment', 'mtpret_jax.models', 'mtpret_jax.data'},
  'mtpret_jax.report': {'mtpret_jax.evaluation', 'mtpret_jax.objectives', 'mtpret_jax.runtime', 'mtpret_jax.augment'},
  'mtpret_jax.train': {'mtpret_jax.step', 'mtpret_jax.evaluation', 'mtpret_jax.runtime', 'mtpret_jax.config',
                       'mtpret_jax.data'},
  'mtpret_jax.stages': {'mtpret_jax.train', 'mtpret_jax.report', 'mtpret_jax.evaluation', 'mtpret_jax.objectives',
                        'mtpret_jax.step', 'mtpret_jax.runtime', 'mtpret_jax.tasks', 'mtpret_jax.config',
                        'mtpret_jax.data'},
  'mtpret_jax.cli': {'mtpret_jax.stages', 'mtpret_jax.runtime', 'mtpret_jax.config', 'mtpret_jax.cpu',
                     'mtpret_jax.preflight'},
  'mtpret_jax.main': {'mtpret_jax.cli', 'mtpret_jax.cpu'},
  'mtpret_jax.preflight': {'mtpret_jax', 'tfds_builders'},  # and nothing imports it
}
FORBIDDEN = {'mtpret_jax.data': {'jax', 'flax'}, 'mtpret_jax.evaluation.metrics': {'jax', 'flax'},
             'configs': {'jax', 'flax'}, 'tfds_builders': {'jax', 'flax', 'tensorflow'}}


def list_imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f'{node.module}.{name.name}' for name in node.names)


def covers(modules, name):
  return any(name == module or name.startswith(f'{module}.') for module in modules)


def list_modules():
  for package in ('configs', 'tfds_builders', 'mtpret_jax'):
    for path in sorted((ROOT / package).rglob('*.py')):
      yield '.'.join(path.relative_to(ROOT).with_suffix('').parts), path


def test_imports_only_go_down():
  wrong = []
  for module, path in list_modules():
    if module == 'mtpret_jax.__init__':
      continue
    rule = max((rule for rule in ALLOWED if covers([rule], module)), key=len, default=None)
    assert rule, f'{module} has no line in ALLOWED'
    for name in list_imports(path):
      inside = covers(('configs', 'tfds_builders', 'mtpret_jax'), name)
      known = (name in ('mtpret_jax', 'tfds_builders', 'configs') or covers(ALLOWED[rule] | {rule}, name)
               or any(covers([name], module) for module in ALLOWED[rule]))  # the package of an allowed module
      if (inside and not known) or covers(FORBIDDEN.get(rule, ()), name):
        wrong.append(f'{module} imports {name}')
  assert not wrong


def test_nothing_is_called_utils():
  assert not [module for module, _ in list_modules() if module.split('.')[-1] in ('utils', 'helpers', 'misc')]


def test_a_start_waits_for_no_library_that_only_its_end_needs():
  program = 'import sys, mtpret_jax.cli; print(*sys.modules)'
  loaded = subprocess.run([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
  assert not {'matplotlib', 'sklearn'} & set(loaded.stdout.split())
