"""The parts of torchvision's Faster R-CNN with its FPN, for `benchmarks/detection_parts.py`. Needs torch and
torchvision."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torchvision
from ml_collections import ConfigDict
from torchvision.models.detection import FasterRCNN, roi_heads, rpn
from torchvision.models.detection.image_list import ImageList

from benchmarks.support.torchvision_tasks import make_detector

Parts = dict[str, Callable[[], Any]]


def build(trunk: str, classes: int, size: int, config: ConfigDict, draw: Callable) -> FasterRCNN:
  """torchvision's detector with anchors and proposals as in `config`. `draw(name, shape)` gives each array of its
  weights."""
  model = make_detector(trunk, classes, size, config)
  drawn = {name: torch.tensor(draw(name, tuple(array.shape))) for name, array in model.state_dict().items()
           if array.ndim}
  model.load_state_dict(drawn, strict=False)  # without counters such as `num_batches_tracked`
  return model.to(memory_format=torch.channels_last)


def make_parts(model: FasterRCNN, images_BHW1: np.ndarray, boxes_BM4: np.ndarray,
               class_BM: np.ndarray) -> tuple[Parts, str]:
  """({part: function that runs it}, description). Boxes are px, rows first; every slot holds a box."""
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model.to(device)
  pixels = torch.tensor(images_BHW1.transpose(0, 3, 1, 2)).to(device).to(memory_format=torch.channels_last)
  sizes = [tuple(images_BHW1.shape[1:3])] * len(images_BHW1)
  images = ImageList(pixels, sizes)
  targets = [{'boxes': torch.tensor(boxes[:, [1, 0, 3, 2]]).to(device),
              'labels': torch.tensor(classes + 1, dtype=torch.int64).to(device)}
             for boxes, classes in zip(boxes_BM4, class_BM, strict=True)]

  def run(training: bool) -> Any:
    model.train(training)
    maps = model.backbone(pixels)
    proposals, rpn_losses = model.rpn(images, maps, targets if training else None)
    found, losses = model.roi_heads(maps, proposals, sizes, targets if training else None)
    return sum({**rpn_losses, **losses}.values()) if training else found

  def train() -> None:
    model.zero_grad()
    run(True).backward()

  detect = torch.no_grad()(lambda: run(False))
  parts: Parts = {}
  for mode, whole in (('training', train), ('inference', detect)):
    own = list_parts(model, images, targets, training=mode == 'training') | {'whole': whole}
    parts |= {f'{mode}: {name}': part for name, part in own.items()}
  found = sum(len(own['boxes']) for own in detect())
  return parts, (f'torch {torch.__version__}, torchvision {torchvision.__version__} on {device}, '
                 f'{torch.get_num_threads()} thread(s); {found} detections')


def list_parts(model: FasterRCNN, images: ImageList, targets: Sequence[dict], *, training: bool) -> Parts:
  """Each part on inputs that are computed here once, in training with its gradient."""
  def differentiate(part: Callable, inputs: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> Callable:
    """A function that runs `part(*inputs)`, and in training its gradient."""
    model.train(training)
    leaves = [array.detach().requires_grad_(training) for array in inputs]

    def run() -> None:
      model.train(training)
      with torch.set_grad_enabled(training):
        outputs = part(*leaves)
      if training:
        wanted = [*(leaf for leaf in leaves if leaf is not images.tensors), *parameters]
        torch.autograd.grad(outputs, wanted, [torch.ones_like(output) for output in outputs], allow_unused=True)
    return run

  head, region = model.rpn, model.roi_heads
  sizes = images.image_sizes

  def run_rpn(*maps: torch.Tensor) -> tuple:
    return rpn.concat_box_prediction_layers(*head.head(list(maps)))

  def propose() -> Any:
    anchors = head.anchor_generator(images, levels)
    moved = head.box_coder.decode(deltas, anchors).view(len(sizes), -1, 4)
    return head.filter_proposals(moved, objectness, sizes, counts)[0]

  def match() -> Any:
    labels, matched = head.assign_targets_to_anchors(anchors, list(targets))
    return labels, head.box_coder.encode(matched, anchors)

  def align(*maps: torch.Tensor) -> tuple:
    return (region.box_roi_pool(OrderedDict(zip('0123', maps, strict=True)), rois, sizes),)

  def lose(objectness: torch.Tensor, deltas: torch.Tensor, logits: torch.Tensor, roi_deltas: torch.Tensor) -> tuple:
    return (*head.compute_loss(objectness, deltas, rpn_labels, rpn_deltas),
            *roi_heads.fastrcnn_loss(logits, roi_deltas, roi_labels, roi_targets))

  model.train(training)
  with torch.no_grad():
    features = model.backbone.body(images.tensors)
    levels = list(model.backbone.fpn(features).values())
    objectness, deltas = run_rpn(*levels)
    counts = [level.shape[2] * level.shape[3] * head.anchor_generator.num_anchors_per_location()[0] for level in levels]
    anchors, rois = head.anchor_generator(images, levels), propose()
    proposals = rois
    if training:
      rpn_labels, rpn_deltas = match()
      rois, _, roi_labels, roi_targets = region.select_training_samples(proposals, targets)
    aligned, = align(*levels[:4])
    logits, roi_deltas = region.box_predictor(region.box_head(aligned))
  parts = {
    'trunk': differentiate(lambda pixels: tuple(model.backbone.body(pixels).values()), [images.tensors],
                           [*model.backbone.body.parameters()]),
    'FPN': differentiate(lambda *maps: tuple(model.backbone.fpn(OrderedDict(zip('0123', maps, strict=True))).values()),
                         [*features.values()], [*model.backbone.fpn.parameters()]),
    'RPN head': differentiate(run_rpn, levels, [*head.head.parameters()]),
    'proposals': torch.no_grad()(propose),
    'RoI align': differentiate(align, levels[:4], []),
    'RoI head': differentiate(lambda aligned: region.box_predictor(region.box_head(aligned)), [aligned],
                              [*region.box_head.parameters(), *region.box_predictor.parameters()])}
  if not training:
    return parts | {'detections': torch.no_grad()(
      lambda: region.postprocess_detections(logits, roi_deltas, rois, sizes))}
  return parts | {'RPN targets': torch.no_grad()(match),
                  'RoI targets': torch.no_grad()(lambda: region.select_training_samples(proposals, targets)),
                  'losses': differentiate(lose, [objectness, deltas, logits, roi_deltas], [])}
