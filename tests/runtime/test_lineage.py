"""What earlier runs of a trunk saw: external tasks, split rules, datasets used whole, and the notes beside scores."""

import json

import pytest
from ml_collections import ConfigDict

from configs import evaluate, mtpret
from configs.finetune import get_config
from mtpret_jax import stages
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import test_scores
from mtpret_jax.report import recipe
from mtpret_jax.runtime.lineage import check_external, check_lineage, describe_lineage, list_notes, trace_lineage
from tests.support.changed import change


def write_run(folder, datasets, init='scratch', init_from='', objective='moco', workdir='', **data):
  folder.mkdir(parents=True)
  stage = {'order': 'cyclic', 'memory': {'anchor': 'none', 'l2_sp': 0.01}} if objective == 'multitask' else {}
  config = {'objective': objective, 'init': init, 'init_from': str(init_from),
            'workdir': workdir or str(folder), 'data': {'datasets': datasets, 'split': 'patient', **data}, **stage}
  (folder / 'config.json').write_text(json.dumps({'config': config}))
  return folder


def start_from(source, task, init='other', **fields):
  """Stage 3 on a task, from the trunk of the run in `source`."""
  config = change(get_config(task), init=init, init_from=str(source), **fields)
  with config.unlocked():
    config.data.datasets = (config.tasks[task].dataset,)
  return config, trace_lineage(config)


@pytest.fixture
def second_run(tmp_path):
  """A trunk that saw NIH's archive in its first run and bones in its second."""
  first = write_run(tmp_path / 'first', ['nih_chest_xray', 'mura'])
  return write_run(tmp_path / 'second', ['mura', 'rsna_bone_age'], 'md_moco', first)


def test_the_lineage_reaches_back_over_all_runs(second_run):
  lineage = trace_lineage({'init': 'mtpret', 'init_from': str(second_run)})
  assert lineage.datasets == ('nih_chest_xray', 'mura', 'rsna_bone_age')
  assert [run.workdir for run in lineage.runs] == [str(second_run.parent / 'first'), str(second_run)]
  assert trace_lineage({'init': 'scratch', 'init_from': ''}).datasets == ()


def test_a_relative_init_from_is_found_from_another_folder(tmp_path, monkeypatch):
  write_run(tmp_path / 'project/runs/first', ['mura'])
  second = write_run(tmp_path / 'project/runs/second', ['rsna_bone_age'], 'md_moco', 'runs/first',
                     workdir='runs/second')
  for folder in (tmp_path / 'project', tmp_path):
    monkeypatch.chdir(folder)
    lineage = trace_lineage({'init': 'mtpret', 'init_from': str(second)})
    assert lineage.datasets == ('mura', 'rsna_bone_age') and not lineage.missing_run


def test_a_task_whose_images_an_earlier_run_saw_is_not_external(second_run):
  config = get_config('covid')
  config.update(init='mtpret', init_from=str(second_run))
  with pytest.raises(ConfigError, match='covid19_radiography is not external after pretraining on nih_chest_xray.*'
                                        '--config.tasks.covid.external=False'):
    check_external(config, trace_lineage(config))
  config.tasks.covid.external = False
  check_external(config, trace_lineage(config))


def test_a_task_that_shares_nothing_is_external(second_run):
  config, lineage = start_from(second_run, 'findings', **{'data.split': 'official'})
  check_lineage(config, lineage)  # its own dataset may be split by another rule
  assert list_notes(config, lineage) == []


@pytest.mark.parametrize('split', ['paper', 'official'])
def test_another_split_rule_than_that_of_an_earlier_run_is_refused(split, second_run):
  """The dataset is in both runs, the rule differs in the first only or in both."""
  config, lineage = start_from(second_run, 'abnormality', workdir='runs/third', **{'data.split': split})
  first = second_run.parent / 'first'
  with pytest.raises(ConfigError, match=f"the run in {first} used mura with data.split='patient', and runs/third uses "
                                        f"it with '{split}'.*--config.data.split=patient, or --config.init_from"):
    check_lineage(config, lineage)
  check_lineage(*start_from(second_run, 'abnormality'))
  check_lineage(*start_from(second_run, 'pneumonia', **{'data.split': split}))  # no dataset in common


def test_a_dataset_that_an_earlier_run_used_whole_is_refused(tmp_path):
  source = write_run(tmp_path / 'first', ['mura', 'rsna_bone_age'], whole=['mura'])
  with pytest.raises(ConfigError, match=f'the run in {source} trained on all images of mura .*test images included.*'
                                        r'finetune/abnormality.*leave mura out'):
    check_lineage(*start_from(source, 'abnormality'))
  check_lineage(*start_from(source, 'bone_age'))


def test_a_recipe_whose_stages_split_by_different_rules_is_refused_before_its_first_stage(tmp_path, monkeypatch):
  monkeypatch.setattr(stages.jax, 'device_count', lambda: 1)
  config = mtpret.get_config('smoke')
  config.workdir = str(tmp_path)
  stages.check_run(config)
  config.stages.lung.data = config.stages.lung.data.copy_and_resolve_references()
  config.stages.lung.data.split = 'paper'
  with pytest.raises(ConfigError, match=f'the run in {tmp_path}/pretrain used lung_masks with .*patient'):
    stages.check_run(config)


def test_an_evaluation_of_a_run_with_another_rule_than_its_trunk_is_refused(second_run, tmp_path, monkeypatch):
  config, _ = start_from(second_run, 'abnormality', workdir=str(tmp_path / 'third'), **{'data.split': 'paper'})
  monkeypatch.setattr(test_scores, 'read_trained_config', lambda run: config)
  with pytest.raises(ConfigError, match='used mura with'):
    test_scores.evaluate_run(change(evaluate.get_config(), run=config.workdir))


def test_images_seen_as_another_dataset_are_noted(tmp_path):
  source = write_run(tmp_path / 'first', ['shenzhen_cxr', 'montgomery_cxr', 'mura'], whole=['montgomery_cxr'])
  config, lineage = start_from(source, 'lung')
  check_lineage(config, lineage)
  note, = list_notes(config, lineage)
  assert note.startswith(f'lung: the run in {source} saw images of this test set, without labels, as shenzhen_cxr and '
                         f"montgomery_cxr; MUSCLE's own protocol does too")
  assert describe_lineage(config, lineage)['runs'] == [
    {'workdir': str(source), 'datasets': ['shenzhen_cxr', 'montgomery_cxr', 'mura'], 'split_rule': 'patient',
     'whole': ['montgomery_cxr']}]


def test_a_trunk_of_unknown_data_is_noted_wherever_in_the_lineage_it_is(tmp_path):
  weights = tmp_path / 'resnet18.safetensors'
  weights.touch()
  first = write_run(tmp_path / 'first', ['mura'], 'imagenet', weights)
  for source in (weights, first):
    for task, said in (('pneumonia', 'it may have seen test images'), ('findings', 'findings: called external, but')):
      config, lineage = start_from(source, task)
      pretraining = describe_lineage(config, lineage)
      assert pretraining['weights_file'] == str(weights)
      assert len(pretraining['notes']) == 1
      assert said in pretraining['notes'][0] and str(weights) in pretraining['notes'][0]


def test_an_earlier_run_that_is_gone_is_noted(tmp_path):
  source = write_run(tmp_path / 'second', ['mura'], 'md_moco', tmp_path / 'first')
  config, lineage = start_from(source, 'pneumonia')
  assert describe_lineage(config, lineage)['weights_file'] is None
  assert list_notes(config, lineage) == [f'the trunk starts from the run in {tmp_path}/first, which is not there any '
                                         f'more: it may have seen test images']


def test_labels_that_an_earlier_run_learned_from_more_patients_are_noted(tmp_path):
  source = write_run(tmp_path / 'first', ['mura'], objective='multitask', fraction=1.0)
  config, lineage = start_from(source, 'abnormality', **{'data.fraction': 0.1})
  note, = list_notes(config, lineage)
  assert 'learned the labels of 1 of the training patients of mura, this run only of 0.1' in note
  assert list_notes(*start_from(source, 'abnormality')) == []


def test_labels_that_an_earlier_run_learned_from_other_patients_are_noted(tmp_path):
  source = write_run(tmp_path / 'first', ['mura'], objective='multitask', fraction=0.1, fraction_seed=1)
  note, = list_notes(*start_from(source, 'abnormality', **{'data.fraction': 0.1, 'data.fraction_seed': 2}))
  assert 'learned the labels of other training patients of mura' in note
  assert list_notes(*start_from(source, 'abnormality', **{'data.fraction': 0.1, 'data.fraction_seed': 1})) == []
  assert list_notes(*start_from(source, 'abnormality', **{'data.fraction_seed': 2})) == []


def test_the_table_of_a_recipe_marks_scores_with_notes(tmp_path, capsys):
  result = {'headline': 'AUC', 'scores': {'AUC': {'value': 0.9, 'interval': None}}}
  config = ConfigDict({'workdir': str(tmp_path), 'stages': {}})
  for task, notes in (('mura', []), ('lung', ['seen']), ('teeth', ['seen', 'unknown'])):
    config.stages[task] = ConfigDict({'workdir': str(tmp_path / task)})
    (tmp_path / task).mkdir()
    (tmp_path / task / 'scores.json').write_text(json.dumps({'tasks': {task: result}, 'pretraining': {'notes': notes}}))
  recipe.finish(config)
  lines = capsys.readouterr().out.splitlines()
  assert {line.split()[0]: line.split('-')[-1].strip() for line in lines if 'AUC' in line} == {
    'mura': '', 'lung': '1', 'teeth': '1, 2'}
  assert [line for line in lines if line.startswith('Note')] == ['Note 1: seen.', 'Note 2: unknown.']
