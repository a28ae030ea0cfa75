"""Which cells the table has, what each starts from, and that the cells of a task differ in nothing else."""

import pathlib
import re

import pytest

from configs import finetune, table, tasks
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.validate import check_objective
from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.runtime import image_counts, prepare_data
from mtpret_jax.runtime.initial_weights import STAGE_2_INITS, check_init, init_name_of
from mtpret_jax.stages.table import cells, counts, run
from mtpret_jax.tasks.dataset import open_task
from tests.support.changed import change
from tests.support.paths import ROOT

OWN_FIELDS = {'workdir', 'seed', 'init', 'init_from', 'data.fraction', 'data.fraction_seed'}


def make_config(variant='smoke', **fields):
  shares = {'fractions': (0.5, 1.0)} if variant == 'smoke' else {}
  return change(table.get_config(variant), workdir='runs', **shares | fields)


def list_keys(made):
  return [(cell.task, cell.init, cell.fraction, cell.seed) for cell in made]


def test_there_is_a_cell_for_each_task_initialisation_share_of_the_labels_and_seed():
  config = make_config(seeds=(3, 4))
  made = cells.make_cells(config)
  inits = [init for init in table.INITS if init != 'imagenet']
  assert sorted(list_keys(made)) == sorted(
    ('pneumonia', init, fraction, seed) for init in inits for fraction in (0.5, 1.0) for seed in (3, 4))
  assert [seed for *_, seed in list_keys(made)] == [3] * 16 + [4] * 16  # all of one seed, then those of the next
  assert len({cell.config.workdir for cell in made}) == 32
  assert made[0].config.workdir == 'runs/cells/pneumonia/scratch/0.5/3'


def test_imagenet_is_an_initialisation_where_a_file_is_given():
  config = make_config(imagenet='resnet18.safetensors')
  cell, = (cell for cell in cells.make_cells(config) if cell.init == 'imagenet' and cell.fraction == 1)
  assert (cell.config.init, cell.config.init_from, cell.needs) == ('imagenet', 'resnet18.safetensors', ())


def test_cells_of_a_task_have_the_same_config_but_for_their_start_and_their_labels():
  for variant in ('smoke', 'real_small', 'mtpret'):
    configs = {}
    for cell in cells.make_cells(make_config(variant)):
      own = {field: value for field, value in flatten(cell.config.to_dict()).items() if field not in OWN_FIELDS}
      assert configs.setdefault(cell.task, own) == own
      assert (cell.config.seed, cell.config.data.fraction_seed) == (cell.seed, cell.seed)
      assert cell.config.data.fraction == cell.fraction


def test_stage_2_learns_the_labels_of_the_cells_that_start_from_it():
  config = make_config(seeds=(3, 4))
  pretraining = cells.make_pretraining(config)
  for cell in cells.make_cells(config):
    for name in cell.needs:
      data = pretraining[name].data
      if pretraining[name].objective == 'multitask':
        assert (data.fraction, data.fraction_seed) == (cell.fraction, cell.seed)
        assert pretraining[name].seed == cell.seed
  assert sum(config.objective == 'multitask' for config in pretraining.values()) == 5 * 2 * 2


def test_each_run_starts_from_the_pretraining_that_it_is_named_after():
  config = make_config()
  pretraining, planned = cells.make_pretraining(config), {}
  for name, stage in pretraining.items():
    assert init_name_of(stage) == name.split('/')[0]
    assert set(planned) >= {stage.init_from} - {''}  # an earlier run
    check_init(stage, planned)
    planned[stage.workdir] = stage
  for cell in cells.make_cells(config):
    check_init(cell.config, planned)
    assert cell.config.init_from == (pretraining[cell.needs[-1]].workdir if cell.needs else '')
    lineage = [cell.init] if cell.init in ('moco', 'md_moco') else ['md_moco', cell.init] * (cell.init != 'scratch')
    assert [name.split('/')[0] for name in cell.needs] == lineage


def test_an_ablation_lacks_one_part_only():
  full = STAGE_2_INITS['mtpret']
  for init in ('schedule_off', 'memory_off'):
    assert sum(one != other for one, other in zip(STAGE_2_INITS[init], full, strict=True)) == 1
  assert all(one != other for one, other in zip(STAGE_2_INITS['muscle--'], full, strict=True))


def test_stage_1_runs_once_or_once_for_each_seed():
  once, each = (cells.make_pretraining(make_config(seeds=(3, 4), pretrain_once=flag)) for flag in (True, False))
  assert [name for name, stage in once.items() if stage.objective == 'moco'] == ['moco/kermany_pneumonia', 'md_moco']
  seeds = {name: stage.seed for name, stage in each.items() if stage.objective == 'moco'}
  assert seeds == {f'{name}/{seed}': seed for name in ('moco/kermany_pneumonia', 'md_moco') for seed in (3, 4)}
  assert each['mtpret/0.5/4'].init_from == each['md_moco/4'].workdir


def test_moco_learns_from_the_dataset_of_the_task_and_md_moco_from_all():
  pretraining = cells.make_pretraining(make_config('muscle', **{'stages.pretrain.data.weights': '1,1,1,1,1,1,1,1,2'}))
  assert pretraining['moco/mura'].data.datasets == ('mura',) and pretraining['moco/mura'].data.weights == 'by_images'
  assert len(pretraining['md_moco'].data.datasets) == 9 and pretraining['md_moco'].data.weights == '1,1,1,1,1,1,1,1,2'
  assert len(pretraining['md_moco'].data.whole) == 5 and pretraining['moco/mura'].data.whole == ()


def test_pretraining_sees_no_external_dataset():
  for variant in ('real_small', 'mtpret'):
    config = make_config(variant)
    external = {name: task_config.dataset for name, task_config in (
      (name, config.stages.finetune[name].tasks[name]) for name in config.tasks) if task_config.external}
    assert len(external) == 2
    for stage in cells.make_pretraining(config).values():
      seen = stage.data.datasets if stage.objective == 'moco' else [own.dataset for own in stage.tasks.values()]
      assert not set(seen) & set(external.values())
    made = cells.make_cells(config)
    assert {(cell.task, cell.init) for cell in made if cell.task in external} == {
      (name, init) for name in external for init in cells.INITS if init not in ('imagenet', 'moco')}


def test_stage_1_on_every_archive_leaves_out_those_of_external_tasks(monkeypatch):
  def find(config):
    config.data.datasets = ('mura', 'rsna_bone_age', 'frac_atlas')
  monkeypatch.setattr(prepare_data, 'choose_datasets', find)
  config = make_config('mtpret', **{'stages.pretrain.data.datasets': (), 'stages.pretrain.data.whole': ()})
  assert cells.make_pretraining(config)['md_moco'].data.datasets == ('mura', 'rsna_bone_age')


def test_all_datasets_that_are_missing_are_named_before_one_is_prepared(tmp_path):
  config = make_config('real_small', **{'data.archives': str(tmp_path), 'data.dir': str(tmp_path / 'data')})
  with pytest.raises(ConfigError, match='5 of 5 datasets are neither in (?s:.*)covid_chest: no public dataset'):
    run.prepare(cells.resolve(config))


def test_stages_that_no_initialisation_needs_ask_for_no_data():
  own = {}
  for inits in (('scratch',), ('scratch', 'moco'), ('md_moco',), ('md_moco', 'joint')):
    config = cells.resolve(make_config('muscle', inits=inits, tasks=('pneumonia', 'lung')))
    own[inits[-1]] = [stage.data.datasets if stage.objective == 'moco' else tuple(stage.tasks)
                      for stage in cells.list_stages(config)]
  tasks_only = [('pneumonia',), ('lung',)]
  assert own['scratch'] == tasks_only
  assert own['moco'] == [('kermany_pneumonia', 'lung_masks'), *tasks_only]
  assert [len(own[init][0]) for init in ('md_moco', 'joint')] == [9, 9]
  assert own['md_moco'][1:] == tasks_only
  assert set(own['joint'][1]) == set(tasks.muscle4) and own['joint'][2:] == tasks_only


def test_archives_are_looked_for_once(monkeypatch):
  looks = []

  def find(config):
    if not config.data.datasets:
      looks.append(config.data.archives)
      config.data.datasets = ('mura', 'rsna_bone_age')
  monkeypatch.setattr(prepare_data, 'choose_datasets', find)
  config = make_config('mtpret', **{'stages.pretrain.data.datasets': (), 'stages.pretrain.data.whole': ()})
  cells.check_table(config)
  cells.make_cells(config), cells.make_pretraining(config)
  assert looks == ['archives']


def test_stage_2_keeps_the_order_of_its_tasks():
  pretraining = cells.make_pretraining(table.get_config('muscle'))
  assert list(pretraining['mtpret/1/2'].tasks) == list(tasks.muscle4) != sorted(tasks.muscle4)


def test_a_share_of_the_labels_with_too_few_images_has_no_cell_and_no_part_in_stage_2():
  config = make_config('embedded', seeds=(1,), fractions=(0.01, 1.0))
  too_few = {('lung', 0.01)}
  made, pretraining = cells.make_cells(config, too_few), cells.make_pretraining(config, too_few)
  assert {cell.fraction for cell in made if cell.task == 'lung'} == {1.0}
  assert 'lung' not in pretraining['mtpret/0.01/1'].tasks and 'lung' in pretraining['mtpret/1/1'].tasks
  too_few = {(task, 0.01) for task in config.tasks if task != 'pneumonia'}  # stage 2 has only one task left
  assert [cell.init for cell in cells.make_cells(config, too_few) if cell.fraction == 0.01] == [
    'scratch', 'moco', 'md_moco']
  lines = counts.describe_left_out(config, dict.fromkeys(too_few, 'few images'))
  assert len([line for line in lines if 'few images' in line]) == 3
  assert len([line for line in lines if 'pneumonia (1 %)' in line and 'fewer than two tasks' in line]) == 5


@pytest.mark.parametrize('fields, message', [
  ({'inits': ('scratch', 'resnet')}, "unknown inits 'resnet': choose some of scratch, imagenet"),
  ({'inits': ('imagenet',)}, 'no initialisation is left'),
  ({'imagenet': '.'}, 'is a folder, but must be a .safetensors file'),
  ({'tasks': ('lung',)}, "unknown tasks 'lung': choose some of pneumonia"),
  ({'seeds': (1, 2, 1)}, r'seeds=\(1, 2, 1\) has a value twice')])
def test_contradictions_are_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    cells.check_table(make_config(**fields))


def test_a_table_without_its_stages_is_refused():
  config = make_config()
  del config.stages['continual']
  with pytest.raises(ConfigError, match='continual is missing'):
    check_objective(config)


def test_the_table_of_your_own_data_in_the_docs_has_the_cells_that_it_says():
  block, = (block for block in re.findall(r'```python\n(.*?)```', (ROOT / 'docs/own-data.md').read_text(), re.DOTALL)
            if 'make_table' in block)
  module = {}
  exec(block, module)
  config = module['get_config']()
  config.stages.pretrain.data.datasets = ('clinic', 'nih_chest_xray')  # those that would be in the archives
  check_objective(config)
  cells.check_table(config)
  made = cells.make_cells(config)
  assert {(cell.task, cell.init) for cell in made} == {('fracture', init) for init in ('scratch', 'moco', 'md_moco')}
  assert all(cell.config.tasks.fracture.dataset == 'clinic' for cell in made) and len(made) == 3 * 2 * 3
  assert list(cells.make_pretraining(config)) == ['moco/clinic', 'md_moco']


# Counts


def test_a_share_is_left_out_where_a_class_keeps_too_few_images_with_any_seed():
  def keep(*images):
    return [counts.Kept(9, {'sick': (number, 40), 'rare': (2, 2)}) for number in images]
  kept = {('chest', 0.1): keep(5, 4, 6), ('chest', 1.0): keep(40, 40, 40), ('hand', 0.1): keep(5, 5, 5),
          ('age', 0.1): [*keep(9), counts.Kept(9, {'a label': (9, 90)}, 'has the same value in all images (7)')]}
  reasons = counts.find_too_few(kept, 5)
  assert list(reasons) == [('chest', 0.1), ('age', 0.1)]
  assert reasons['age', 0.1] == '10 % of the labels has the same value in all images (7)'
  assert '10 % of the labels keeps 4 of 40 training images with sick, and min_images=5' in reasons['chest', 0.1]


@pytest.mark.parametrize('task', ['pneumonia', 'bone_age', 'lung', 'tuberculosis', 'knee'])
def test_images_are_counted_as_training_reads_them_before_and_after_they_are_prepared(task, prepared, archives,
                                                                                     tmp_path):
  stage = cells.copy_stage(finetune.get_config(task))
  stage.data.update(archives=str(archives), dir=str(prepared))
  after = dict(counts.count_task(stage, task, (0.3, 1.0), (1, 2)))
  assert all(count.images and not count.defect for kept in after.values() for count in kept)
  for seed, kept in zip((1, 2), after[task, 0.3], strict=True):
    stage.data.update(fraction=0.3, fraction_seed=seed)
    assert kept.images == len(open_task(stage, task, 'train', 0.3))
  stage.data.dir = str(tmp_path)
  image_counts.read_rows.cache_clear()
  before = dict(counts.count_task(stage, task, (0.3, 1.0), (1, 2)))
  if task == 'lung':  # which classes a mask shows is known only when it is read
    assert after[task, 1.0][0].classes == {'lung': (after[task, 1.0][0].images,) * 2}
    before, after = ({key: [count.images for count in kept] for key, kept in found.items()}
                     for found in (before, after))
  assert before == after
  assert not list(pathlib.Path(tmp_path).iterdir())


def test_one_dataset_is_not_enough_for_pretraining_on_all():
  config = table.get_config('smoke')
  config.stages.pretrain.data.datasets = ('kermany_pneumonia',)
  with pytest.raises(ConfigError, match='md_moco needs at least two datasets'):
    cells.check_table(config)
  config.inits = ('scratch', 'moco')
  cells.check_table(config)
