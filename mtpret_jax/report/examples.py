"""Pictures of predictions: a grid of images with their labels and what the model predicts."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtpret_jax.runtime.pictures import plain_text
from mtpret_jax.tasks import TaskKind

if TYPE_CHECKING:
  from matplotlib.figure import Figure

COLUMNS = 4


@plain_text()
def draw_examples(path: str | os.PathLike, kind: TaskKind, examples: Sequence[Mapping[str, Any]], title: str) -> None:
  """Writes a PNG with one cell per example of `evaluation.predict.collect_examples`."""
  make_figure(kind, examples, title).savefig(path, dpi=110)


@plain_text()
def draw_picture(kind: TaskKind, examples: Sequence[Mapping[str, Any]], title: str) -> np.ndarray:
  """The same as (H, W, 3) uint8, for TensorBoard."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  canvas = FigureCanvasAgg(make_figure(kind, examples, title))
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3]


def make_figure(kind: TaskKind, examples: Sequence[Mapping[str, Any]], title: str) -> 'Figure':
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  rows = -(-len(examples) // COLUMNS)
  figure = Figure(figsize=(2.2 * COLUMNS, 2.6 * rows + 0.4))
  for index, example in enumerate(examples):
    axes = figure.add_subplot(rows, COLUMNS, index + 1)
    axes.imshow(example['image'], cmap='gray', extent=(0, 1, 1, 0))  # y grows downwards, as in the boxes
    axes.set(xticks=[], yticks=[])
    kind.draw(axes, example['about'], example['labels'], example['prediction'])
  figure.suptitle('\n'.join(filter(None, (title, kind.legend))), fontsize=9)
  figure.tight_layout(pad=0.5)
  return figure
