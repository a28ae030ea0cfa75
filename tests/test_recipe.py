"""The whole recipe: stages 1, 2 and 3 in one command, interrupted in each, end in the same scores."""

import json
import pathlib

import pytest
from ml_collections import ConfigDict

from mtpret_jax import stages
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import MissingSplit, open_source
from mtpret_jax.tasks import dataset
from tests.support import plain_reports, small_runs
from tests.support.changed import change
from tests.support.events import read_tags
from tests.support.interrupted import stop_at

STAGES = ('pretrain', 'continual', 'bone_age')


@pytest.fixture(scope='module')
def make_recipe(two_tasks, tmp_path_factory):
  """make(root) -> eight steps of stage 1, two rounds on two tasks, four steps on one of them."""
  def make(root):
    data = {'data.archives': str(tmp_path_factory.mktemp('none'))}  # everything is prepared already
    first = small_runs.make_pretrain()
    first.save_every = 100
    first.data.dir = two_tasks.data.dir
    first = change(first, workdir=f'{root}/pretrain', **data)
    second = change(two_tasks, workdir=f'{root}/continual', init='md_moco', init_from=f'{root}/pretrain', **data)
    last = change(two_tasks, workdir=f'{root}/bone_age', init='mtpret', init_from=f'{root}/continual', order='cyclic',
                  rounds=1, validations=2, **{'memory.anchor': 'none', 'tasks.bone_age.steps': 4,
                                                'optimiser.learning_rate': 8e-4}, **data)
    with last.unlocked():
      del last.tasks['pneumonia']
    stages = ConfigDict(dict(zip(STAGES, (first, second, last), strict=True)), sort_keys=False)
    return ConfigDict(dict(objective='recipe', workdir=str(root), stages=stages))
  return make


@pytest.fixture(scope='module')
def undisturbed(make_recipe, tmp_path_factory):
  root = tmp_path_factory.mktemp('undisturbed')
  with plain_reports.real():
    stages.run_recipe(make_recipe(root))
  return root


def read(root, *names):
  return json.loads(pathlib.Path(root, *names).read_text())


def test_the_stages_follow_each_other(undisturbed):
  assert read(undisturbed, 'continual', 'config.json')['config']['init_from'] == str(undisturbed / 'pretrain')
  assert list(read(undisturbed, 'scores.json')) == ['bone_age']
  scores = read(undisturbed, 'bone_age', 'scores.json')
  assert read(undisturbed, 'scores.json')['bone_age'] == {'tasks': scores['tasks'], 'notes': []}
  assert [run['workdir'] for run in scores['pretraining']['runs']] == [
    str(undisturbed / name) for name in ('pretrain', 'continual')]


@pytest.mark.parametrize('file', [
  'pretrain/labels.png', 'pretrain/views.png', 'pretrain/neighbours.png', 'continual/rounds.png',
  'bone_age/examples_bone_age.png', 'bone_age/pictures/bone_age_worst.png', 'report.html',
  *(f'{stage}/report.html' for stage in STAGES)])
def test_every_stage_draws_its_pictures_and_its_page(file, undisturbed):
  assert (undisturbed / file).stat().st_size > 1000


@pytest.mark.parametrize('stage, tags', [
  ('pretrain', {'views/moco', 'pretraining/loss', 'pretraining/contrastive_accuracy_in_batch', 'pretraining/uniformity',
                'speed/images_per_second', 'probe/linear/kermany_pneumonia', 'report/neighbours'}),
  ('continual', {'views/pneumonia', 'views/bone_age', 'pneumonia/loss', 'bone_age/distance_from_anchor',
                 'validation/bone_age', 'predictions/bone_age'}),
  ('bone_age', {'views/bone_age', 'bone_age/learning_rate', 'validation/bone_age', 'predictions/bone_age'})])
def test_a_stage_writes_one_event_file_and_keeps_one_checkpoint_when_it_is_finished(stage, tags, undisturbed):
  events, = (undisturbed / stage / 'tensorboard').iterdir()
  assert tags <= read_tags(events)
  assert len(list((undisturbed / stage / 'checkpoints').glob('*.sha256'))) == 1


def test_a_stage_is_not_extended_once_a_later_one_has_started_from_it(make_recipe, tmp_path, monkeypatch):
  monkeypatch.setattr(stages.test_scores, 'is_finished', lambda stage: stage.steps == 8 if 'steps' in stage else False)
  recipe = make_recipe(tmp_path)
  (tmp_path / 'bone_age').mkdir()
  (tmp_path / 'bone_age/config.json').touch()
  stages.check_extended(recipe)
  with recipe.stages.pretrain.unlocked():
    recipe.stages.pretrain.update(extend=True, steps=16)
  with pytest.raises(ConfigError, match='stage bone_age .* from the trunk of stage pretrain.*move .*bone_age away'):
    stages.check_extended(recipe)
  (tmp_path / 'bone_age/config.json').unlink()
  stages.check_extended(recipe)


def test_a_recipe_stopped_in_every_stage_goes_on_to_the_same_scores(make_recipe, undisturbed, tmp_path, monkeypatch):
  recipe, visited, run_stage = make_recipe(tmp_path), [], stages.run_stage
  monkeypatch.setattr(stages, 'run_stage', lambda stage: (visited.append(pathlib.Path(stage.workdir).name),
                                                           run_stage(stage)))
  for batches in (1, 8 + 3, 9 + 1):  # drawn before the interruption, in what is left of a stage and in the next
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      stop_at(patch, batches)
      stages.run_recipe(recipe)
  stages.run_recipe(recipe)
  assert visited == ['pretrain', 'pretrain', 'continual', 'continual', 'bone_age', 'bone_age']
  assert read(tmp_path, 'scores.json') == read(undisturbed, 'scores.json')


def test_the_splits_of_all_stages_are_checked_before_the_first_one_trains(make_recipe, tmp_path, monkeypatch):
  def open_no_test_split(name, data_dir, stored_size, split, split_rule, **options):
    if split == 'test':
      raise MissingSplit(f'{name} has no test images')
    return open_source(name, data_dir, stored_size, split, split_rule, **options)

  monkeypatch.setattr(dataset, 'open_source', open_no_test_split)
  monkeypatch.setattr(stages, 'run_stage', None)
  with pytest.raises(ConfigError, match='stage bone_age: rsna_bone_age has no test images'):
    stages.run_recipe(make_recipe(tmp_path))
