"""`python -m mtpret_jax.export`: what it writes, and what it refuses in one line."""

import json

import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.export import own_weights
from mtpret_jax.export.__main__ import main
from mtpret_jax.export.card import OWN, find_licence
from mtpret_jax.export.folder import MARK, WORDS, check_free, list_files, write_whole
from tests.support.drawn_models import TASK, make_trained, make_zeros
from tfds_builders import build
from tfds_builders.common.exits import REFUSED


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A folder that is read like a run of stage 3."""
  folder = tmp_path_factory.mktemp('runs') / 'detector'
  folder.mkdir()
  own_weights.write(make_trained('detection', make_leaf=make_zeros), [TASK], folder)
  return folder


def refuse(capsys, *arguments):
  """What the command says when it refuses."""
  capsys.readouterr()
  assert main(list(map(str, arguments))) == REFUSED
  said = capsys.readouterr().err.strip().splitlines()
  assert len(said) == 2 and said[0].endswith('the imports take a few seconds')
  return said[1]


def test_every_task_of_a_run_gets_its_weights_and_card(two_tasks_run, tmp_path, capsys):
  workdir, _ = two_tasks_run
  out = tmp_path / 'out'
  assert main([str(workdir), '--to', 'torchvision', '--out', str(out)]) == 0
  names = ['README.md', 'load_in_torch.py', 'model.safetensors', 'torchvision.json', 'trunk.safetensors']
  assert {path.name: sorted(file.name for file in path.iterdir()) for path in out.iterdir()} == {
    'bone_age': names, 'pneumonia': names}
  card = (out / 'pneumonia/README.md').read_text()
  for words in ('Not a medical device', '| kermany_pneumonia | yes | phantoms | CC BY 4.0. |', '**Phantoms** are',
                'The run has no test scores', '2, continual learning', 'python load_in_torch.py IMAGE.png'):
    assert words in card, words
  for name, size, digest in list_files(out / 'pneumonia'):
    assert name == 'README.md' or f'| `{name}` | {size:,} | `{digest}` |' in card
  spec = json.loads((out / 'bone_age/torchvision.json').read_text())
  assert spec['about']['value']['unit'] == 'months' and spec['head']['mean'] > 0
  printed = capsys.readouterr().out
  assert f'to {out}' in printed and 'pneumonia/model.safetensors' in printed


def test_own_weights_are_exported_again(run, tmp_path):
  out = tmp_path / 'out'
  assert main([str(run), '--to', 'safetensors', '--task', TASK, '--out', str(out)]) == 0
  assert sorted(path.name for path in out.iterdir()) == ['README.md', 'config.json', 'model.json',
                                                         'weights.safetensors']
  assert (out / 'weights.safetensors').read_bytes() == (run / 'weights.safetensors').read_bytes()
  assert 'mt.load' in (out / 'README.md').read_text()


def test_an_export_is_replaced_only_when_asked(run, tmp_path, capsys):
  out = tmp_path / 'out'
  arguments = [run, '--to', 'torchvision', '--out', out]
  assert main(list(map(str, arguments))) == 0
  (out / 'README.md').write_text(f'{(out / "README.md").read_text()} of the earlier export')
  assert '--overwrite' in refuse(capsys, *arguments)
  assert 'of the earlier export' in (out / 'README.md').read_text()
  assert main([*map(str, arguments), '--overwrite']) == 0
  assert 'of the earlier export' not in (out / 'README.md').read_text()
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def write_export(folder):
  folder.mkdir(parents=True)
  (folder / MARK).write_text(f'{WORDS} 1')


@pytest.mark.parametrize('other', ['notes.txt', 'predictions/predictions.csv', 'lung/notes.txt', 'heart/README.md',
                                   'lung/model.json/mine', 'README.md'])
def test_what_a_user_put_into_an_export_is_never_deleted(other, tmp_path):
  out = tmp_path / 'out'
  write_export(out / 'lung')
  check_free(out, overwrite=True)
  (out / other).parent.mkdir(exist_ok=True)
  (out / other).write_text('mine')
  with pytest.raises(ConfigError, match=r'out/\S+ is no file of an export, and --overwrite would delete it'):
    check_free(out, overwrite=True)


def test_folders_beside_an_export_stay(tmp_path):
  out = tmp_path / 'out'
  write_export(out)
  mine = [tmp_path / 'out.part/mine', tmp_path / 'out.old/mine']
  for path in mine:
    path.parent.mkdir()
    path.write_text('mine')
  with write_whole(out, overwrite=True) as folder:
    (folder / 'new').write_text('')
  assert [path.name for path in out.iterdir()] == ['new'] and all(path.read_text() == 'mine' for path in mine)
  assert len(list(tmp_path.iterdir())) == 3


def test_nothing_but_an_export_is_replaced(run, tmp_path, capsys):
  (tmp_path / 'notes.txt').write_text('mine')
  assert 'no export' in refuse(capsys, run, '--to', 'torchvision', '--out', tmp_path, '--overwrite')
  assert (tmp_path / 'notes.txt').read_text() == 'mine'
  assert 'no export' in refuse(capsys, run, '--to', 'torchvision', '--out', run, '--overwrite')


def test_a_failed_export_leaves_nothing(run, tmp_path, monkeypatch, capsys):
  def fail(*arguments):
    raise ValueError('no room')
  monkeypatch.setattr('mtpret_jax.export.card.write', fail)
  assert refuse(capsys, run, '--to', 'torchvision', '--out', tmp_path / 'out') == 'no room'
  assert not list(tmp_path.iterdir())


def test_mistakes_name_what_to_type(run, tmp_path, capsys):
  assert f'choose one of {TASK}' in refuse(capsys, run, '--to', 'torchvision', '--task', 'lung')
  assert f'choose one of its runs: {run}' in refuse(capsys, run.parent, '--to', 'torchvision')
  assert 'there is no folder' in refuse(capsys, tmp_path / 'absent', '--to', 'torchvision')
  (tmp_path / 'config.json').write_text('{}')
  assert 'is damaged' in refuse(capsys, tmp_path, '--to', 'torchvision')


def test_a_run_without_weights_is_refused(run, tmp_path, capsys):
  for name in ('config.json', 'model.json'):
    (tmp_path / name).write_bytes((run / name).read_bytes())
  assert '--state=last' in refuse(capsys, tmp_path, '--to', 'torchvision')


@pytest.mark.parametrize('name', build.NAMES)
def test_every_dataset_has_licence_terms_for_the_card(name):
  assert find_licence(name) != OWN and '\n' not in find_licence(name) and len(find_licence(name)) > 3


def test_an_own_dataset_has_none():
  assert find_licence('clinic') == OWN
