"""Variation of the phantoms: exposures differ, labels stay true and visible, and nothing gives the label away."""

import json

import numpy as np
import pytest

from tfds_builders import phantoms
from tfds_builders.phantoms import studies, variation
from tfds_builders.phantoms.chest import sample_chest
from tfds_builders.phantoms.exposure import Exposure, seeded_rng
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.scene import Scene

NAMES = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura')


@pytest.fixture(scope='module')
def rendered():
  """{(name, variation): [(path, radiograph), ...]} of the first images."""
  return {(name, v): list(phantoms.render(name, 16, 64, seed=100, variation=v)) for name in NAMES for v in (0.0, 1.0)}


def rngs(count=200):
  return [np.random.default_rng(i) for i in range(count)]


@pytest.mark.parametrize('name', NAMES)
def test_variation_changes_images_but_not_what_they_show(name, rendered):
  for (path, plain), (path_too, varied) in zip(rendered[name, 0.0], rendered[name, 1.0], strict=True):
    assert path == path_too and plain.image.shape == varied.image.shape
    assert (plain.findings, plain.value, plain.sex) == (varied.findings, varied.value, varied.sex)
    assert np.abs(plain.image.astype(float) - varied.image).mean() > 2


def test_varied_images_are_reproducible_and_independent_of_their_number(rendered):
  for (path, many), (path_too, few) in zip(
      rendered['mura', 1.0], phantoms.render('mura', 3, 64, seed=100, variation=1.0), strict=False):
    assert path == path_too and np.array_equal(many.image, few.image) and many.boxes == few.boxes


@pytest.mark.parametrize('name', ['nih_chest_xray', 'kermany_pneumonia', 'mura'])
def test_a_finding_stays_in_the_varied_image(name, rendered):
  for _, radiograph in rendered[name, 1.0]:
    assert bool(radiograph.findings) == bool(radiograph.boxes)


def test_images_of_a_patient_differ_more_with_variation():
  """The same chest without noise, twice: the exposures of a varied archive differ in grey values and in position."""
  def differences(v):
    vendor = Vendor(photons=1e9, mark=0, shutter=0, variation=v)
    for patient in range(4):
      a, b = (studies.render_chest(0, 'test', Exposure('', patient, turn), 64, vendor).image.astype(float)
              for turn in (0, 1))
      yield np.abs(np.sort(a.ravel()) - np.sort(b.ravel())).mean()
  assert np.mean(list(differences(1.0))) > 2 * np.mean(list(differences(0.0)))


def test_a_smaller_variation_changes_less():
  vendor = Vendor()
  spread = [np.std([np.log(variation.vary_technique(Vendor(variation=v), rng).photons) for rng in rngs()])
            for v in (0.0, 0.5, 1.0)]
  assert spread[0] == 0 and 0.3 < spread[1] < 0.5 < spread[2] < 1
  assert variation.vary_technique(vendor, np.random.default_rng(0)) == vendor


def test_the_contrast_of_bone_depends_on_the_beam():
  beams = [variation.vary_beam(rng, 1.0) for rng in rngs()]
  ratios = [beam['bone'] / beam['soft'] for beam in beams]
  assert 2.0 < min(ratios) < 2.4 and 3.3 < max(ratios) < 4.2
  assert variation.vary_beam(np.random.default_rng(0), 0.0) == pytest.approx(variation.ATTENUATION)


def test_a_normal_heart_stays_normal_and_a_child_may_have_a_large_thymus():
  knobs = []
  for i, rng in enumerate(rngs()):
    adult = variation.vary_chest(sample_chest(rng), rng, 1.0)
    assert adult['ctr'] < 0.53 and adult['dome'][0] > 3
    child = sample_chest(seeded_rng('child', i), child=True)
    knobs.append(variation.vary_chest(child | {'thymus': rng.random()}, rng, 1.0)['knob'] - child['knob'])
  assert min(knobs) < 0.2 and max(knobs) > 2.4


def test_a_study_is_centred_near_the_site_of_pain():
  scene, region = Scene(20 * 1.16, 20 * 1.16, 4, centre=(1.0, 2.0)), {'fracture': np.zeros((93, 93), bool)}
  region['fracture'][20:24, 60:64] = True
  site = np.array([scene.x_W[60:64].mean(), scene.y_H[20:24].mean()])
  views = [variation.aim_at_site(scene, region, rng, 1.0) for rng in rngs()]
  assert {round(field, 1) for _, field in views} == {12.0}
  assert np.abs(np.mean([centre for centre, _ in views], 0) - site).max() < 0.3


def test_normal_studies_are_centred_like_abnormal_ones():
  """Otherwise the place that the image is centred on would reveal the label."""
  def shares(requested):
    """Where along the forearm each image is centred, as a share of its length."""
    for patient in range(20):
      site = studies.find_site(0, 'test', patient, 'FOREARM', requested, 1.0)
      (_, y), _ = variation.aim_at_site(*site, np.random.default_rng(patient), 1.0)
      yield (y - 30) / 25
  ill = [np.mean(list(shares(request))) for request in studies.PAINS]
  assert np.mean(ill) == pytest.approx(np.mean(list(shares(()))), abs=0.1)


def test_an_archive_of_another_variation_is_written_again(tmp_path):
  root = phantoms.write('mura', tmp_path, 2, size=64)
  before = sorted(root.rglob('image*.png'))[0].read_bytes()
  assert 'variation' not in json.loads((root / '.phantom.json').read_text())
  phantoms.write('mura', tmp_path, 2, size=64, variation=1.0)
  assert sorted(root.rglob('image*.png'))[0].read_bytes() != before
  assert json.loads((root / '.phantom.json').read_text())['variation'] == 1.0
