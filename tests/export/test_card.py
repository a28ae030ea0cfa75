"""The model card tells where the weights come from, what their data may be used for, and how good they are."""

import dataclasses

import pytest

from mtpret_jax.evaluation import metrics
from mtpret_jax.export import card, own_weights
from mtpret_jax.runtime.atomic_io import write_json
from tests.support import scored
from tests.support.drawn_models import TASK, make_trained, make_zeros


@pytest.fixture
def trained(tmp_path):
  """A model fine-tuned on real radiographs, from a run of stage 1 on phantoms."""
  earlier, run = tmp_path / 'first', tmp_path / 'second'
  for folder in (earlier, run):
    folder.mkdir()
  own_weights.write(make_trained('trunk', make_leaf=make_zeros), [], earlier)
  model = dataclasses.replace(make_trained('classification', make_leaf=make_zeros), run=run)
  with model.config.unlocked():
    model.config.update(init='moco', init_from=str(earlier))
    model.config.data.archives = 'archives'
  return model


def write(trained, folder):
  card.write(trained, [TASK], folder, 'how to use it')
  return (folder / 'README.md').read_text()


def test_the_datasets_of_all_runs_are_listed_with_their_licences(trained, tmp_path):
  text = write(trained, tmp_path)
  licence = 'Stanford Dataset Research Use Agreement. Non-commercial, no redistribution.'
  assert f'| mura | no | phantoms | {licence} |' in text and f'| mura | yes | real | {licence} |' in text
  assert '**Phantoms** are' in text and '* earlier run: `first`, without labels, on mura' in text


def test_a_file_of_weights_is_named(trained, tmp_path):
  with trained.config.unlocked():
    trained.config.update(init='imagenet', init_from='resnet18.safetensors')
  text = write(trained, tmp_path)
  assert 'started from the weights file resnet18.safetensors' in text and 'it may have seen test images' in text
  assert '**Phantoms** are' not in text


@pytest.mark.parametrize('step', (12, 13))
def test_scores_have_intervals_and_belong_to_the_state(step, trained, tmp_path):
  assert 'The run has no test scores.' in write(trained, tmp_path)
  result = metrics.score(scored.METRICS['classification'], scored.ABOUT['independent'],
                         scored.make_rows('independent', 30), resamples=5)
  write_json(trained.run / 'scores.json', {
    'split': 'test', 'split_rule': 'patient', 'step': step, 'data': 'archives', 'notes': ['a note'],
    'pretraining': {'notes': []}, 'tasks': {TASK: result}})
  text = write(trained, tmp_path)
  assert 'AUC *' in text and ' to 0.' in text and 'Note: a note.' in text
  assert ('the scores of another state' in text) == (step != trained.step)
