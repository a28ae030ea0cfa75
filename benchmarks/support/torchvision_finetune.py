"""A training script of the usual kind with torchvision, for `benchmarks/finetune.py`: PNG files, transforms v2,
DataLoader, torchvision's models, AdamW, scores by scikit-learn or pycocotools with a plain bootstrap."""

import argparse
import json
import pathlib
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
import torchvision
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.support import side_by_side, torchvision_tasks
from tests.support import coco

Sample = tuple[torch.Tensor, dict[str, Any]]

class Files(Dataset):
  """One split of `task_files.py`."""

  def __init__(self, folder: pathlib.Path, kind: str, transform: Callable) -> None:
    self.folder, self.kind, self.transform = folder, kind, transform
    table = json.loads((folder / 'labels.json').read_text())
    self.rows, self.classes = table['images'], len(table['classes'])

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> Sample:
    row = self.rows[index]
    image = tv_tensors.Image(v2.functional.pil_to_tensor(PIL.Image.open(self.folder / row['image']).convert('L')))
    label: dict[str, Any] = {}
    if self.kind == 'classification':
      label['present'] = torch.tensor(row['present'])
    elif self.kind == 'segmentation':
      mask = PIL.Image.open(self.folder / row['image'].replace('.png', '_mask.png'))
      label['mask'] = tv_tensors.Mask(v2.functional.pil_to_tensor(mask))
    else:
      height, width = image.shape[-2:]
      boxes = torch.tensor(row['boxes']).reshape(-1, 4)[:, [1, 0, 3, 2]] * torch.tensor([width, height, width, height])
      label['boxes'] = tv_tensors.BoundingBoxes(boxes, format='XYXY', canvas_size=(height, width))
      label['labels'] = torch.tensor(row['class_id'], dtype=torch.int64) + 1
    return self.transform(image, label)


def make_transforms(size: int, augment: ConfigDict, is_detection: bool) -> tuple[Callable, Callable]:
  """(for training, for evaluation), with the numbers of our augmentation."""
  finish = [v2.ToDtype({tv_tensors.Image: torch.float32, 'others': None}, scale=True), v2.Normalize([0.5], [0.25])]
  boxes = [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()] if is_detection else []
  jitter = v2.RandomApply([v2.ColorJitter(augment.brightness, augment.contrast)], augment.jitter)
  train = [v2.RandomResizedCrop(size, augment.crop_area, augment.crop_ratio, antialias=True),
           v2.RandomHorizontalFlip(augment.flip), jitter, *boxes, *finish]
  return v2.Compose(train), v2.Compose([v2.Resize((size, size), antialias=True), *finish])


def collate(samples: Sequence[Sample]) -> tuple[torch.Tensor, list[dict[str, Any]]]:
  images, labels = zip(*samples, strict=True)
  return torch.stack(images), list(labels)


def compute_loss(kind: str, model: torch.nn.Module, images: torch.Tensor, labels: list[dict]) -> torch.Tensor:
  if kind == 'detection':
    return sum(model(list(images), labels).values())
  if kind == 'classification':
    return torch.nn.functional.binary_cross_entropy_with_logits(
      model(images), torch.stack([label['present'] for label in labels]).to(images.device))
  masks = torch.stack([label['mask'][0] for label in labels]).long().to(images.device)
  return torch.nn.functional.cross_entropy(model(images)['out'], masks, ignore_index=255)


@torch.inference_mode()
def predict(kind: str, model: torch.nn.Module, batches: DataLoader, device: str, layout: Any) -> dict[str, np.ndarray]:
  """Predictions and labels of a split, one row per image: `present` and `score`; `dice`; or the columns of
  `tests/support/coco.py`."""
  model.eval()
  infer, rows = torchvision_tasks.make_predict(kind), []
  for images, labels in batches:
    outputs = infer(model, images.to(device, memory_format=layout))
    rows += [make_row(kind, output, label, images.shape[-2:]) for output, label in zip(outputs, labels, strict=True)]
  model.train()
  columns: dict[str, np.ndarray] = {}
  for name in rows[0]:
    columns[name] = np.empty(len(rows), object)
    columns[name][:] = [row[name] for row in rows]
  return columns


def make_row(kind: str, output: Any, label: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
  if kind == 'classification':
    return {'score': float(output[0]), 'present': float(label['present'][0])}
  if kind == 'segmentation':
    found, true = output.cpu().numpy() == 1, label['mask'][0].numpy() == 1
    return {'dice': 2 * (found & true).sum() / max(found.sum() + true.sum(), 1)}
  scale, order = np.array([*size, *size]), [1, 0, 3, 2]
  return {'boxes': output['boxes'].cpu().numpy()[:, order] / scale, 'score': output['scores'].cpu().numpy(),
          'class_id': output['labels'].cpu().numpy() - 1, 'truth_boxes': label['boxes'].numpy()[:, order] / scale,
          'truth_class_id': label['labels'].numpy() - 1, 'sizes': np.array(size)}


def measure(kind: str, classes: int, rows: Mapping[str, np.ndarray], drawn: np.ndarray) -> float:
  """The headline score of the drawn images: AUC, mean Dice or AP50."""
  if kind == 'classification':
    present = rows['present'][drawn].astype(int)
    return roc_auc_score(present, rows['score'][drawn].astype(float)) if len(set(present)) > 1 else np.nan
  if kind == 'segmentation':
    return float(np.mean(rows['dice'][drawn]))
  if not any(map(len, rows['boxes'][drawn])):  # pycocotools reads no empty list
    return 0.0
  return float(coco.average(coco.evaluate(rows, drawn, classes)[:1]))


def draw_images(patients: Sequence[str], rng: np.random.Generator) -> np.ndarray:
  """A bootstrap resample of the patients, with all their images."""
  names, owners = np.unique(patients, return_inverse=True)
  return np.concatenate([np.flatnonzero(owners == patient) for patient in rng.integers(len(names), size=len(names))])


def make_parts(options: argparse.Namespace, config: ConfigDict,
               adamw: Mapping[str, Any]) -> tuple[dict[str, Callable[[], tuple[float, float]]], str]:
  """The parts of `benchmarks/finetune.py` and a description. `config` is that of our run."""
  if options.torch_threads:
    torch.set_num_threads(options.torch_threads)
  torch.manual_seed(0)
  random.seed(0)
  own, folder = config.tasks[options.task], pathlib.Path(options.folder)
  kind, device = own.kind, 'cuda' if torch.cuda.is_available() else 'cpu'
  transforms = make_transforms(options.size, own.augment, kind == 'detection')
  loaders = {split: DataLoader(
    Files(folder / split, kind, transforms[split != 'train']), options.batch, shuffle=split == 'train',
    drop_last=split == 'train', num_workers=options.workers, persistent_workers=options.workers > 0,
    collate_fn=collate) for split in ('train', 'validation', 'test')}
  classes = loaders['train'].dataset.classes
  model = torchvision_tasks.make_model(argparse.Namespace(kind=kind, model=options.model, size=options.size),
                                       classes, own.head)
  layout = torch.channels_last
  model = model.to(device, memory_format=layout)
  optimiser = torch.optim.AdamW(model.parameters(), **adamw, fused=True)

  def repeat() -> Iterator[tuple[torch.Tensor, list[dict]]]:
    while True:
      yield from loaders['train']

  batches = repeat()

  def train() -> tuple[float, float]:
    for _ in range(options.steps):
      images, labels = next(batches)
      optimiser.zero_grad()
      loss = compute_loss(kind, model, images.to(device, memory_format=layout),
                          [{name: value.to(device) for name, value in label.items()} for label in labels])
      loss.backward()
      optimiser.step()
      loss.item()
    return 0.0, 0.0

  def score(split: str) -> dict[str, np.ndarray]:
    rows = predict(kind, model, loaders[split], device, layout)
    value = measure(kind, classes, rows, np.arange(len(next(iter(rows.values())))))
    print(f'  torchvision, {split}: {value}', file=sys.stderr)
    return rows

  def validate() -> tuple[float, float]:
    score('validation')
    return 0.0, 0.0

  def test() -> tuple[float, float]:
    rows, rng = score('test'), np.random.default_rng(0)
    patients = [row['patient'] for row in loaders['test'].dataset.rows]
    began, processor = time.perf_counter(), side_by_side.read_processor_time()
    drawn = [measure(kind, classes, rows, draw_images(patients, rng)) for _ in range(options.plain)]
    np.nanpercentile(drawn, [2.5, 97.5])
    more = options.resamples / options.plain - 1
    return ((time.perf_counter() - began) * more, (side_by_side.read_processor_time() - processor) * more)

  return ({'training': train, 'validation': validate, 'test': test},
          f'torch {torch.__version__}, torchvision {torchvision.__version__} on {device}, '
          f'{torch.get_num_threads()} threads, {options.workers} loading processes')
