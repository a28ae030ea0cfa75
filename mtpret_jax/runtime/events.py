"""TensorBoard: one event file for each start of a run, which all of its parts share."""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

FOLDER = 'tensorboard'

# Measure of a step -> (its name in TensorBoard, what TensorBoard says about it).
SCALARS = {
  'loss': ('loss', 'the loss of training, the mean over the steps since the last point'),
  'accuracy': ('contrastive_accuracy', 'how often a query is closer to its own key than to every negative'),
  'accuracy_batch': ('contrastive_accuracy_in_batch', 'the same among the keys of the batch; chance is 1 / batch'),
  'agreement': ('similarity_of_two_views', 'mean cosine of query and key; 1: the two views look the same'),
  'spread': ('spread', '0: all images have one embedding (collapse); 1: their mean is the centre'),
  'uniformity': ('uniformity', 'log mean exp(-2 d^2) between images of a batch; 0: collapse; about -4: even'),
  'queue_filled': ('queue_filled', 'share of the queue that holds keys of images; the rest is random'),
  'gradient': ('gradient_norm', 'norm of the gradient, before clipping'),
  'pull_ratio': ('memory_pull', "norm of the memory's pull over that of the loss's gradient"),
  'drift': ('distance_from_anchor', 'how far the trunk is from the weights that the memory keeps'),
  'learning_rate': ('learning_rate', 'learning rate of the heads, and of the trunk before its scale'),
  'images_per_second': ('images_per_second', 'images learned from in a second; compiling and validation do not count'),
  'waited': ('waiting_for_data', 'share of the time in which the device waited for images')}
SHARED = ('images_per_second', 'waited')  # of all tasks together

opened: dict[pathlib.Path, SummaryWriter] = {}


@contextlib.contextmanager
def open_events(workdir: str | pathlib.Path) -> Iterator[SummaryWriter]:
  """The event file of the run in `workdir`. Whoever opens it inside the block of another gets the same one."""
  path = pathlib.Path(workdir).absolute()
  if path in opened:
    yield opened[path]
    opened[path].flush()  # so that TensorBoard shows it at once
    return
  with contextlib.closing(SummaryWriter(str(path / FOLDER))) as events:
    opened[path] = events
    try:
      yield events
    finally:
      del opened[path]


def mark_start(events: SummaryWriter, start: int) -> None:
  """Makes TensorBoard drop what an interrupted run wrote for steps after `start`: they are taken again."""
  events.file_writer.add_event(Event(step=start + 1, file_version='brain.Event:2'))
  events.file_writer.add_event(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))


def add_measure(events: SummaryWriter, group: str, measure: str, value: float, step: int) -> None:
  """Adds a measure of a step under its name in SCALARS; one that is not there keeps its own."""
  name, about = SCALARS.get(measure, (measure, ''))
  events.add_scalar(f'{"speed" if measure in SHARED else group}/{name}', value, step, summary_description=about)


def add_picture(events: SummaryWriter, name: str, pixels_HWC: np.ndarray, step: int) -> None:
  """Adds a picture, (H, W, 3) uint8."""
  events.add_image(name, pixels_HWC, step, dataformats='HWC')


def add_file(events: SummaryWriter, name: str, path: pathlib.Path, step: int) -> None:
  """Adds a PNG file."""
  with Image.open(path) as picture:
    add_picture(events, name, np.asarray(picture.convert('RGB')), step)
