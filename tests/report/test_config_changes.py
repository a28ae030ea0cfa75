"""The page names the variant and the preset that a run's config is nearest to."""

import pytest

from configs import continual, finetune, presets
from mtpret_jax.report.pages.config_changes import Change, find_changes


@pytest.mark.parametrize('get_config, variant, preset, name', [
  (finetune.get_config, 'real,knee', 'base', 'configs/finetune.py:real,knee --config.preset=base'),
  (continual.get_config, 'real,knee,lung', 'small', 'configs/continual.py:real,knee,lung --config.preset=small'),
  (continual.get_config, 'muscle4', 'paper', 'configs/continual.py:muscle4 --config.preset=paper')])
def test_the_nearest_variant_has_its_preset(get_config, variant, preset, name):
  config = get_config(variant)
  config.preset = preset
  plain = presets.apply_preset(config)
  assert find_changes(plain.to_dict()) == (name, [])
  plain.seed = 7
  assert find_changes(plain.to_dict()) == (name, [Change('seed', '0', '7')])
