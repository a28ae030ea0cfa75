"""The tests of reports look at pictures, so runs and reports draw them here."""

import pytest


@pytest.fixture(scope='module', autouse=True)
def draw(real_reports: None) -> None:
  pass
