"""How messages show what others wrote."""

import pytest

from mtpret_jax.config.errors import MAX_LINE, MAX_VALUE, as_line, show


@pytest.mark.parametrize('shorten, most', [(as_line, MAX_LINE), (show, MAX_VALUE)])
def test_long_text_ends_with_a_whole_word(shorten, most):
  short = shorten('radiograph ' * 100)
  assert len(short) <= most and short.endswith(' radiograph ...')


def test_a_line_has_no_line_ends_and_no_control_characters():
  assert as_line('a\n  b\x1b[0m') == 'a b\\x1b[0m'
