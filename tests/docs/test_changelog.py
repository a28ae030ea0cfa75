"""CHANGELOG.md lists every config field with a new name."""

from mtpret_jax.config.renamed import RENAMED
from tests.support.paths import ROOT


def test_every_renamed_field_is_listed():
  text = (ROOT / 'CHANGELOG.md').read_text()
  for old, new in RENAMED.items():
    row = f'| `{old}` | `{new}` |' if new else f'`{old}`'
    assert row.replace('*', 'TASK') in text
