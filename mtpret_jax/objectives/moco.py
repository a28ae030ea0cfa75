"""MD-MoCo: MoCo v2 (He et al. 2020, Chen et al. 2020) over all datasets.

A query and a key are two views of one radiograph. The query's encoder learns to tell its key from the keys of earlier
batches, which wait in a queue; the key's encoder follows slowly. Differences from facebookresearch/moco: batch norm by
groups (`models/norm.py`) with keys placed in other groups than their queries by the host (`data/pipeline.py`), and
`negatives='same_source'`, which leaves out of the comparison the keys of other datasets, so that telling a hand from a
chest earns nothing.

Letters: B images, K queue length, D embedding dimensions.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtpret_jax.augment import views
from mtpret_jax.data.shuffle_bn import return_keys
from mtpret_jax.models.heads import Projector
from mtpret_jax.models.resnet import ResNet
from mtpret_jax.objectives import Objective
from mtpret_jax.runtime.sharding import replicate

PARTS = ('trunk', 'projector')


def make_moco(config):
  """The objective of stage 1; its one task is 'moco'. A batch has `query` and `key` (B, H, W, 1) uint8, the keys
  in the order of `shuffle.place_keys`, and `source` (B,) int32, the dataset of each query."""
  encoder = make_encoder(config)
  return Objective(
    init=functools.partial(init, config, encoder),
    loss=functools.partial(compute_loss, config, encoder),
    parts={'moco': PARTS})


def make_encoder(config):
  """(init, embed): `init(rng) -> params, stats` and `embed(params, stats, images, groups) -> z_BD, stats`."""
  def build(rng):
    rngs = nnx.Rngs(rng)
    trunk = ResNet(config.trunk, rngs=rngs)
    return {'trunk': trunk, 'projector': Projector(trunk.channels, config.moco.dim, rngs=rngs)}

  graphs = {name: nnx.split(module)[0] for name, module in nnx.eval_shape(lambda: build(jax.random.key(0))).items()}

  def init_encoder(rng):
    parts = {name: nnx.split(module, nnx.Param, nnx.BatchStat)[1:] for name, module in build(rng).items()}
    return ({name: nnx.to_pure_dict(params) for name, (params, _) in parts.items()},
            {name: nnx.to_pure_dict(stats) for name, (_, stats) in parts.items()})

  def embed(params, stats, images, groups):
    modules = {name: nnx.merge(graphs[name], params[name], stats[name]) for name in PARTS}
    z_BD = modules['projector'](modules['trunk'](images, groups=groups))
    return z_BD, {name: nnx.to_pure_dict(nnx.state(modules[name], nnx.BatchStat)) for name in PARTS}

  return init_encoder, embed


def init(config, encoder, rng, trunk=None):
  rng_encoder, rng_queue = jax.random.split(rng)
  params, stats = encoder[0](rng_encoder)
  if trunk is not None:
    params['trunk'], stats['trunk'] = trunk
  queue_KD = jax.random.normal(rng_queue, (config.moco.queue, config.moco.dim))
  carry = {
    'stats': stats,
    'key_encoder': params,
    'key_stats': stats,
    'queue': queue_KD / jnp.linalg.norm(queue_KD, axis=-1, keepdims=True),
    'queue_source': jnp.full((config.moco.queue,), -1, jnp.int32),
  }
  return params, carry


def compute_loss(config, encoder, task, params, carry, batch, step, rng):
  """InfoNCE of the queries against their keys and the queue; the carry has moved on by one batch."""
  _, embed = encoder
  moco = config.moco
  groups = len(batch['query']) // moco.group
  rng_query, rng_key = jax.random.split(rng)

  key_params = jax.tree.map(lambda old, new: moco.momentum * old + (1 - moco.momentum) * jax.lax.stop_gradient(new),
                            carry['key_encoder'], params)
  key_images = views.make_view(batch['key'], rng_key, config.augment, config.dtype)
  key_BD, key_stats = embed(key_params, carry['key_stats'], key_images, groups)
  key_BD, source_B = gather_keys(jax.lax.stop_gradient(key_BD), batch['source'], moco)

  query_images = views.make_view(batch['query'], rng_query, config.augment, config.dtype)
  query_BD, stats = embed(params, carry['stats'], query_images, groups)

  same_B1 = jnp.einsum('bd,bd->b', query_BD, key_BD, precision='highest')[:, None]  # TPUs round to bf16 by default
  other_BK = jnp.einsum('bd,kd->bk', query_BD, carry['queue'], precision='highest')
  if moco.negatives == 'same_source':
    known_BK = batch['source'][:, None] == carry['queue_source'][None]
    other_BK = jnp.where(known_BK, other_BK, -jnp.inf)
  logits_BL = jnp.concatenate([same_B1, other_BK], axis=1) / moco.temperature
  loss = optax.softmax_cross_entropy_with_integer_labels(logits_BL, jnp.zeros(len(logits_BL), jnp.int32)).mean()

  start = (step * len(key_BD)) % moco.queue
  carry = {
    'stats': stats,
    'key_encoder': key_params,
    'key_stats': key_stats,
    'queue': jax.lax.dynamic_update_slice(carry['queue'], key_BD, (start, 0)),
    'queue_source': jax.lax.dynamic_update_slice(carry['queue_source'], source_B, (start,)),
  }
  measures = {
    'loss': loss,
    'accuracy': jnp.mean(same_B1[:, 0] > other_BK.max(1)),
    'agreement': same_B1.mean(),
    'spread': jnp.sqrt(jnp.maximum(1 - jnp.square(query_BD.mean(0)).sum(), 0)),  # rows have length 1
  }
  return loss, (carry, measures)


def gather_keys(key_BD, source_B, moco):
  """The keys in the order of their queries, and the sources, all of them on every device, where the queue needs them:
  one message, and the order costs none."""
  source_B1 = source_B[:, None].astype(jnp.float32)  # a sum, since XLA fails on the concatenation for GPUs (jax 0.10.2)
  rows = replicate(jnp.pad(key_BD, ((0, 0), (0, 1))) + jnp.pad(source_B1, ((0, 0), (key_BD.shape[1], 0))))
  return replicate(return_keys(rows[:, :-1], moco.group, moco.shuffle_groups)), rows[:, -1].astype(jnp.int32)
