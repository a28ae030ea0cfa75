"""Pictures of an image with what the model predicts for it, drawn as the kind of task draws its predictions."""

import io
import pathlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.runtime.pictures import plain_text
from mtpret_jax.tasks.task import About, TaskKind

LONGEST = 6.0  # inches of the longer side of the image; title and numbers are added around it
DPI = 110


@plain_text()
def write_overlay(path: pathlib.Path, kind: TaskKind, about: About, image_HW: np.ndarray, size: tuple[int, int],
                  prediction: Mapping[str, np.ndarray], title: str,
                  thresholds: Mapping[str, float] = MappingProxyType({})) -> None:
  """Writes a PNG. If the prediction says what it comes from, a second picture beside the first shows that.

  Args:
    path: of the PNG; its folder is made.
    kind: of the task.
    about: of the task.
    image_HW: uint8, as the model reads it, before it is stretched to a square.
    size: (height, width) of the image itself, which gives the shape of the picture.
    prediction: for this image.
    title: above the picture.
    thresholds: {finding or class of boxes: its operating point}.
  """
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  height, width = (LONGEST * side / max(size) for side in size)
  explains = kind.draw_activation is not None and 'activation' in prediction
  figure = Figure(figsize=(width * (1 + explains), height))
  panels = figure.subplots(1, 1 + explains, squeeze=False,
                           gridspec_kw={'left': 0, 'right': 1, 'bottom': 0, 'top': 1, 'wspace': 0.02})[0]
  for axes in panels:
    axes.imshow(image_HW, cmap='gray', extent=(0, 1, 1, 0), aspect=size[0] / size[1])
    axes.set(xticks=[], yticks=[])
  panels[0].set_title(title, fontsize=8)
  kind.draw(panels[0], {**about, 'thresholds': thresholds}, {}, dict(prediction))
  if kind.draw_activation is not None and explains:
    kind.draw_activation(panels[1], about, {}, dict(prediction))
  drawn = io.BytesIO()
  figure.savefig(drawn, format='png', dpi=DPI, bbox_inches='tight', pad_inches=0.1)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, drawn.getvalue())
