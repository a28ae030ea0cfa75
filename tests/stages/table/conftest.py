"""Fixtures of a table whose runs are not trained."""

import contextlib

import pytest

from configs import table
from mtpret_jax.stages.table import run
from tests.support.changed import change


@pytest.fixture
def config(tmp_path, monkeypatch):
  monkeypatch.setattr(run, 'prepare', lambda config: None)
  monkeypatch.setattr(run, 'list_too_few', lambda config: [])
  monkeypatch.setattr(run, 'POLL', 0.01)
  return change(table.get_config('smoke'), workdir=str(tmp_path), inits=('scratch', 'moco', 'md_moco', 'mtpret'),
                fractions=(0.5, 1.0))


@pytest.fixture
def take():
  """take(queue) -> the name of the run that a process takes. It keeps the lock until the test ends."""
  with contextlib.ExitStack() as stack:
    yield lambda queue: queue.take(stack)
