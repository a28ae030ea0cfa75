"""A mistake in a command is answered in one line with exit code 2, and at once: nothing slow is imported for it."""

import logging
import os
import signal
import subprocess
import sys
import time

import jax
import pytest
from absl.testing import flagsaver

from configs import finetune
from mtpret_jax import cli
from mtpret_jax.config.errors import ConfigError
from tests.support.paths import ROOT

PRETRAIN, CONTINUAL = '--config=configs/pretrain.py:mtpret11', '--config=configs/continual.py'


def run_main(*flags):
  """(exit code, lines on stderr) of the program."""
  command = [sys.executable, '-m', 'mtpret_jax.main', *flags]
  done = subprocess.run(command, cwd=ROOT, env={**os.environ, 'XLA_FLAGS': ''}, capture_output=True, text=True)
  assert 'Traceback' not in done.stderr
  return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize('flags, message', [
  ([PRETRAIN, '--config.moco.queu=1'],
   'unknown config field in --config.moco.queu=1: did you mean --config.moco.queue?'),
  (['--config', 'configs/pretrain.py:smoke', '--config.learning_rate=1'],
   'unknown config field in --config.learning_rate=1: did you mean --config.optimiser.learning_rate?'),
  ([PRETRAIN, '--config.optimiser.warmup_steps=5'],
   'unknown config field in --config.optimiser.warmup_steps=5: it is now --config.optimiser.warmup, a share (0 to 1) '
   'of the run in stage 1, and of each visit later, instead of steps'),
  ([PRETRAIN, '--config.contrast.queue=512'],
   'unknown config field in --config.contrast.queue=512: it is now --config.moco.queue'),
  ([PRETRAIN, '--config.spike=4'], 'unknown config field in --config.spike=4: it no longer exists; leave it out'),
  ([CONTINUAL, '--config.tasks.tuberculosis.head.box_overlap=0.3'],
   'unknown config field in --config.tasks.tuberculosis.head.box_overlap=0.3: it is now '
   '--config.tasks.tuberculosis.head.roi_nms_iou'),
  ([PRETRAIN, '--preflight=v5e:4x4', '--config.batch=512'],
   '--preflight is a command of its own now: python -m mtpret_jax.preflight --config=configs/pretrain.py:mtpret11 '
   '--pod=v5e:4x4 --config.batch=512'),
  ([PRETRAIN, '--preflight', 'h100:8'],
   '--preflight is a command of its own now: python -m mtpret_jax.preflight --config=configs/pretrain.py:mtpret11 '
   '--pod=h100:8'),
  ([], 'no config given: name one, such as --config=configs/pretrain.py')])
def test_a_mistake_in_a_flag_is_one_line(flags, message):
  assert run_main(*flags) == (2, [f'mtpret_jax: {message}'])


@pytest.mark.parametrize('variant', ['smoke', 'real'])
def test_a_size_of_fine_tuning_needs_a_task(variant):
  with pytest.raises(ValueError, match=f'has no task: name one, such as {variant},pneumonia'):
    finetune.get_config(variant)


@pytest.mark.parametrize('argv, shown', [
  (['--help'], ['stage 1, pretraining: --config=configs/pretrain.py', ':smoke,TASK', 'optimiser.learning_rate',
                '--dry_run']),
  (['--config=configs/finetune.py:lung', '--help'],
   ["workdir='runs/finetune/lung'", 'tasks.lung.head.dilations=(1, 2, 4)', 'dilation rates of the atrous convolutions',
    'tasks.lung.augment.flip=0.5']),
  (['--config=configs/table.py', '--help'],
   ["tasks=('pneumonia', ", 'min_images=5', '--config.stages.pretrain.FIELD'])])
def test_help_is_a_screen_about_all_configs_or_one(argv, shown, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['main', *argv])
  with pytest.raises(SystemExit) as ended, flagsaver.flagsaver():
    cli.parse_or_help(sys.argv)
  assert not ended.value.code
  text = capsys.readouterr().out
  assert all(line in text for line in shown)


def test_a_line_of_the_log_has_the_time_and_says_what_is_a_warning():
  lines = [cli.LogLine().format(logging.makeLogRecord({'msg': 'saved step %d', 'args': (4,), 'levelno': level,
                                                       'levelname': logging.getLevelName(level)}))
           for level in (logging.INFO, logging.WARNING)]
  assert [line[8:] for line in lines] == [' saved step 4', ' warning: saved step 4']


def test_a_mistake_in_a_flag_is_answered_before_jax_is_imported():
  program = 'import sys, atexit; from mtpret_jax import cli; atexit.register(lambda: print(*sys.modules)); cli.run()'
  done = subprocess.run([sys.executable, '-c', program, PRETRAIN, '--config.moco.queu=1'], cwd=ROOT,
                        capture_output=True, text=True)
  assert done.returncode == 2 and 'did you mean' in done.stderr
  assert not {'jax', 'flax', 'tensorflow_datasets', 'mtpret_jax.stages'} & set(done.stdout.split())


def test_a_profile_without_archives_lists_each_with_its_source_and_what_to_type(tmp_path):
  code, (first, headline, *lines, advice) = run_main(PRETRAIN, f'--config.data.archives={tmp_path}',
                                             f'--config.data.dir={tmp_path}', f'--config.workdir={tmp_path}')
  assert code == 2
  assert first == 'mtpret_jax: starting; the imports take a few seconds'
  assert headline.startswith(f'mtpret_jax: 11 of 11 datasets are neither in data.archives={str(tmp_path)!r} nor')
  assert len(lines) == 11
  assert all('http' in line or 'Kaggle' in line for line in lines)
  assert f'python -m tfds_builders.unpack FILE --archives {tmp_path / "nih_chest_xray"}' in advice


def test_a_signal_during_a_write_to_stderr_ends_the_start_at_once():
  program = '''
import signal, sys
from mtpret_jax import main
signal.signal(signal.SIGTERM, main.stop)
print('.' * 10 ** 6, file=sys.stderr)
'''
  with subprocess.Popen([sys.executable, '-c', program], cwd=ROOT, env={**os.environ, 'PYTHONUNBUFFERED': ''},
                        stderr=subprocess.PIPE, text=True) as done:
    done.stderr.read(1)  # the pipe is full until it is read further, so the program is in the middle of a write
    done.send_signal(signal.SIGTERM)
    rest = done.communicate(timeout=60)[1]
  assert done.returncode == 75 and 'stopped by SIGTERM' in rest and 'Traceback' not in rest


@pytest.mark.parametrize('number, delay', [(signal.SIGINT, 0.0), (signal.SIGINT, 0.8), (signal.SIGTERM, 0.4)])
def test_a_signal_during_the_imports_ends_the_run_at_once(number, delay, tmp_path):
  """jax's callback for the garbage collector would swallow an exception."""
  command = [sys.executable, '-m', 'mtpret_jax.main', '--config=configs/pretrain.py:smoke',
             f'--config.workdir={tmp_path / "run"}', f'--config.data.dir={tmp_path / "data"}']
  with subprocess.Popen(command, cwd=ROOT, env={**os.environ, 'XLA_FLAGS': ''}, stderr=subprocess.PIPE,
                        text=True) as program:
    first = program.stderr.readline()
    time.sleep(delay)
    program.send_signal(number)
    rest = program.communicate(timeout=60)[1]
  assert 'the imports take a few seconds' in first
  assert program.returncode == 75 and f'stopped by {number.name}' in rest and 'Traceback' not in rest
  assert not list((tmp_path / 'run').glob('checkpoints/*'))


COMPILE = '''
import os, signal, threading
import jax, jax.numpy as jnp
from mtpret_jax import cli, stages

def compute(x):
  for place in range(150):
    x = jnp.sin(x) @ x + jnp.sort(x, axis=place % 2) * place
  return x

def compile_for_seconds(config):
  lowered = jax.jit(compute).lower(jnp.ones((16, 16)))
  threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
  lowered.compile()
  print('was compiled', flush=True)

stages.run = compile_for_seconds
cli.run()
'''


def test_a_signal_while_xla_compiles_ends_the_run_with_the_code_to_resume(tmp_path):
  """The compiler goes on in its own threads. A normal shutdown of Python would free what they use: exit code -11."""
  environment = {**os.environ, 'XLA_FLAGS': '', 'JAX_COMPILATION_CACHE_DIR': str(tmp_path),
                 'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'}  # compiling must take longer than the signal
  done = subprocess.run([sys.executable, '-c', COMPILE, '--config=configs/pretrain.py:smoke'], cwd=ROOT,
                        env=environment, capture_output=True, text=True, timeout=120)
  assert done.returncode == 75 and 'was compiled' not in done.stdout
  assert done.stderr.splitlines()[-1] == 'mtpret_jax: stopped by SIGTERM; run the same command to resume'


@pytest.mark.parametrize('name, value', [
  ('jax_enable_x64', True), ('jax_random_seed_offset', 1),
  ('jax_transfer_guard_host_to_device', 'disallow')])
def test_settings_of_the_environment_that_change_results_have_no_effect_and_a_line_says_so(name, value, caplog):
  assert cli.fix_settings() is None and not caplog.messages
  jax.config.update(name, value)
  cli.fix_settings()
  assert getattr(jax.config, name) == cli.FIXED[name]
  assert caplog.messages == [
    f'{name.upper()} in the environment would change the results or stop the run, and has no effect']


def test_a_platform_that_jax_cannot_start_is_a_mistake_of_the_command(monkeypatch):
  def fail():
    raise AssertionError
  monkeypatch.setattr(jax, 'default_backend', fail)
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  with pytest.raises(ConfigError, match="JAX_PLATFORMS='cuda'"):
    cli.find_platform()
