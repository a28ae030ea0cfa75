"""Runs without pictures: every PNG has one pixel, and there is no `report.html`.

Matplotlib takes half of the time of a run of a few steps, and most tests of runs do not look at pictures. Those that do
use the fixture `real_reports` of tests/conftest.py.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import cv2
import numpy as np

VARIABLE = 'MTPRET_TESTS_PLAIN_REPORTS'  # set in the environment of child processes
PIXEL = np.zeros((1, 1, 3), np.uint8)

Patches = list[tuple[Any, str, Callable]]  # module, name of a function that draws, what takes its place


def draw_pixel(name: str) -> Callable[..., pathlib.Path]:
  """A function that writes the PNG `name` into the workdir, which is one of its arguments."""
  def draw(*arguments: Any, **_: Any) -> pathlib.Path:
    path = next(argument for argument in arguments if isinstance(argument, pathlib.Path)) / name
    path.write_bytes(cv2.imencode('.png', PIXEL)[1].tobytes())
    return path
  return draw


def list_patches() -> Patches:
  from mtpret_jax import stages  # imported here, because a command must set up jax before this import
  from mtpret_jax.report import page, pretrain, rounds, scores
  return [
    (stages, 'draw_picture', lambda *_, **__: PIXEL), (stages, 'draw_views', lambda *_, **__: PIXEL),
    (pretrain, 'draw_shares', draw_pixel('labels.png')), (pretrain, 'draw_views', draw_pixel('views.png')),
    (pretrain, 'draw_neighbours', draw_pixel('neighbours.png')), (rounds, 'draw_rounds', draw_pixel('rounds.png')),
    (scores, 'draw_examples', lambda *_, **__: None), (scores, 'draw_cases', lambda *_, **__: []),
    (page, 'announce', lambda workdir: None)]


REAL: Patches = []  # what `plain` has replaced


@contextlib.contextmanager
def replaced(patches: Patches) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    for module, name, function in patches:
      stack.enter_context(mock.patch.object(module, name, function))
    yield


@contextlib.contextmanager
def plain() -> Iterator[None]:
  """Runs in this process and in the child processes that it starts draw nothing."""
  patches = list_patches()
  REAL[:] = [(module, name, getattr(module, name)) for module, name, _ in patches]
  with mock.patch.dict(os.environ, {VARIABLE: '1'}), replaced(patches):
    yield


def real() -> contextlib.AbstractContextManager[None]:
  """Within `plain`: runs in this process draw."""
  return replaced(REAL)


def obey_environment() -> None:
  """For the commands in this folder: they draw nothing if a test of `plain` has started them."""
  if VARIABLE in os.environ:
    for module, name, function in list_patches():
      setattr(module, name, function)
