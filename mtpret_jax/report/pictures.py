"""Pictures of the best and the worst predictions of a split, in the folder `pictures/` of a run."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mtpret_jax.evaluation.cases import BEST, WORST
from mtpret_jax.report.pages.pictures import CAPTIONS, FOLDER
from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.runtime.pictures import optional_picture, plain_text
from mtpret_jax.tasks import TaskKind, find_kind

TITLES = {WORST: 'Worst cases', BEST: 'Best cases'}
ORDERS = {WORST: 'largest errors, the largest first', BEST: 'smallest errors, the smallest first'}
COLUMNS = 4
HEAT = ('Below each: Grad-CAM of the finding that contradicts its label most, or else of the likeliest one. The '
        'redder a place, the more it raises the probability, on the {} x {} places of the last feature map.')

Example = Mapping[str, Any]


def draw_cases(workdir: pathlib.Path, kinds: Mapping[str, str],
               cases: Mapping[str, Mapping[str, Sequence[Example]]]) -> list[pathlib.Path]:
  """Writes a PNG for each task and each end, and `captions.json`: [{'file', 'title', 'caption', 'task'}]. A warning
  names each picture that cannot be drawn.

  Args:
    kinds: {task: its kind}.
    cases: {task: {'worst' and 'best': examples of `evaluation.predict.collect_examples`}}.
  """
  folder, paths, captions = pathlib.Path(workdir, FOLDER), [], []
  for name, ends in cases.items():
    kind = find_kind(kinds[name])
    for end, examples in ends.items():
      if not examples:
        continue
      folder.mkdir(parents=True, exist_ok=True)
      path = folder / f'{name}_{end}.png'
      with optional_picture(path.name):
        draw_grid(path, kind, examples)
        captions.append({'file': path.name, 'title': f'{TITLES[end]}: {name}', 'task': name,
                         'caption': describe(kind, examples, end)})
        paths.append(path)
  if captions:
    write_atomically(folder / CAPTIONS, json.dumps(captions, indent=1))
  return paths


def describe(kind: TaskKind, examples: Sequence[Example], end: str) -> str:
  caption = f'The {len(examples)} images with the {ORDERS[end]}. {kind.legend}'.strip()
  if kind.draw_activation is None:
    return caption
  return f'{caption} {HEAT.format(*examples[0]["prediction"]["activation"].shape[:2])}'


@plain_text()
def draw_grid(path: pathlib.Path, kind: TaskKind, examples: Sequence[Example]) -> None:
  """A cell for each example: the image with its labels and prediction, and below it what the prediction comes from, if
  the kind of task can draw that."""
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  explains = kind.draw_activation is not None
  rows, columns = -(-len(examples) // COLUMNS), min(COLUMNS, len(examples))
  figure = Figure(figsize=(2.2 * columns, (4.9 if explains else 2.7) * rows))
  axes = figure.subplots((1 + explains) * rows, columns, squeeze=False)
  for cell in axes.flat[:]:
    cell.set_axis_off()
  for index, example in enumerate(examples):
    row, column = divmod(index, COLUMNS)
    cells = [axes[row * (1 + explains) + part, column] for part in range(1 + explains)]
    for cell in cells:
      cell.set_axis_on()
      cell.imshow(example['image'], cmap='gray', extent=(0, 1, 1, 0))  # y grows downwards, as in the boxes
      cell.set(xticks=[], yticks=[])
    cells[0].set_title(shorten(str(example['image_id'])), fontsize=7)
    kind.draw(cells[0], example['about'], example['labels'], example['prediction'])
    if kind.draw_activation is not None:
      kind.draw_activation(cells[1], example['about'], example['labels'], example['prediction'])
  figure.tight_layout(pad=0.5, h_pad=1.2)
  figure.savefig(path, dpi=110)


def shorten(name: str, most: int = 26) -> str:
  """The end of a long name, which tells images apart better than its beginning."""
  return name if len(name) <= most else f'…{name[1 - most:]}'
