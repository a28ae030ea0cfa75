"""Pictures of an image with what the model predicts for it, drawn as the kind of task draws its predictions."""

import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.tasks.task import About, Row

LONGEST = 6.0  # inches of the longer side of the image; title and numbers are added around it
DPI = 110


def write_overlay(path: pathlib.Path, draw: Callable[[Any, About, Row, Row], None], about: About,
                  image_HW: np.ndarray, size: tuple[int, int], prediction: Mapping[str, np.ndarray],
                  title: str) -> None:
  """Writes a PNG.

  Args:
    path: of the PNG; its folder is made.
    draw: `TaskKind.draw`.
    about: of the task.
    image_HW: uint8, as the model reads it, before it is stretched to a square.
    size: (height, width) of the image itself, which gives the shape of the picture.
    prediction: for this image.
    title: above the picture.
  """
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  height, width = (LONGEST * side / max(size) for side in size)
  figure = Figure(figsize=(width, height))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.imshow(image_HW, cmap='gray', extent=(0, 1, 1, 0), aspect=size[0] / size[1])
  axes.set(xticks=[], yticks=[])
  axes.set_title(title, fontsize=8, parse_math=False)
  draw(axes, about, {}, dict(prediction))
  drawn = io.BytesIO()
  figure.savefig(drawn, format='png', dpi=DPI, bbox_inches='tight', pad_inches=0.1)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, drawn.getvalue())
