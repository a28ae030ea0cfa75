"""Labels that name a side of the body: a flip swaps them, or is refused."""

import pytest
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.tasks import sides
from mtpret_jax.tasks.split_checks import check_flip, check_flips
from tfds_builders import build


@pytest.mark.parametrize('names, mirror', [
  (['left lung', 'right lung'], (1, 0)),
  (['background', 'Lung_L', 'heart', 'Lung_R'], (0, 3, 2, 1)),
  (['lungL', 'lungR'], (1, 0)),
  (['L', 'R'], (1, 0)),
  (['effusion sin.', 'effusion dex.'], (1, 0)),
  (['Ventriculus sinister', 'ventriculus dexter'], (1, 0)),
  (['Mandible Lt', 'mandible Rt'], (1, 0)),
  (['Hüfte links', 'Hüfte rechts'], (1, 0)),
  (['Linke Lunge', 'Rechte Lunge'], (1, 0)),
  (['Linker Oberlappen', 'rechter Oberlappen', 'linkes Knie', 'rechtes Knie'], (1, 0, 3, 2)),
  (['Erguss der linken Lunge', 'Erguss der rechten Lunge'], (1, 0)),
  (['polmone sx', 'polmone dx'], (1, 0)),
  (['poumon gauche', 'poumon droit'], (1, 0)),
  (['hanche gauche', 'hanche droite'], (1, 0)),
  (['pulmón izquierdo', 'pulmón derecho', 'cadera izquierda', 'cadera derecha'], (1, 0, 3, 2)),
  (['hip left upper', 'hip left lower', 'hip right upper', 'hip right lower'], (2, 3, 0, 1))])
def test_a_flip_swaps_the_two_sides(names, mirror):
  assert sides.find_mirror(names) == mirror
  assert sides.find_unpaired(names) == []


@pytest.mark.parametrize('names', [
  ['cleft palate', 'L4', 'L5', 'copyright mark', 'sinusitis', 'index'],  # parts of words name no side
  ['left-right shunt'],  # nor do both sides in one name
  ['no finding', 'pneumonia']])
def test_other_names_have_no_side(names):
  assert sides.find_mirror(names) is None
  assert sides.find_unpaired(names) == []


@pytest.mark.parametrize('names, unpaired', [
  (['left lung', 'heart'], ['left lung']),
  (['left lung', 'right kidney'], ['left lung', 'right kidney']),
  (['upper left lobe', 'upper right lobe', 'lower left lobe'], ['lower left lobe']),
  (['left lung', 'Left_Lung', 'right lung'], ['left lung', 'Left_Lung', 'right lung'])])  # which one is the other side?
def test_a_side_without_the_other_is_found(names, unpaired):
  assert sorted(sides.find_unpaired(names)) == sorted(unpaired)


def test_no_bundled_dataset_names_a_side():
  """Their training stays what it was."""
  for name in build.NAMES:
    about = build.declared_metadata(name)
    for names in (about['findings'], about['mask'], about['box_classes']):
      assert (sides.find_mirror(names), sides.find_unpaired(names)) == (None, []), name


@pytest.mark.parametrize('kind, about', [
  ('classification', {'findings': ['left effusion', 'cast']}),
  ('segmentation', {'mask': ['background', 'left lung']}),
  ('detection', {'box_classes': ['hip_l']})])
def test_a_flip_that_would_make_labels_wrong_is_refused_with_the_remedy(kind, about):
  task_config = ConfigDict(dict(kind=kind, dataset='clinic', findings=(), augment=dict(flip=0.5)))
  with pytest.raises(ConfigError, match='names one side') as caught:
    check_flip('clinic', task_config, about)
  assert caught.value.remedy == {'tasks.clinic.augment.flip': 0.0}
  task_config.augment.flip = 0.0
  check_flip('clinic', task_config, about)


def test_findings_that_the_task_does_not_ask_for_do_not_count():
  task_config = ConfigDict(dict(kind='classification', dataset='clinic', findings=('cast',), augment=dict(flip=0.5)))
  check_flip('clinic', task_config, {'findings': ['left effusion', 'cast']})
  task_config.findings = ('left effusion',)
  with pytest.raises(ConfigError):  # its other side is no label of the task
    check_flip('clinic', task_config, {'findings': ['left effusion', 'right effusion']})


@pytest.mark.parametrize('kind, about, said', [
  ('classification', {'findings': ['left effusion', 'cast']}, "'left effusion' of clinic names one side"),
  ('segmentation', {'mask': ['background', 'left lung']}, "'left lung' of clinic names one side"),
  ('detection', {'box_classes': ['hip_l']}, "'hip_l' of clinic names one side")])
def test_means_over_flips_are_refused_where_they_would_be_wrong(kind, about, said):
  config = ConfigDict(dict(flips=True, tasks=dict(clinic=dict(kind=kind, dataset='clinic', findings=()))))
  with pytest.raises(ConfigError, match=f'{said}.*try --config.flips=off'):
    check_flips(config, 'clinic', about, off='off')
  config.flips = False
  check_flips(config, 'clinic', about)
