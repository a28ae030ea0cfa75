"""torchvision's models of a task, their losses and their training step, for `task_step.py`.

All have one grey input channel. torchvision refuses to dilate a ResNet-18, so `dilate` does it by the same rule as
ours (`mtpret_jax/models/resnet.py:shape_block`).
"""

import argparse
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from ml_collections import ConfigDict
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3


def make_classifier(trunk: str, classes: int) -> nn.Module:
  model = torchvision.models.get_model(trunk, num_classes=classes)
  model.conv1 = make_grey_stem()
  return model


def make_segmenter(trunk: str, classes: int) -> nn.Module:
  """`deeplabv3_resnet50` without its auxiliary head, or the same on another trunk."""
  if trunk == 'resnet50':
    model = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes)
  else:
    resnet = torchvision.models.get_model(trunk)
    dilate(resnet.layer3, 2)
    dilate(resnet.layer4, 4)
    layers = torchvision.models._utils.IntermediateLayerGetter(resnet, {'layer4': 'out'})
    model = DeepLabV3(layers, DeepLabHead(resnet.fc.in_features, classes))
  model.backbone.conv1 = make_grey_stem()
  return model


def dilate(blocks: nn.Sequential, dilation: int) -> None:
  """Takes the stride out of a stage of basic blocks. Its first convolution keeps half the dilation."""
  blocks[0].downsample[0].stride = (1, 1)
  for index, block in enumerate(blocks):
    for conv, own in ((block.conv1, dilation if index else dilation // 2), (block.conv2, dilation)):
      conv.stride, conv.dilation, conv.padding = (1, 1), (own, own), (own, own)


def make_detector(trunk: str, classes: int, size: int, numbers: ConfigDict) -> nn.Module:
  """`fasterrcnn_resnet50_fpn`, whose batch norm trains, or the same on another trunk. `numbers` is the config of our
  head. The images keep their size."""
  backbone = resnet_fpn_backbone(backbone_name=trunk, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
  backbone.body.conv1 = make_grey_stem()
  anchors = AnchorGenerator(numbers.anchor_sizes, (numbers.aspect_ratios,) * len(numbers.anchor_sizes))
  before, after = zip(numbers.rpn_proposals_train, numbers.rpn_proposals_test, strict=True)
  return torchvision.models.detection.FasterRCNN(
    backbone, classes + 1, min_size=size, max_size=size, image_mean=[0.0], image_std=[1.0], _skip_resize=True,
    rpn_anchor_generator=anchors, rpn_pre_nms_top_n_train=before[0], rpn_pre_nms_top_n_test=before[1],
    rpn_post_nms_top_n_train=after[0], rpn_post_nms_top_n_test=after[1])


def make_grey_stem() -> nn.Conv2d:
  return nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)


def make_model(options: argparse.Namespace, classes: int, detector: ConfigDict) -> nn.Module:
  if options.kind == 'detection':
    return make_detector(options.model, classes, options.size, detector)
  return {'classification': make_classifier, 'segmentation': make_segmenter}[options.kind](options.model, classes)


def make_loss(kind: str, labels: Mapping[str, np.ndarray], size: int,
              device: str) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
  """loss(model, images). `labels` are those of our batch, see `task_step.make_labels`."""
  on_device = {name: torch.from_numpy(rows).to(device) for name, rows in labels.items()}
  if kind == 'classification':
    return lambda model, images: F.binary_cross_entropy_with_logits(model(images), on_device['present'])
  if kind == 'segmentation':
    mask = on_device['mask'].long()
    return lambda model, images: F.cross_entropy(model(images)['out'], mask, ignore_index=-1)
  targets = [{'boxes': boxes[:, [1, 0, 3, 2]] * size, 'labels': class_id.long() + 1}
             for boxes, class_id in zip(on_device['boxes'], on_device['class_id'], strict=True)]
  return lambda model, images: sum(model(list(images), targets).values())


def make_predict(kind: str) -> Callable[[nn.Module, torch.Tensor], Any]:
  """predict(model, images) -> what our task of this kind predicts."""
  return {'classification': lambda model, images: torch.sigmoid(model(images)),
          'segmentation': lambda model, images: model(images)['out'].argmax(1),
          'detection': lambda model, images: model(list(images))}[kind]


def make_steps(options: argparse.Namespace, classes: int, detector: ConfigDict, labels: Mapping[str, np.ndarray],
               adamw: Mapping[str, Any], background_bias: float) -> tuple[Callable[[int], None], str]:
  """(take_steps, description) for `side_by_side.run`.

  Args:
    options: of `task_step`.
    detector: the config of our detection head.
    labels: of the views.
    adamw: the arguments of `torch.optim.AdamW`.
    background_bias: what is added to the detector's logit of the background before inference."""
  if options.threads:
    torch.set_num_threads(options.threads)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  layout = torch.channels_last if options.layout == 'channels_last' else torch.contiguous_format
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')  # TF32 on GPUs, as XLA has it
  model = make_model(options, classes, detector).to(device, memory_format=layout)
  images = torch.randn(options.batch, 1, options.size, options.size, device=device).to(memory_format=layout)
  loss, predict = make_loss(options.kind, labels, options.size, device), make_predict(options.kind)
  autocast = torch.autocast(device, torch.bfloat16) if options.dtype == 'bfloat16' else contextlib.nullcontext()
  if options.inference:
    use_statistics_of(model, lambda: loss(model, images))
    if options.kind == 'detection':
      model.roi_heads.box_predictor.cls_score.bias.data[0] += background_bias
    model.eval()
  if options.torch_compile:
    (model.backbone if options.kind == 'detection' else model).compile()
  optimiser = torch.optim.AdamW(model.parameters(), **adamw, fused=True)

  def train() -> None:
    optimiser.zero_grad()
    with autocast:
      total = loss(model, images)
    total.backward()
    optimiser.step()
    total.item()

  def infer() -> None:
    with torch.inference_mode(), autocast:
      predict(model, images)
    if device == 'cuda':
      torch.cuda.synchronize()

  def take_steps(count: int) -> None:
    for _ in range(count):
      (infer if options.inference else train)()
  return take_steps, (f'torch {torch.__version__}, torchvision {torchvision.__version__} on {device}, '
                      f'{torch.get_num_threads()} threads, {options.layout}')


@torch.no_grad()
def use_statistics_of(model: nn.Module, run: Callable[[], Any]) -> None:
  """Calls `run`, a forward pass in training mode, whose statistics become the running ones."""
  norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
  for norm in norms:
    norm.momentum = 1.0
  run()
  for norm in norms:
    norm.momentum = 0.1
