"""Predicts with an exported model in PyTorch, without mtpret_jax.

    pip install torch torchvision safetensors opencv-python-headless
    python load_in_torch.py IMAGE.png [IMAGE.png ...]

Images must have 8 bits, grey or RGB, with bone bright. `read_image` prepares them exactly as mtpret_jax's
evaluation does; `build` makes the network from torchvision's parts. Research software, not a medical device.

Letters: B images, C channels (1 or 3 equal ones), S side of the square that the network sees, px.
"""

import argparse
import json
import pathlib
from collections import OrderedDict
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, RPNHead, TwoMLPHead
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3
from torchvision.ops import MultiScaleRoIAlign

FOLDER = pathlib.Path(__file__).resolve().parent
Spec = dict[str, Any]  # torchvision.json


def main() -> None:
  parser = argparse.ArgumentParser(description='Predicts with the exported model of this folder.')
  parser.add_argument('images', nargs='+', help='8-bit images, grey or RGB (PNG, JPEG, TIFF, BMP)')
  spec = json.loads((FOLDER / 'torchvision.json').read_text())
  model = load(spec)
  for path in parser.parse_args().images:
    print(path, json.dumps(describe(spec, predict(model, spec, read_image(path, spec)[None])[0])))


# Images


def read_image(path: str | pathlib.Path, spec: Spec) -> torch.Tensor:
  """(C, S, S) float32, standardised, of an image file of 8 bits, grey or RGB."""
  return prepare(read_grey(path), spec)


def read_grey(path: str | pathlib.Path) -> np.ndarray:
  """(H, W) uint8 of an image file. RGB becomes its luma, rounded as Pillow does: equal channels keep their value."""
  if not pathlib.Path(path).is_file():
    raise SystemExit(f'there is no file {path}')
  pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
  if pixels is None or pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)):
    raise SystemExit(f'{path} is not a grey or RGB image of 8 bits: convert it first (python -m mtpret_jax.predict '
                     f'also reads DICOM, 16 bits and alpha channels)')
  if pixels.ndim == 3:
    blue, green, red = np.moveaxis(pixels.astype(np.int32), 2, 0)
    pixels = ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).astype(np.uint8)  # 0.299, 0.587, 0.114
  return pixels


def prepare(pixels: np.ndarray, spec: Spec) -> torch.Tensor:
  """(C, S, S) float32 from (H, W) uint8, in four steps."""
  # 1. As the prepared dataset stores it: the longer side has at most `stored_longest` px.
  longest = spec['stored_longest']
  if longest and max(pixels.shape) > longest:
    height, width = (max(1, round(side * longest / max(pixels.shape))) for side in pixels.shape)
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
  # 2. Stretched to a square of `size` px, still in whole grey values.
  size = spec['size']
  if pixels.shape != (size, size):
    way = cv2.INTER_AREA if pixels.size > size * size else cv2.INTER_LINEAR
    pixels = cv2.resize(pixels, (size, size), interpolation=way)
  # 3. Resized to `view` px: bilinear with antialiasing.
  image = torch.from_numpy(pixels).to(torch.float32) / 255
  matrix = make_resize_matrix(size, spec['view'])
  view = matrix @ image @ matrix.T
  # 4. Standardised by the mean and deviation of the square of step 2.
  view = (view - image.mean()) / image.std(unbiased=False).clamp(min=1 / 255)
  return view.expand(spec['channels'], -1, -1)


def make_resize_matrix(available: int, size: int) -> torch.Tensor:
  """(size, available): the weight of each pixel, a triangle as wide as the shrinkage and at least one pixel."""
  shrink = available / size
  centre, pixel = (torch.arange(size) + 0.5) * shrink, torch.arange(available) + 0.5
  weights = (1 - (pixel[None] - centre[:, None]).abs() / max(shrink, 1.0)).clamp(min=0)
  return weights / weights.sum(1, keepdim=True)


# Networks


def load(spec: Spec) -> nn.Module:
  """The network with the exported weights, for inference."""
  model = build(spec)
  model.load_state_dict(load_file(FOLDER / spec['weights']), strict=True)
  return model.eval()


def build(spec: Spec) -> nn.Module:
  """The network of `spec` with random weights."""
  head, outputs = spec['head'], len(spec['about'].get('findings', ())) if spec['kind'] == 'classification' else 1
  trunk = torchvision.models.get_model(spec['trunk'], weights=None, num_classes=outputs)
  if spec['channels'] != 3:
    stem = nn.Conv2d(spec['channels'], 64, 7, stride=2, padding=3, bias=False)
    setattr(*((trunk.features, 'conv0') if is_dense(trunk) else (trunk, 'conv1')), stem)
  if spec['kind'] == 'trunk':
    setattr(trunk, 'classifier' if is_dense(trunk) else 'fc', nn.Identity())  # the mean of the last map
  if spec['kind'] == 'segmentation':
    return build_deeplab(trunk, head, len(spec['about']['mask']))
  if spec['kind'] == 'detection':
    return build_detector(trunk, head, len(spec['about']['box_classes']), spec)
  return trunk


def is_dense(trunk: nn.Module) -> bool:
  """Whether a trunk is a DenseNet; others are ResNets."""
  return isinstance(trunk, torchvision.models.DenseNet)


def list_maps(trunk: nn.Module) -> tuple[list[str], list[int]]:
  """(where the maps at strides 4, 8, 16 and 32 are in a trunk, their channels). Those of a DenseNet are what batch norm
  and ReLU after each block give."""
  if is_dense(trunk):
    channels = trunk.classifier.in_features
    return [f'features.transition{stage}.relu' for stage in (1, 2, 3)] + ['relu'], [256, 512, channels, channels]
  channels = trunk.fc.in_features
  return [f'layer{stage}' for stage in (1, 2, 3, 4)], [channels // 8, channels // 4, channels // 2, channels]


def build_deeplab(trunk: nn.Module, head: Spec, classes: int) -> nn.Module:
  """torchvision's DeepLabV3 for any trunk, width and dilations."""
  (dilate_dense if is_dense(trunk) else dilate)(trunk, head['output_stride'])
  names, widths = list_maps(trunk)
  channels, width = widths[-1], head['width']
  classifier = nn.Sequential(
    ASPP(channels, head['dilations'], width), nn.Conv2d(width, width, 3, padding=1, bias=False),
    nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, classes, 1))
  return DeepLabV3(create_feature_extractor(trunk, {names[-1]: 'out'}), classifier)


def dilate(resnet: nn.Module, output_stride: int) -> None:
  """Stages that would exceed `output_stride` keep the size of the map and dilate their 3 x 3 convolutions, as
  torchvision's `replace_stride_with_dilation` does; that is for ResNet-50 only, this for ResNet-18 and -34 as well."""
  before = 1  # dilation of the convolution before
  for stride, layer in ((8, resnet.layer2), (16, resnet.layer3), (32, resnet.layer4)):
    dilation = max(stride // output_stride, 1)
    for conv in (module for module in layer.modules() if isinstance(module, nn.Conv2d)):
      if dilation > 1:
        conv.stride = (1, 1)
      if conv.kernel_size == (3, 3):
        own = before if conv is first_3x3(layer) else dilation
        conv.dilation = conv.padding = (own, own)
    before = dilation


def first_3x3(layer: nn.Module) -> nn.Module:
  return next(conv for conv in layer[0].modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3))


def dilate_dense(densenet: nn.Module, output_stride: int) -> None:
  """The same for a DenseNet, where the pools of the transitions have the strides."""
  for stage, stride in ((1, 8), (2, 16), (3, 32)):
    dilation = max(stride // output_stride, 1)
    if dilation > 1:
      densenet.get_submodule(f'features.transition{stage}').pool = nn.Identity()
    for conv in densenet.get_submodule(f'features.denseblock{stage + 1}').modules():
      if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
        conv.dilation = conv.padding = (dilation, dilation)


def build_detector(trunk: nn.Module, head: Spec, classes: int, spec: Spec) -> nn.Module:
  """torchvision's FasterRCNN for any trunk and width. Class 0 is the background. Images are neither resized nor
  normalised again: `prepare` has done it."""
  (names, widths), width, view = list_maps(trunk), head['width'], spec['view']
  backbone = BackboneWithFPN(trunk, {}, widths, width)
  # Here, because BackboneWithFPN cannot take a map from inside a DenseNet's transition.
  backbone.body = create_feature_extractor(trunk, {name: str(level) for level, name in enumerate(names)})
  anchors = AnchorGenerator([tuple(sizes) for sizes in head['anchor_sizes']],
                            [tuple(head['aspect_ratios'])] * len(head['anchor_sizes']))
  before_nms, after_nms = head['rpn_proposals_test']
  return FasterRCNN(
    backbone, min_size=view, max_size=view, image_mean=[0.0] * spec['channels'], image_std=[1.0] * spec['channels'],
    size_divisible=1, rpn_anchor_generator=anchors,
    rpn_head=RPNHead(width, anchors.num_anchors_per_location()[0]),
    rpn_pre_nms_top_n_test=before_nms, rpn_post_nms_top_n_test=after_nms, rpn_nms_thresh=head['rpn_nms_iou'],
    box_roi_pool=MultiScaleRoIAlign(['0', '1', '2', '3'], 7, 2), box_head=TwoMLPHead(width * 49, head['roi_hidden']),
    box_predictor=FastRCNNPredictor(head['roi_hidden'], classes + 1), box_score_thresh=head['min_score'],
    box_nms_thresh=head['roi_nms_iou'], box_detections_per_img=head['max_detections'])


# Predictions


@torch.inference_mode()
def predict(model: nn.Module, spec: Spec, images: torch.Tensor) -> list[dict[str, np.ndarray]]:
  """One dict per image of (B, C, S, S): `score` (T,) in 0-1, `value` (1,), `mask` (S, S) of class numbers,
  `boxes` (M, 4) as y0, x0, y1, x1 in 0-1 with `class_id` (M,) from 0 and `score` (M,), or `features` (D,)."""
  if spec['kind'] == 'detection':
    found = detect(model, spec, images)
    return [fuse([one, unmirror(other, spec)], spec['head']['max_detections']) for one, other in zip(
      found, detect(model, spec, images.flip(-1)), strict=True)] if spec['flips'] else found
  field, values = compute(model, spec, images)
  if spec['flips']:  # the mean of the image and its mirror image, in which left and right classes change places
    _, mirrored = compute(model, spec, images.flip(-1))
    mirrored = mirrored.flip(-1) if field == 'mask' else mirrored
    values = (values + (mirrored if spec['mirror'] is None else mirrored[:, spec['mirror']])) / 2
  if field == 'score':
    values = scale(values, spec)
  return [{field: (value.argmax(0) if field == 'mask' else value).numpy()} for value in values]


def detect(model: nn.Module, spec: Spec, images: torch.Tensor) -> list[dict[str, np.ndarray]]:
  """The boxes of each image, best first."""
  side, columns_first = spec['view'], [1, 0, 3, 2]
  return [{'boxes': (found['boxes'][:, columns_first] / side).numpy(), 'class_id': found['labels'].numpy() - 1,
           'score': found['scores'].numpy()} for found in model(list(images))]


def unmirror(found: dict[str, np.ndarray], spec: Spec) -> dict[str, np.ndarray]:
  """Boxes of a mirror image where they are in the image."""
  y0, x0, y1, x1 = found['boxes'].T
  class_id = found['class_id'] if spec['mirror'] is None else np.array(spec['mirror'])[found['class_id']]
  return {'boxes': np.stack([y0, 1 - x1, y1, 1 - x0], 1), 'class_id': class_id, 'score': found['score']}


def fuse(views: list[dict[str, np.ndarray]], most: int) -> dict[str, np.ndarray]:
  """Weighted boxes fusion (Solovyev et al. 2021) of the boxes of several views: at most `most`, best first."""
  boxes, class_id, score = (np.concatenate([view[field] for view in views]) for field in ('boxes', 'class_id', 'score'))
  clusters: list[list[int]] = []

  def mean(cluster: list[int]) -> np.ndarray:
    return np.average(boxes[cluster], axis=0, weights=score[cluster])
  for place in np.argsort(-score, kind='stable').tolist():
    ious = [iou(mean(cluster), boxes[place]) if class_id[cluster[0]] == class_id[place] else 0 for cluster in clusters]
    if ious and max(ious) > 0.55:
      clusters[int(np.argmax(ious))].append(place)
    else:
      clusters.append([place])
  fused = np.array([score[cluster].mean() * min(len(cluster), len(views)) / len(views) for cluster in clusters])
  best = np.argsort(-fused, kind='stable')[:most]
  return {'boxes': np.array([mean(clusters[place]) for place in best]).reshape(-1, 4),
          'class_id': np.array([class_id[clusters[place][0]] for place in best], int), 'score': fused[best]}


def iou(one: np.ndarray, other: np.ndarray) -> float:
  """Intersection over union of two boxes."""
  overlap = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
  return overlap / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - overlap)


def compute(model: nn.Module, spec: Spec, images: torch.Tensor) -> tuple[str, torch.Tensor]:
  """(name, values) of the output: `score` (B, T), `value` (B, 1), `mask` (B, T, S, S) probabilities, `features`."""
  kind, out = spec['kind'], model(images)
  if kind == 'classification':
    return 'score', out.sigmoid() if spec['about']['relation'] == 'independent' else out.softmax(1)
  if kind == 'regression':
    return 'value', out * spec['head']['deviation'] + spec['head']['mean']
  if kind == 'segmentation':
    return 'mask', out['out'].softmax(1)
  return 'features', out


def scale(scores: torch.Tensor, spec: Spec) -> torch.Tensor:
  """Probabilities whose logits are divided by the temperature that was fitted on validation."""
  if spec['temperature'] == 1:
    return scores
  scores = scores.double().clamp(torch.finfo(torch.float32).tiny, 1 - 2.0**-24)
  if spec['about']['relation'] == 'independent':
    return (scores.logit() / spec['temperature']).sigmoid().float()
  return (scores.log() / spec['temperature']).softmax(1).float()


def describe(spec: Spec, prediction: dict[str, np.ndarray]) -> Any:
  """A prediction with the names of findings and classes, for JSON. Boxes are in 0-1 of the image."""
  about = spec['about']
  if 'boxes' in prediction:
    return [OrderedDict(box_class=about['box_classes'][class_id], score=round(float(score), 6),
                        y0_x0_y1_x1=[round(float(corner), 6) for corner in box])
            for box, class_id, score in zip(*map(prediction.get, ('boxes', 'class_id', 'score')), strict=True)]
  if 'mask' in prediction:
    counts = np.bincount(prediction['mask'].ravel(), minlength=len(about['mask']))
    return {name: round(float(count / counts.sum()), 6) for name, count in zip(about['mask'], counts, strict=True)}
  if 'score' in prediction:
    return {name: round(float(score), 6) for name, score in zip(about['findings'], prediction['score'], strict=True)}
  if 'value' in prediction:
    return {about['value']['name']: round(float(prediction['value'][0]), 6), 'unit': about['value']['unit']}
  return {'features': [round(float(feature), 6) for feature in prediction['features']]}


if __name__ == '__main__':
  main()
