"""MoCo v2 in PyTorch, written from the papers: He et al. 2020 (Algorithm 1) and Chen et al. 2020 (the MLP head).

One process plays G devices: batch norm takes its statistics over G chunks of the batch, and the keys are shuffled
before their encoder and unshuffled after it. As in the authors' release, the key encoder is updated before it encodes,
towards the query encoder from before the step.

`python -m tests.reference.moco_torch` records the ten losses of `moco_setting.py` in moco.npz. Needs torch and
torchvision.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from mtpret_jax.data.shuffle_bn import shuffle_keys
from tests.reference import draw, moco_setting


class ChunkedBatchNorm(nn.BatchNorm2d):
  """Batch norm as on `chunks` devices; the running statistics are those of the first device."""

  chunks = 1

  def forward(self, images):
    if not self.training or self.chunks == 1:
      return super().forward(images)
    first, *rest = images.chunk(self.chunks)
    return torch.cat([super().forward(first), *(
      F.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps) for part in rest)])


class MoCo:
  """Two encoders, a queue and SGD. `step` trains on one batch of query and key images and returns the loss."""

  def __init__(self, trunk, *, dim, queue_KD, momentum, temperature, chunks, rate, sgd_momentum, decay, device='cpu'):
    self.query_encoder = build_encoder(trunk, dim, chunks).to(device)
    self.key_encoder = copy.deepcopy(self.query_encoder).requires_grad_(False)
    self.queue_KD, self.pointer = queue_KD.to(device), 0
    self.momentum, self.temperature = momentum, temperature
    self.sgd = torch.optim.SGD(self.query_encoder.parameters(), rate, sgd_momentum, weight_decay=decay)

  def step(self, queries, keys, order):
    """`order`: ShuffleBN, the order in which the keys pass through the key encoder."""
    with torch.no_grad():
      for key, query in zip(self.key_encoder.parameters(), self.query_encoder.parameters(), strict=True):
        key.mul_(self.momentum).add_(query, alpha=1 - self.momentum)
      key_BD = F.normalize(self.key_encoder(keys[order]), dim=1)[torch.argsort(order)]
    query_BD = F.normalize(self.query_encoder(queries), dim=1)
    positive_B1 = (query_BD * key_BD).sum(1, keepdim=True)
    negative_BK = query_BD @ self.queue_KD.clone().T
    logits = torch.cat([positive_B1, negative_BK], dim=1) / self.temperature
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
    self.sgd.zero_grad()
    loss.backward()
    self.sgd.step()
    self.queue_KD[self.pointer:self.pointer + len(key_BD)] = key_BD
    self.pointer = (self.pointer + len(key_BD)) % len(self.queue_KD)
    return loss.detach()


def build_encoder(trunk, dim, chunks):
  """A torchvision ResNet with one grey input channel, and MoCo v2's two-layer head instead of the classifier."""
  norm = type('ChunkedBatchNorm', (ChunkedBatchNorm,), {'chunks': chunks})
  encoder = torchvision.models.get_model(trunk, norm_layer=norm)
  encoder.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
  channels = encoder.fc.in_features
  encoder.fc = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, dim))
  return encoder.train()


def ten_losses(dtype=torch.float32):
  """The losses of `moco_setting.py`, from random weights."""
  s = moco_setting
  moco = MoCo(s.TRUNK, dim=s.DIM, queue_KD=torch.tensor(s.first_queue(), dtype=dtype), momentum=s.MOMENTUM,
              temperature=s.TEMPERATURE, chunks=s.BATCH // s.GROUP, rate=s.LEARNING_RATE, sgd_momentum=s.SGD_MOMENTUM,
              decay=s.WEIGHT_DECAY)
  for encoder in (moco.query_encoder, moco.key_encoder):
    encoder.load_state_dict({name: torch.tensor(draw.weight(name, tuple(value.shape)))
                             for name, value in encoder.state_dict().items() if value.ndim}, strict=False)
    encoder.to(dtype)
  order = torch.tensor(shuffle_keys(np.arange(s.BATCH), s.GROUP, s.SHUFFLE_GROUPS))
  losses = []
  for step in range(s.STEPS):
    queries, keys = (torch.tensor(s.standardised(images), dtype=dtype) for images in s.images(step))
    losses.append(moco.step(queries, keys, order).item())
  return np.array(losses)


if __name__ == '__main__':
  np.savez(moco_setting.FIXTURE, losses=ten_losses())
