"""`configs/mtpret.py:muscle` and `:mtpret`: their plans at the published sizes, and runs on miniature phantoms."""

import collections
import json
import math
import re
from unittest import mock

import jax
import pytest
from flax import nnx

from configs import common, mtpret, tasks
from configs.finetune import get_config
from mtpret_jax import stages
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.models import resnet
from mtpret_jax.models.conv import Conv
from mtpret_jax.runtime import backend, image_counts
from tests.support import published
from tfds_builders import phantoms

TRUNK = 'pointwise'
IMAGES = {'mura': 150, 'knee_oa': 100}  # of the phantoms whose groups the rule `paper` splits one by one
OTHERS = 40
EXTERNAL = [tasks.TASKS[name]['dataset'] for name in tasks.external2]


class PointwiseBlock(nnx.Module):
  """One 1 x 1 convolution: the smallest block that gives the heads all four maps. It compiles in little time."""

  expansion = 1

  def __init__(self, channels, width, *, rngs):
    self.conv = Conv(channels, width, 1, rngs=rngs)

  def __call__(self, images, *, groups, shape):
    return jax.nn.relu(self.conv(images, stride=shape.stride))


@pytest.fixture(scope='module')
def published_files(tmp_path_factory):
  return published.write_archives(tmp_path_factory.mktemp('published'))


@pytest.fixture
def published_archives(published_files, monkeypatch):
  published.list_from_memory(published_files, monkeypatch)
  return published_files.folder


def share_batches(recipe):
  """Smaller batch-norm groups, because the tests have eight devices, which share a batch of 32."""
  for stage in recipe.stages.values():
    for task_config in stage.get('tasks', {}).values():
      task_config.group = 4
  return recipe


@pytest.fixture(autouse=True)
def no_costs(monkeypatch):
  """To trace every step at full scale takes a minute; tests/report/test_costs.py has small ones."""
  monkeypatch.setattr(stages.costs, 'measure', lambda config: None)
  monkeypatch.setattr(stages.dry_run, 'describe_cost', lambda *_: [])


def plan(recipe, archives, folder, capsys):
  """The printed lines of a dry run, split into stages: {stage: lines}."""
  data = archives.with_name(f'{archives.name}_data')  # one for all plans: tables that were read for it are kept
  recipe.workdir, recipe.data.archives, recipe.data.dir = str(folder / 'runs'), str(archives), str(data)
  # Left out, because it takes half a minute at this scale; tests/report/test_costs.py has it.
  with mock.patch.object(stages.costs, 'measure'), mock.patch.object(stages.dry_run, 'describe_cost', return_value=[]):
    stages.print_plan(share_batches(recipe))
  printed, name = {}, ''
  for line in filter(None, capsys.readouterr().out.splitlines()):
    if not line.startswith(' '):
      name = line.split(':')[0]
    printed.setdefault(name, []).append(' '.join(line.split()))
  assert not data.exists(), 'nothing is prepared'
  return printed


def test_the_plan_of_muscle_has_the_published_counts(published_archives, tmp_path, capsys):
  """MUSCLE's table (Liao et al. 2022): four tasks split 8 : 1 : 1, five datasets used whole. Its lung set counts 896
  image files, of which 704 can be used; it names 661 of 662 Shenzhen and 10,811 of 12,611 bone-age images."""
  printed = plan(mtpret.get_config('muscle'), published_archives, tmp_path, capsys)
  assert list(printed) == ['pretrain', 'continual', *tasks.muscle4]
  whole = 'every image, because no task uses it'
  for row in (f'nih_chest_xray 112,120 0 0 {whole}', f'shenzhen_cxr 662 0 0 {whole}', f'montgomery_cxr 138 0 0 {whole}',
              f'indiana_cxr 7,470 0 0 {whole}', f'rsna_bone_age 12,611 0 0 {whole}', 'kermany_pneumonia 4,686 585 585',
              'mura 32,013 3,997 3,995', 'lung_masks 564 70 70', 'tbx11k 640 80 80'):
    assert row in printed['pretrain']
  for row in ('pneumonia 4,686 585 585 of kermany_pneumonia', 'abnormality 32,013 3,997 3,995 of mura',
              'lung 564 70 70 of lung_masks', 'tuberculosis 639 80 80 of tbx11k; without a usable label: 1 train'):
    assert row in printed['continual']
  epochs = 132_000 * 256 / 170_904
  assert '132,000 steps' in printed['pretrain'][-1] and f'{epochs:.1f} epochs' in printed['pretrain'][-1]
  visits = {'pneumonia': 4686 // 32, 'abnormality': 32013 // 32, 'lung': 20, 'tuberculosis': 20}  # at least 20 steps
  for line, (name, length) in zip(printed['continual'][-4:], visits.items(), strict=True):
    assert line.startswith(f'{name}: ') and f'10 visits of {length:,} steps' in line
  for name in tasks.muscle4:
    assert '50.0 epochs' in printed[name][-1]


def test_the_plan_of_mtpret_has_seven_tasks_and_two_external_ones(published_archives, tmp_path, capsys):
  printed = plan(mtpret.get_config('mtpret'), published_archives, tmp_path, capsys)
  assert list(printed) == ['pretrain', 'continual', *tasks.mtpret7, *tasks.external2]
  assert [line.split()[0] for line in printed['pretrain'][2:-2]] == list(common.mtpret11)
  assert 'rsna_bone_age 10,089 1,261 1,261' in printed['pretrain']  # a task uses it: 12,611 images, 8 : 1 : 1
  assert 'jaw 94 11 11 of panoramic_dental' in printed['continual']
  assert not any(name in line for name in EXTERNAL for line in printed['pretrain'] + printed['continual'])
  # The 10,606 normal images of VinBigData are no training images of the detector, but its test split has a tenth.
  assert any(re.match(r'findings 3,[\d,]+ 1,500 1,500 of vinbigdata_cxr; without a usable label: [\d,]+ train$', line)
             for line in printed['findings'])
  assert 'fracture 3,269 407 407 of frac_atlas' in printed['fracture']


def test_a_plan_keeps_the_fraction_of_the_patients_that_the_run_would_keep(published_archives):
  config = get_config('real,knee')
  config.data.update(archives=str(published_archives), fraction=0.1)
  strata = collections.Counter(row['stratum'] for row in image_counts.list_rows('knee_oa', config)
                               if row['splits']['patient'] == 'train')
  kept = image_counts.count_images(config)['knee'].splits['train']
  assert kept == sum(math.ceil(0.1 * images) for images in strata.values())  # each knee is a patient here
  config.data.fraction = 1.0
  assert image_counts.count_images(config)['knee'].splits['train'] == strata.total()


@pytest.mark.parametrize('changes, message', [
  ({'stages.continual.order': 'sequential', 'stages.continual.memory.anchor': 'none'},
   r"stage pneumonia: init='mtpret', but the run in .* is 'muscle--' .*--config.stages.pneumonia.init=muscle--"),
  ({'stages.lung.trunk': 'resnet18'},
   r"stage lung: trunk='resnet18', but the run in .* trains 'resnet50': set --config.stages.lung.trunk=resnet50"),
  ({'stages.lung.data.split': 'patient'}, r'stage lung: the run in .* used lung_masks with data.split=.paper.')])
def test_stages_that_do_not_fit_each_other_are_refused_before_anything_is_prepared(changes, message, tmp_path):
  recipe = share_batches(mtpret.get_config('muscle'))
  recipe.workdir = str(tmp_path)
  recipe.update_from_flattened_dict(changes)
  with pytest.raises(ConfigError, match=message):
    stages.check_run(recipe)


@pytest.mark.parametrize('start', [stages.print_plan, stages.prepare_stages])
def test_a_plan_and_a_recipe_list_the_missing_archives_of_all_stages(start, tmp_path):
  recipe = share_batches(mtpret.get_config('muscle'))
  recipe.workdir, recipe.data.archives, recipe.data.dir = str(tmp_path / 'runs'), str(tmp_path), str(tmp_path)
  with pytest.raises(ConfigError, match='9 of 9 datasets are neither in (.*\n){9}'):
    start(recipe)


def test_a_plan_is_refused_where_a_split_has_no_image(published_archives, tmp_path):
  recipe = share_batches(mtpret.get_config('muscle'))
  recipe.workdir, recipe.data.archives, recipe.data.split = str(tmp_path), str(published_archives), 'official'
  del recipe.stages['pretrain'], recipe.stages['continual']
  recipe.stages.lung.init, recipe.stages.lung.init_from = 'scratch', ''
  for name in ('pneumonia', 'abnormality', 'tuberculosis'):
    del recipe.stages[name]
  with pytest.raises(ConfigError, match='stage lung: tasks.lung: the train split of lung_masks by the split rule '
                                        "'official' has no image with a usable label"):
    stages.print_plan(recipe)


@pytest.fixture(scope='module')
def miniature(tmp_path_factory):
  """(archives, data): phantoms of all datasets of the two recipes; the recipes prepare them in the same folder."""
  root = tmp_path_factory.mktemp('miniature')
  for name in (*common.mtpret11, *EXTERNAL):
    phantoms.write(name, root / 'archives', images=IMAGES.get(name, OTHERS), size=48, seed=0, processes=1)
  return root / 'archives', root / 'data'


def shrink(recipe, miniature, workdir):
  """The recipe with the smallest trunk, small images and few steps. Datasets, tasks and splits stay."""
  recipe.workdir, recipe.data.archives, recipe.data.dir = str(workdir), *map(str, miniature)
  for stage in recipe.stages.values():
    stage.update(trunk=TRUNK, dtype='float32', save_every=100)
    stage.data.update(workers=0, stored_size='256')
  first = recipe.stages.pretrain
  first.update(steps=2, batch=16)
  first.moco.update(group=2, shuffle_groups=2, dim=16, queue=16)
  first.augment = common.moco_v2_augment(32)
  first.data.size = 40
  first.probe.update(images=8, resamples=2)
  for name, stage in recipe.stages.items():
    if name != 'pretrain':
      small = tasks.embedded(stage.tasks, steps=1)
      for task_config in small.values():
        if 'width' in task_config.head:
          task_config.head.width = 8
      for task, task_config in stage.tasks.items():
        task_config.update(size=36, batch=16, group=2, steps=1, head=small[task].head)
        task_config.augment = common.labelled_augment(32)
      stage.update(rounds=min(stage.rounds, 2), resamples=2, validations=1)
  return recipe


@pytest.mark.slow
@pytest.mark.parametrize('variant, names', [('muscle', tasks.muscle4), ('mtpret', (*tasks.mtpret7, *tasks.external2))])
def test_a_papers_recipe_runs_to_its_end(variant, names, miniature, tmp_path, monkeypatch):
  monkeypatch.setitem(resnet.LAYERS, TRUNK, (PointwiseBlock, (1, 1, 1, 1)))
  monkeypatch.setattr(resnet, 'WIDTHS', (8, 16, 24, 32))
  monkeypatch.setattr(backend, 'OVERRIDES', {})
  monkeypatch.setattr(jax, 'devices', lambda *_, first=jax.devices()[:1]: first)  # eight would take longer
  stages.run_recipe(shrink(mtpret.get_config(variant), miniature, tmp_path))
  assert list(json.loads((tmp_path / 'scores.json').read_text())) == list(names)
  for name in names:
    scores = json.loads((tmp_path / name / 'scores.json').read_text())
    first, second = scores['pretraining']['runs']
    assert scores['split_rule'] == first['split_rule'] == second['split_rule'] == 'paper'
    assert first['datasets'] == list(common.muscle9 if variant == 'muscle' else common.mtpret11)
    assert {'nih_chest_xray', 'shenzhen_cxr', 'montgomery_cxr', 'indiana_cxr'} <= set(first['whole'])
    # Only the lung masks are of images that stage 1 saw whole, as in MUSCLE.
    assert bool(scores['pretraining']['notes']) == (name == 'lung')


def test_the_stages_of_a_recipe_move_with_its_workdir_and_start_where_the_earlier_one_is():
  recipe = mtpret.get_config('smoke')
  recipe.workdir = 'elsewhere'
  assert [stage.workdir for stage in recipe.stages.values()] == [f'elsewhere/{name}' for name in recipe.stages]
  assert recipe.stages.continual.init_from == 'elsewhere/pretrain'
  recipe.stages.pretrain.workdir = 'runs/another'
  recipe.stages.continual.workdir = 'third'
  assert recipe.stages.continual.init_from == 'runs/another'
  later = [stage for name, stage in recipe.stages.items() if name not in ('pretrain', 'continual')]
  assert {stage.init_from for stage in later} == {'third'}
