"""Every command ends in the same way: a line on stderr and an exit code, or the traceback of a bug."""

import errno
import io
import os
import subprocess
import sys

import pytest

from tests.support.archives import write_clinic
from tests.support.paths import ROOT
from tfds_builders import build, inspect, leakage, unpack
from tfds_builders.common import exits, plain_text
from tfds_builders.phantoms import __main__ as phantoms

UMLAUT = 'Knöchelbruch'


class Refused(ValueError):
  pass


def system_error(number, *paths):
  return OSError(number, os.strerror(number), *paths)


@pytest.mark.parametrize('error, code, line', [
  (system_error(errno.ENOSPC, '/data/x'), 1, '/data/x: No space left on device: free some space'),
  (system_error(errno.EDQUOT), 1, 'Disk quota exceeded: free some space'),
  (system_error(errno.EROFS, '/data'), 2, '/data: Read-only file system: change its permissions'),
  (system_error(errno.EACCES, b'/data'), 2, '/data: Permission denied: change its permissions'),
  (system_error(errno.EIO, '/data'), 1, '/data: Input/output error: check the disk'),
  (system_error(errno.EMFILE, '/data'), 1, 'Too many open files: raise the limit of open files (ulimit -n)'),
  (system_error(errno.ENOENT, '/a', None, '/b\n'), 2, r'/a and /b\n: No such file or directory'),
  (RuntimeError('write() failed: No space left on device; writing /data/x'), 1, '/data/x: free some space'),
  (FileNotFoundError('no archive'), 2, 'no archive'),
  (ValueError('a table\x1b without\ud800 columns\nand rows'), 2, '\\x1b'),
  (UnicodeDecodeError('utf-8', b'\xf6', 0, 1, 'invalid start byte'), 2, 'invalid start byte'),
  (UnicodeEncodeError('ascii', '/data/\xf6', 6, 7, 'ordinal not in range'), 2, 'set PYTHONUTF8=1'),
  (ModuleNotFoundError('--beam needs Apache Beam'), 2, '--beam needs'),
  (RuntimeError('Could not determine home directory.'), 2, 'give the full path'),
  (MemoryError(), 1, 'out of memory'),
  (KeyboardInterrupt(), 130, 'stopped by SIGINT')])
def test_an_error_that_a_user_can_do_something_about_has_a_line_and_a_code(error, code, line):
  explained = exits.explain(error)
  assert explained[0] == code and line in explained[1]
  assert not plain_text.GARBLED.search(explained[1].replace('\n', '')) and '\ud800' not in explained[1]


@pytest.mark.parametrize('error', [TypeError('x'), KeyError('x'), AssertionError(), RuntimeError('x')])
def test_a_bug_keeps_its_traceback(error):
  @exits.command
  def main(arguments):
    raise error
  assert exits.explain(error) is None
  with pytest.raises(type(error)):
    main()


def test_where_a_command_lists_its_mistakes_other_value_errors_are_bugs():
  assert exits.explain(ValueError('operands'), mistakes=(Refused,)) is None
  assert exits.explain(Refused('rule'), mistakes=(Refused,)) == (2, 'rule')
  assert exits.explain(Refused('loss'), mistakes=(), failures=(Refused,)) == (1, 'loss')
  assert exits.explain(system_error(errno.ENOSPC, '/data/x'), mistakes=())[0] == 1


def test_what_an_ascii_terminal_lacks_is_escaped(monkeypatch):
  out = io.TextIOWrapper(io.BytesIO(), 'ascii')
  monkeypatch.setattr(sys, 'stdout', out)
  exits.open_streams()
  print(UMLAUT, 'R\udcf6')  # a name on disk that is not UTF-8
  out.flush()
  assert out.buffer.getvalue() == b'Kn\\xf6chelbruch R\\udcf6\n'


@pytest.fixture(scope='module')
def clinic(tmp_path_factory):
  """A folder with a dataset that has a finding with an umlaut, prepared in `data`."""
  folder = tmp_path_factory.mktemp('clinic')
  write_clinic(folder)
  table = folder / 'clinic/labels.csv'
  head, *rows = table.read_text(encoding='utf-8').splitlines()
  table.write_text('\n'.join([f'{head},{UMLAUT}', *(f'{row},{i % 2}' for i, row in enumerate(rows))]), encoding='utf-8')
  build.prepare('clinic', folder, folder / 'data')
  return folder


def start(module, *arguments, **environment):
  return subprocess.Popen([sys.executable, '-m', f'tfds_builders.{module}', *map(str, arguments)], cwd=ROOT, text=True,
                          env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_inspect_prints_on_an_ascii_terminal_and_to_a_reader_that_has_gone(clinic):
  ascii_only = dict(PYTHONIOENCODING='ascii', LC_ALL='C', PYTHONUTF8='0')
  with (start('inspect', 'clinic', '--data_dir', clinic / 'data', **ascii_only) as escaped,
        start('inspect', 'clinic', '--data_dir', clinic / 'data') as unread):
    unread.stdout.close()
    out, error = escaped.communicate(timeout=60)
    assert (escaped.returncode, error) == (0, '') and r'Kn\xf6chelbruch' in out
    assert unread.stderr.read() == ''
  assert unread.returncode == exits.CLOSED_PIPE


@pytest.mark.parametrize('code, cleans_up', [(130, False), (2, True)])
def test_after_ctrl_c_a_command_ends_without_the_shutdown_of_python(code, cleans_up):
  """A compiler may still be at work in its own threads, and would crash in it."""
  program = (f"import atexit; from tfds_builders.common import exits; atexit.register(print, 1); exits.leave({code})")
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
  assert (done.returncode, bool(done.stdout)) == (code, cleans_up)


@pytest.mark.parametrize('module', ['build', 'inspect', 'leakage'])
def test_ctrl_c_during_the_imports_is_one_line(module):
  program = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell of the tests may have it ignored
class Interrupt:
  def find_spec(self, name, *rest):
    if name in ('numpy', 'PIL', 'tensorflow_datasets'):
      os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
runpy.run_module('tfds_builders.' + sys.argv[1], run_name='__main__')
"""
  done = subprocess.run([sys.executable, '-c', program, module], cwd=ROOT, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (130, 'stopped by SIGINT; run the same command to start again\n')


@pytest.mark.parametrize('sheet, words', [
  ('none/x.png', 'there is no folder'), ('x', 'ends in nothing'), ('x.txt', 'ends in .txt'), ('.', 'nothing'),
  ('clinic.png', 'is a folder')])
def test_a_sheet_that_cannot_be_written_is_refused_before_the_records_are_read(
    sheet, words, clinic, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'clinic.png').mkdir()
  monkeypatch.setattr(inspect, 'survey', None)
  assert inspect.main(['clinic', '--data_dir', str(clinic / 'data'), '--sheet', sheet]) == exits.REFUSED
  assert phantoms.main(['--sheet', sheet]) == exits.REFUSED
  first, second = capsys.readouterr().err.splitlines()
  assert words in first and '--sheet' in first and first == second


def test_pairs_that_cannot_be_written_are_refused_before_the_images_are_compared(clinic, monkeypatch, capsys):
  monkeypatch.setattr(leakage, 'load_fingerprints', None)
  assert leakage.main(['clinic', '--data_dir', str(clinic / 'data'), '--pairs', '/none/x.csv']) == exits.REFUSED
  assert 'there is no folder /none' in capsys.readouterr().err


def test_a_full_disk_is_one_line_of_every_command(clinic, tmp_path, monkeypatch, capsys):
  def fail(*arguments, **options):
    raise system_error(errno.ENOSPC, '/data/x')
  monkeypatch.setattr(build, 'prepare', fail)
  monkeypatch.setattr(unpack, 'unpack', fail)
  monkeypatch.setattr(inspect, 'survey', fail)
  monkeypatch.setattr(leakage, 'load_fingerprints', fail)
  data = ['--data_dir', str(clinic / 'data')]
  for main, arguments in ((build.main, ['clinic', '--archives', str(clinic), *data]), (inspect.main, ['clinic', *data]),
                          (unpack.main, ['x.zip', '--archives', str(tmp_path)]), (leakage.main, ['clinic', *data])):
    assert main(arguments) == exits.FAILED
    line, = capsys.readouterr().err.splitlines()
    assert line == '/data/x: No space left on device: ' + exits.NO_SPACE
