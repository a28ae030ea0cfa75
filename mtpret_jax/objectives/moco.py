"""Stage 1, MD-MoCo: MoCo v2 (He et al. 2020, Chen et al. 2020) on the union of all datasets.

A query and a key are two random views of one radiograph. The query encoder learns to tell the key of its image from the
keys of earlier batches, which are in a queue. The key encoder is a moving average of the query encoder.

In one step, the key encoder moves towards the query encoder and encodes the keys, the query encoder encodes the
queries, InfoNCE compares the two, and the keys replace the oldest ones in the queue.

Differences from facebookresearch/moco:
- Batch norm is over groups of the batch (`models/norm.py`), and ShuffleBN is done on the host (`data/shuffle_bn.py`):
  keys arrive in another order than their queries, and `gather_keys` restores the order of their embeddings.
- `same_source=True` compares with keys of the query's own dataset only. So telling a hand from a chest, or one
  scanner from another, does not lower the loss.

Letters: B images, K queue length, D embedding dimensions, L logits per query (1 + K).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from mtpret_jax.augment import views
from mtpret_jax.data.shuffle_bn import unshuffle_keys
from mtpret_jax.models.heads import Projector
from mtpret_jax.models.resnet import ResNet
from mtpret_jax.objectives import Batch, Carry, Measures, Objective, Params, Trunk
from mtpret_jax.objectives.modules import split_graphs, split_weights, take_stats
from mtpret_jax.runtime.sharding import replicate

PARTS = ('trunk', 'projector')  # of an encoder

# `explain_key_age` averages over this many queries. The standard error of the difference is then below 0.01.
AGE_QUERIES = 5000
AGE_MARGIN = 0.05  # five standard errors

Embed = Callable[[Params, dict, jax.Array, int], tuple[jax.Array, dict]]


def make_moco(config: ConfigDict) -> Objective:
  """The objective of stage 1. Its only task is 'moco'.

  A batch has `query` and `key` (B, H, W, 1) uint8, the keys in the order of `shuffle_bn.shuffle_keys`, and `source`
  (B,) int32, the index of each query's dataset.
  """
  init_encoder, embed = make_encoder(config)
  return Objective(
    init=functools.partial(init, config, init_encoder),
    loss=functools.partial(compute_loss, config, embed),
    parts={'moco': PARTS})


def make_encoder(config: ConfigDict) -> tuple[Callable[[jax.Array], tuple[Params, dict]], Embed]:
  """(init_encoder, embed) as pure functions:

  init_encoder(rng) -> (params, running statistics)
  embed(params, stats, images, groups) -> (z_BD of unit length, new running statistics)
  """
  def build(rng: jax.Array) -> dict[str, nnx.Module]:
    rngs = nnx.Rngs(rng)
    trunk = ResNet(config.trunk, rngs=rngs)
    return {'trunk': trunk, 'projector': Projector(trunk.channels, config.moco.dim, rngs=rngs)}

  graphs = split_graphs(build)  # query and key encoder share them

  def embed(params: Params, stats: dict, images: jax.Array, groups: int) -> tuple[jax.Array, dict]:
    modules: dict[str, Any] = {name: nnx.merge(graphs[name], params[name], stats[name]) for name in PARTS}
    z_BD = modules['projector'](modules['trunk'](images, groups=groups))
    return z_BD, {name: take_stats(modules[name]) for name in PARTS}

  return lambda rng: split_weights(build(rng)), embed


def init(config: ConfigDict, init_encoder: Callable, rng: jax.Array,
         trunk: Trunk | None = None) -> tuple[Params, Carry]:
  """The query encoder's params, and a carry with an identical key encoder and a queue of random unit vectors."""
  rng_encoder, rng_queue = jax.random.split(rng)
  params, stats = init_encoder(rng_encoder)
  if trunk is not None:
    params['trunk'], stats['trunk'] = trunk
  queue_KD = jax.random.normal(rng_queue, (config.moco.queue, config.moco.dim))
  carry = {
    'stats': stats,
    'key_encoder': params,  # the same arrays twice; `step.init_state` runs this in jit, so buffers are not shared
    'key_stats': stats,
    'queue': queue_KD / jnp.linalg.norm(queue_KD, axis=-1, keepdims=True),
    'queue_source': jnp.full((config.moco.queue,), -1, jnp.int32),  # -1: a random vector, of no dataset
  }
  return params, carry


def compute_loss(config: ConfigDict, embed: Embed, task: str, params: Params, carry: Carry, batch: Batch,
                 step: jax.Array, rng: jax.Array) -> tuple[jax.Array, tuple[Carry, Measures]]:
  """InfoNCE of the queries against their keys and the queue.

  Measures: `accuracy`, how often a query is closer to its own key than to every key of the queue; `accuracy_batch`, the
  same among the keys of the batch (see `rate_batch`); `agreement`, the mean cosine of query and key; `spread`, from 0
  to 1, of the queries on the unit sphere; 0 if the embedding has collapsed to a point.
  """
  moco = config.moco
  groups = len(batch['query']) // moco.group  # batch-norm groups
  rng_query, rng_key = jax.random.split(rng)

  # As in the authors' code, the key encoder moves before it encodes, towards the weights from before this step.
  key_params = update_key_encoder(carry['key_encoder'], params, moco.momentum)
  key_images = views.make_view(batch['key'], rng_key, config.augment, config.dtype)
  # ShuffleBN: keys pass through the encoder in shuffled order, then return to the order of their queries.
  key_BD, key_stats = embed(key_params, carry['key_stats'], key_images, groups)
  key_BD, source_B = gather_keys(key_BD, batch['source'], moco)

  query_images = views.make_view(batch['query'], rng_query, config.augment, config.dtype)
  query_BD, stats = embed(params, carry['stats'], query_images, groups)

  positive_B1, negative_BK = compare(query_BD, key_BD, carry['queue'])
  if moco.same_source:
    is_same_BK = batch['source'][:, None] == carry['queue_source'][None]
    negative_BK = jnp.where(is_same_BK, negative_BK, -jnp.inf)  # no weight in the softmax and no gradient
  loss = info_nce(positive_B1, negative_BK, moco.temperature)

  carry = {'stats': stats, 'key_encoder': key_params, 'key_stats': key_stats,
           **enqueue(carry, key_BD, source_B, step)}
  measures = {
    'loss': loss,
    'accuracy': jnp.mean(positive_B1[:, 0] > negative_BK.max(1)),
    'accuracy_batch': rate_batch(query_BD, key_BD, positive_B1),
    'agreement': positive_B1.mean(),
    'spread': jnp.sqrt(jnp.maximum(1 - jnp.square(query_BD.mean(0)).sum(), 0)),  # unit vectors: 1 - |mean|^2
  }
  return loss, (carry, measures)


def update_key_encoder(key_params: Params, query_params: Params, momentum: float) -> Params:
  """Moving average of the query encoder. No gradient passes, so keys do not train the query encoder. Running statistics
  are not averaged: each encoder has its own."""
  return jax.tree.map(lambda key, query: momentum * key + (1 - momentum) * jax.lax.stop_gradient(query),
                      key_params, query_params)


def gather_keys(key_BD: jax.Array, source_B: jax.Array, moco: ConfigDict) -> tuple[jax.Array, jax.Array]:
  """Undoes ShuffleBN: (keys in the order of their queries, sources). Both are on every device, as the queue needs them.

  Keys and sources travel as one array, so the step has one all-gather; once gathered, the reordering is local.
  """
  # A sum of two padded arrays instead of a concatenation, on which XLA for GPUs fails (jax 0.10.2).
  source_B1 = source_B[:, None].astype(jnp.float32)  # f32 holds dataset numbers exactly
  rows = replicate(jnp.pad(key_BD, ((0, 0), (0, 1))) + jnp.pad(source_B1, ((0, 0), (key_BD.shape[1], 0))))
  key_BD = replicate(unshuffle_keys(rows[:, :-1], moco.group, moco.shuffle_groups))
  return key_BD, rows[:, -1].astype(jnp.int32)  # sources were never shuffled


def compare(query_BD: jax.Array, key_BD: jax.Array, queue_KD: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(positive_B1, negative_BK): cosine of each query with its own key, and with the keys in the queue."""
  # TPUs multiply f32 in bf16 by default, which is too coarse to compare cosines; 'highest' keeps f32.
  positive_B1 = jnp.einsum('bd,bd->b', query_BD, key_BD, precision='highest')[:, None]
  negative_BK = jnp.einsum('bd,kd->bk', query_BD, queue_KD, precision='highest')
  return positive_B1, negative_BK


def rate_batch(query_BD: jax.Array, key_BD: jax.Array, positive_B1: jax.Array) -> jax.Array:
  """How often a query is closer to its own key than to every other key of the same batch; chance is 1 / B.

  The keys of the queue come from earlier weights of the key encoder, so a query can tell them from its own key by their
  age, without looking at the image. All keys of a batch come from the same weights, so this measure cannot rise that
  way. It is not part of the loss. It needs no collective of its own: every device holds all keys for the queue.
  """
  query_BD, key_BD, positive_B1 = jax.lax.stop_gradient((query_BD, key_BD, positive_B1))
  cosine_BB = jnp.einsum('bd,cd->bc', query_BD, key_BD, precision='highest')
  other_BB = jnp.where(jnp.eye(len(key_BD), dtype=bool), -jnp.inf, cosine_BB)
  return jnp.mean(positive_B1[:, 0] > other_BB.max(1))


def info_nce(positive_B1: jax.Array, negative_BK: jax.Array, temperature: float) -> jax.Array:
  """Mean cross-entropy of picking each query's own key among 1 + K keys (van den Oord et al. 2018)."""
  logits_BL = jnp.concatenate([positive_B1, negative_BK], axis=1) / temperature
  own_key_B = jnp.zeros(len(logits_BL), jnp.int32)
  return optax.softmax_cross_entropy_with_integer_labels(logits_BL, own_key_B).mean()


def enqueue(carry: Carry, key_BD: jax.Array, source_B: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
  """The queue with its oldest B keys replaced. K is a multiple of B, so a batch never wraps around."""
  start = (step * len(key_BD)) % len(carry['queue'])  # a function of the step: there is no pointer to save
  return {'queue': jax.lax.dynamic_update_slice(carry['queue'], key_BD, (start, 0)),
          'queue_source': jax.lax.dynamic_update_slice(carry['queue_source'], source_B, (start,))}


def explain_key_age(lines: Sequence[Mapping[str, Any]], config: ConfigDict) -> str:
  """What to change if the query encoder tells its key from the queue by the age of the keys; '' if it does not.

  The keys of the queue come from earlier weights of the key encoder than the query's own key, so the two can be told
  apart without looking at the image. The loss then falls, and the trunk learns little. The sign of it: the queue holds
  more negatives than the batch, so a query should be told from them less often. If `accuracy` still exceeds
  `accuracy_batch`, the keys of the queue are easier negatives than those of the batch, and only their age differs.

  Args:
    lines: of `metrics.jsonl`, the newest last. The last ones that hold AGE_QUERIES queries count.
    config: of the run. Only negatives from the queue are judged.
  """
  moco = config.moco
  # With `same_source`, the queue also needs more keys of the query's dataset than the batch has keys of all datasets.
  keys = moco.queue // max(len(config.data.datasets), 1) if moco.same_source else moco.queue
  if moco.negatives != 'queue' or keys < config.batch:
    return ''
  queries, accuracies, newest = 0, [], lines[-1]['step'] if lines else 0
  full = moco.queue // config.batch  # steps; before, the queue holds random vectors, which are easy negatives
  for earlier, line in reversed(list(zip([{'step': 0}, *lines], lines, strict=False))):
    if queries >= AGE_QUERIES or earlier['step'] < full:
      break
    queries += (line['step'] - earlier['step']) * config.batch
    accuracies.append((line['accuracy'], line['accuracy_batch']))
  if queries < AGE_QUERIES:
    return ''
  queue, batch = (sum(column) / len(accuracies) for column in zip(*accuracies, strict=True))
  if not queue > batch + AGE_MARGIN:
    return ''
  return (f'up to step {newest}, queries tell their key from the {moco.queue} keys of the queue more often '
          f'({queue:.2f}) than from the {config.batch - 1} other keys of the batch ({batch:.2f}): they recognise its '
          f'age, because the queue was encoded by earlier weights, and learn less about the images; start again in a '
          f'new workdir with --config.moco.negatives=batch, a --config.moco.momentum closer to 1 (now '
          f'{moco.momentum}) or a shorter --config.moco.queue')
