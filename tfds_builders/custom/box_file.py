"""The boxes of a custom dataset, boxes.json."""
import collections
import dataclasses
import logging
import pathlib
from collections.abc import Collection, Sequence
from concurrent import futures

from tfds_builders.common import boxes, coco_boxes, dataset, decoded, image_files, plain_text, records
from tfds_builders.common.coco import Coco, load_coco
from tfds_builders.custom.file_names import match_names, stem
from tfds_builders.custom.labels import TABLE, InvalidDataset

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Boxes:
  """What boxes.json says about the images at hand.

  Attributes:
    objects: {path below images/: boxes} of the images that it lists.
    doubtful: those of them with a rejected box or a crowd.
    rejects: of boxes and images.
    left_out: {reason: count}.
    annotations: their number without those left out.
  """
  objects: dict[str, list[boxes.Box]]
  doubtful: set[str]
  rejects: list[dataset.Reject]
  left_out: dict[str, int]
  annotations: int = 0


def load_boxes(root: pathlib.Path) -> Coco:
  """boxes.json; raises InvalidDataset."""
  try:
    return load_coco(root / 'boxes.json')
  except ValueError as error:
    raise InvalidDataset(str(error)) from error


def read_boxes(root: pathlib.Path, pictures: Collection[str], box_classes: Sequence[str]) -> Boxes:
  """Reads boxes.json. It may list images that are not at hand, as where one file is for training and test; they are
  left out. Raises InvalidDataset."""
  coco = load_boxes(root)
  picture_of = match_names({*coco.sizes, *(name for name, _ in coco.rejected)}, pictures)
  annotated = {coco.file_names[one.image_id] for one in coco.annotations if one.image_id in coco.file_names}
  names = [name for name in annotated if name in picture_of]
  with futures.ThreadPoolExecutor(records.WORKERS) as pool:
    sizes = pool.map(read_size, [root / 'images' / picture_of[name] for name in names])
    real_sizes = {name: size for name, size in zip(names, sizes, strict=True) if size}
  try:
    drawn = coco_boxes.place_boxes(coco, box_classes, real_sizes)
  except ValueError as error:
    raise InvalidDataset(str(error)) from error
  if drawn.scaled:
    name = drawn.scaled[0]
    width, height = coco.sizes[name] or (0, 0)
    log.warning('%s: %d images have more or fewer pixels than boxes.json states (first: %s, stated %g x %g, is %d x '
                '%d). Their boxes are scaled', coco.path, len(drawn.scaled), plain_text.escape(name), width, height,
                *real_sizes[name])
  objects: dict[str, list[boxes.Box]] = collections.defaultdict(list)
  for name in drawn.boxes.keys() & picture_of.keys():
    objects[picture_of[name]] += drawn.boxes[name]
  rejected = [(name, reason) for name, reason in drawn.rejected if not name or name in picture_of]
  crowds = {name: count for name, count in drawn.left_out.items() if name in picture_of}
  left_out = {coco_boxes.CROWD_LEFT_OUT: sum(crowds.values()),
              'image of boxes.json that is not in images/': len(coco.sizes.keys() - picture_of.keys())}
  return Boxes(
    objects, {picture_of[name] for name, _ in rejected if name} | {picture_of[name] for name in crowds},
    [dataset.Reject(stem(picture_of[name]) if name else '', 'boxes.json', reason) for name, reason in rejected],
    {reason: count for reason, count in left_out.items() if count},
    len(coco.annotations) - sum(drawn.left_out.values()))


def read_size(path: pathlib.Path) -> tuple[int, int] | None:
  """(width, height) of an image as displayed; None if it is unreadable: it is rejected when its pixels are read."""
  try:
    height, width = image_files.read_size(path)
  except decoded.Unreadable:
    return None
  return width, height


def check_boxes(root: pathlib.Path, entries: Sequence[dataset.Entry], drawn: Boxes) -> None:
  """Raises InvalidDataset if boxes.json has annotations, and no image has a box."""
  if entries and drawn.annotations and not any(entry.objects for entry in entries):
    raise InvalidDataset(
      f'{root / "boxes.json"} has {drawn.annotations} annotations, but none gives a box of an image in {TABLE}. Its '
      f'file_name must be the path below images/, such as {plain_text.escape(entries[0].image_id)} with its ending'
      f'{"; first reject: " + drawn.rejects[0].reason if drawn.rejects else ""}'[:1000])
