"""The structure that the README promises, read off the files."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]

# who may import whom inside the project; arrows go down only
ALLOWED = {
  'configs': {'configs'},
  'tfds_builders': {'tfds_builders'},
  'mtpret_jax.data': {'mtpret_jax.data', 'mtpret_jax.shuffle'},
  'mtpret_jax.models': {'mtpret_jax.models', 'mtpret_jax.boxes'},
  'mtpret_jax.objectives': {'mtpret_jax.objectives', 'mtpret_jax.models', 'mtpret_jax.augment',
                            'mtpret_jax.augment_labelled', 'mtpret_jax.data.order', 'mtpret_jax.sharding',
                            'mtpret_jax.shuffle'},
  'mtpret_jax.augment': set(),
  'mtpret_jax.augment_labelled': {'mtpret_jax.augment', 'mtpret_jax.boxes'},
  'mtpret_jax.boxes': set(),
  'mtpret_jax.shuffle': set(),
  'mtpret_jax.state': set(),
  'mtpret_jax.chips': set(),
  'mtpret_jax.hlo': set(),
  'mtpret_jax.sharding': set(),
  'mtpret_jax.compiled': set(),
  'mtpret_jax.optim': set(),
  'mtpret_jax.metrics': set(),
  'mtpret_jax.tasks': {'mtpret_jax.tasks', 'mtpret_jax.models', 'mtpret_jax.boxes', 'mtpret_jax.metrics'},
  'mtpret_jax.files': set(),
  'mtpret_jax.memory': set(),
  'mtpret_jax.mends': set(),
  'mtpret_jax.manifest': {'mtpret_jax.files'},
  'mtpret_jax.stopping': set(),
  'mtpret_jax.lock': {'mtpret_jax.check'},
  'mtpret_jax.guard': set(),
  'mtpret_jax.bad_steps': set(),
  'mtpret_jax.progress': {'mtpret_jax.data.order', 'mtpret_jax.files'},
  'mtpret_jax.fields': {'mtpret_jax.data', 'mtpret_jax.models', 'mtpret_jax.sharding'},
  'mtpret_jax.check': {'mtpret_jax.fields'},
  'mtpret_jax.cores': {'mtpret_jax.check'},
  'mtpret_jax.room': {'mtpret_jax.check'},
  'mtpret_jax.past': {'mtpret_jax.check', 'mtpret_jax.data', 'mtpret_jax.fields'},
  'mtpret_jax.weights': {'mtpret_jax.fields', 'mtpret_jax.models'},
  'mtpret_jax.stall': set(),
  'mtpret_jax.hosts': {'mtpret_jax.check', 'mtpret_jax.stall'},
  'mtpret_jax.checkpoint': {'mtpret_jax.check', 'mtpret_jax.hosts', 'mtpret_jax.manifest', 'mtpret_jax.memory',
                            'mtpret_jax.mends'},
  'mtpret_jax.step': {'mtpret_jax.cores', 'mtpret_jax.state', 'mtpret_jax.sharding'},
  'mtpret_jax.prepare': {'mtpret_jax.check', 'mtpret_jax.data', 'mtpret_jax.hosts', 'tfds_builders'},
  'mtpret_jax.probe': {'mtpret_jax.augment', 'mtpret_jax.data', 'mtpret_jax.metrics', 'mtpret_jax.models'},
  'mtpret_jax.start': {'mtpret_jax.check', 'mtpret_jax.checkpoint', 'mtpret_jax.fields', 'mtpret_jax.past',
                       'mtpret_jax.weights'},
  'mtpret_jax.runs': {'mtpret_jax.check', 'mtpret_jax.data', 'mtpret_jax.objectives', 'mtpret_jax.optim',
                      'mtpret_jax.tasks'},
  'mtpret_jax.pods': {'mtpret_jax.check', 'mtpret_jax.chips'},
  'mtpret_jax.rehearsal': {'mtpret_jax.check', 'mtpret_jax.data', 'mtpret_jax.guard', 'mtpret_jax.objectives',
                           'mtpret_jax.optim', 'mtpret_jax.runs', 'mtpret_jax.sharding', 'mtpret_jax.step',
                           'mtpret_jax.tasks', 'tfds_builders'},
  'mtpret_jax.preflight': {'mtpret_jax.check', 'mtpret_jax.hlo', 'mtpret_jax.pods', 'mtpret_jax.rehearsal',
                           'mtpret_jax.sharding'},
  'mtpret_jax.evaluate': {'mtpret_jax.data', 'mtpret_jax.metrics', 'mtpret_jax.objectives', 'mtpret_jax.runs',
                          'mtpret_jax.sharding', 'mtpret_jax.stall'},
  'mtpret_jax.watch': {'mtpret_jax.checkpoint', 'mtpret_jax.evaluate', 'mtpret_jax.files', 'mtpret_jax.hosts'},
  'mtpret_jax.scores': {'mtpret_jax'},
  'mtpret_jax.train': {'mtpret_jax'},
  'mtpret_jax.report': {'mtpret_jax'},
  'mtpret_jax.command': {'mtpret_jax', 'tfds_builders'},
  'mtpret_jax.main': {'mtpret_jax.command', 'mtpret_jax.memory'},
}
FORBIDDEN = {'mtpret_jax.data': {'jax', 'flax'}, 'mtpret_jax.metrics': {'jax', 'flax'},
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
    rule = next((rule for rule in ALLOWED if covers([rule], module)), None)
    if path.name == '__init__.py' and module.count('.') == 1:
      continue
    assert rule, f'{module} has no line in ALLOWED'
    for name in list_imports(path):
      inside = covers(('configs', 'tfds_builders', 'mtpret_jax'), name)
      known = name in ('mtpret_jax', 'tfds_builders', 'configs') or covers(ALLOWED[rule] | {rule}, name)
      if (inside and not known) or covers(FORBIDDEN.get(rule, ()), name):
        wrong.append(f'{module} imports {name}')
  assert not wrong


def test_nothing_is_called_utils():
  assert not [module for module, _ in list_modules() if module.split('.')[-1] in ('utils', 'helpers', 'misc')]


def test_a_start_waits_for_no_library_that_only_its_end_needs():
  program = 'import sys, mtpret_jax.command; print(*sys.modules)'
  loaded = subprocess.run([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
  assert not {'matplotlib', 'sklearn'} & set(loaded.stdout.split())
