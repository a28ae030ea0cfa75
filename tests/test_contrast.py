"""The contrastive step is MoCo's: the published algorithm in PyTorch, the queue, the negatives, the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.objectives.contrast import make_contrast
from mtpret_jax.optim import make_optimiser
from mtpret_jax.sharding import make_mesh, place_batch
from mtpret_jax.shuffle import place_keys
from mtpret_jax.step import compile_step, init_state
from mtpret_jax.weights import import_trunk
from tests.drawn import make_state_dict
from tests.reference import draw
from tests.reference import moco_setting as setting

TOLERANCE = 1e-4  # relative, in the loss of each step, f32

STILL = dict(size=setting.SIZE, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, blur=0.0, blur_sigma=(0.1, 1.0),
             jitter=0.0, brightness=0.4, contrast=0.4)  # a view is the image itself
LIVELY = dict(size=32, crop_area=(0.2, 1.0), crop_ratio=(0.75, 1.33), flip=0.5, blur=0.5, blur_sigma=(0.1, 1.0),
              jitter=0.8, brightness=0.4, contrast=0.4)


def make_config(trunk, augment, negatives='all'):
  s = setting
  return ConfigDict(dict(
    trunk=trunk, dtype='float32', augment=augment,
    contrast=dict(dim=s.DIM, queue=s.QUEUE, temperature=s.TEMPERATURE, momentum=s.MOMENTUM, group=s.GROUP,
                  shuffle_groups=s.SHUFFLE_GROUPS, negatives=negatives),
    optimiser=dict(momentum=s.SGD_MOMENTUM, weight_decay=s.DECAY)))


def make_batch(step, size=setting.SIZE):
  query, key = (images[:, :size, :size] for images in setting.images(step))
  return {'query': query, 'key': place_keys(key, setting.GROUP, setting.SHUFFLE_GROUPS),
          'source': np.arange(setting.BATCH, dtype=np.int32) % 3}


def follow_setting():
  """Our ten losses from the drawn weights, on one device."""
  config, mesh = make_config('resnet18', STILL), make_mesh(jax.devices()[:1])
  objective, optimiser = make_contrast(config), make_optimiser(config.optimiser, lambda step: setting.RATE)
  state = init_state(objective, optimiser, mesh, 0, import_trunk(make_state_dict('resnet18', channels=1), 'resnet18'))
  linear = {name: {'kernel': draw.weight(f'{torch}.weight', (out, 512)).T, 'bias': draw.weight(f'{torch}.bias', (out,))}
            for name, torch, out in (('hidden', 'fc.0', 512), ('out', 'fc.2', setting.DIM))}
  params = state.params | {'projector': linear}
  slow = jax.tree.map(jnp.array, params)  # a copy: what is donated must not be given twice
  state = state.replace(params=params, carry=state.carry | {'slow': slow, 'queue': setting.first_queue()})
  step = compile_step(objective, optimiser, 'contrast', mesh, seed=0)
  losses = []
  for number in range(setting.STEPS):
    state, measures = step(state, place_batch(make_batch(number), mesh))
    losses.append(float(measures['loss']))
  return np.array(losses)


@pytest.fixture(scope='module')
def ten_losses():
  return follow_setting()


def test_ten_steps_follow_the_published_algorithm(ten_losses):
  with np.load(setting.FIXTURE) as recorded:
    np.testing.assert_allclose(ten_losses, recorded['losses'], rtol=TOLERANCE)


@pytest.mark.reference
def test_the_published_algorithm_in_torch_beside_ours(ten_losses):
  pytest.importorskip('torchvision')
  from tests.reference import moco_torch
  theirs = moco_torch.ten_losses()
  worst = np.abs(ten_losses / theirs - 1).max()
  print(f'largest relative difference of ten losses: {worst:.1e}; losses {theirs.round(3)}')
  assert worst <= TOLERANCE
