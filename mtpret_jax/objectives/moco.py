"""Stage 1, MD-MoCo: MoCo v2 (He et al. 2020, Chen et al. 2020) on the union of all datasets.

A query and a key are two random views of one radiograph. The query encoder learns to tell the key of its image from the
keys of earlier batches, which are in a queue. The key encoder is a moving average of the query encoder.

In one step, the key encoder moves towards the query encoder and encodes the keys, the query encoder encodes the
queries, InfoNCE compares the two, and the keys replace the oldest ones in the queue.

Differences from facebookresearch/moco:
- Batch norm is over groups of the batch (`models/norm.py`), and ShuffleBN is done on the host (`data/shuffle_bn.py`):
  keys arrive in another order than their queries, and `gather_keys` restores the order of their embeddings.

Options, all off in MoCo v2 (docs/method.md has their sources):
- `moco.negatives='batch'`: the other keys of the batch are the negatives, as in SimCLR and MoCo v3, and there is no
  queue. 'both': these and the queue.
- `moco.symmetric=True`: each view is a query once and a key once, as in MoCo v3.
- `moco.same_source=True` compares with keys of the query's own dataset only. So telling a hand from a chest, or one
  scanner from another, does not lower the loss.
- `data.patient_positives`: in these datasets the key is a view of any image of the query's patient (MICLe, MedAug).
  Keys of this patient are then no negatives.

Letters: B images, K negatives of a query, D embedding dimensions, L logits per query (1 + K), G batch-norm groups,
N images in a group.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from mtpret_jax.augment import views
from mtpret_jax.data.shuffle_bn import shuffle_keys, unshuffle_keys
from mtpret_jax.models.heads import Projector
from mtpret_jax.models.trunk import make_trunk
from mtpret_jax.objectives import Batch, Carry, Measures, Objective, Params, Weights
from mtpret_jax.objectives.modules import split_graphs, split_weights, take_stats
from mtpret_jax.runtime.sharding import replicate

PARTS = ('trunk', 'projector')  # of an encoder
OWNERS = ('source', 'patient')  # of an image: fields of a batch that decide which keys are negatives

Embed = Callable[[Params, dict, jax.Array, int], tuple[jax.Array, dict]]
Owners = Mapping[str, jax.Array]  # name in OWNERS -> (B,) int32


def make_moco(config: ConfigDict) -> Objective:
  """The objective of stage 1. Its only task is 'moco'.

  A batch has `query` and `key` (B, H, W, 1) uint8, the keys in the order of `shuffle_bn.shuffle_keys`; `source` (B,)
  int32, the index of each query's dataset; and with `data.patient_positives` also `patient` (B,) int32, the index of
  each query's patient.
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
    trunk = make_trunk(config.trunk, rngs=rngs)
    return {'trunk': trunk, 'projector': Projector(trunk.channels, config.moco.dim, rngs=rngs)}

  graphs = split_graphs(build)  # query and key encoder share them

  def embed(params: Params, stats: dict, images: jax.Array, groups: int) -> tuple[jax.Array, dict]:
    modules: dict[str, Any] = {name: nnx.merge(graphs[name], params[name], stats[name]) for name in PARTS}
    z_BD = modules['projector'](modules['trunk'](images, groups=groups))
    return z_BD, {name: take_stats(modules[name]) for name in PARTS}

  return lambda rng: split_weights(build(rng)), embed


def init(config: ConfigDict, init_encoder: Callable, rng: jax.Array,
         weights: Weights | None = None) -> tuple[Params, Carry]:
  """The query encoder's params, and a carry with an identical key encoder and a queue of random unit vectors. Without
  negatives from the queue, the carry has none."""
  rng_encoder, rng_queue = jax.random.split(rng)
  params, stats = init_encoder(rng_encoder)
  if weights is not None:
    params['trunk'], stats['trunk'] = weights['trunk']
  carry: Carry = {
    'stats': stats,
    'key_encoder': params,  # the same arrays twice; `step.init_state` runs this in jit, so buffers are not shared
    'key_stats': stats,
  }
  if config.moco.negatives != 'batch':
    queue_KD = jax.random.normal(rng_queue, (config.moco.queue, config.moco.dim))
    carry['queue'] = queue_KD / jnp.linalg.norm(queue_KD, axis=-1, keepdims=True)
    owners = ('source', 'patient') if config.data.patient_positives else ('source',)
    # -1: a random vector, of no dataset and no patient
    carry |= {f'queue_{owner}': jnp.full((config.moco.queue,), -1, jnp.int32) for owner in owners}
  return params, carry


def compute_loss(config: ConfigDict, embed: Embed, task: str, params: Params, carry: Carry, batch: Batch,
                 step: jax.Array, rng: jax.Array) -> tuple[jax.Array, tuple[Carry, Measures]]:
  """InfoNCE of the queries against their keys and the negatives.

  Measures: `accuracy`, how often a query is closer to its own key than to every negative; `accuracy_batch`, the same
  among the keys of the batch, and `uniformity` (see `rate_batch`); `agreement`, the mean cosine of query and key;
  `spread`, from 0 to 1, of the queries on the unit sphere; 0 if the embedding has collapsed to a point; with a queue
  also `queue_filled`, the share of it that holds keys of images. With `symmetric`, the loss and all other measures are
  means over both directions.
  """
  moco = config.moco
  rng_query, rng_key = jax.random.split(rng)

  # As in the authors' code, the key encoder moves before it encodes, towards the weights from before this step.
  key_params = update_key_encoder(carry['key_encoder'], params, moco.momentum)
  key_images = views.make_view(batch['key'], rng_key, config.augment, config.dtype)
  query_images = views.make_view(batch['query'], rng_query, config.augment, config.dtype)
  # The rows of `query` and `key` are in different orders. So with `symmetric`, where both encoders get the same two
  # views, a query is in another batch-norm group than its key in both directions.
  of_keys = [key_images, query_images] if moco.symmetric else [key_images]
  of_queries = [query_images, key_images] if moco.symmetric else [query_images]
  keys, key_stats = encode(embed, key_params, carry['key_stats'], of_keys, moco.group)
  queries, stats = encode(embed, params, carry['stats'], of_queries, moco.group)

  gathered = gather_keys(keys, {name: batch[name] for name in OWNERS if name in batch}, moco)
  measures = [contrast(query_BD, key_BD, owners, carry, moco)
              for query_BD, (key_BD, owners) in zip(queries, gathered, strict=True)]
  means = {name: average([one[name] for one in measures]) for name in measures[0]}
  new: Carry = {'stats': stats, 'key_encoder': key_params, 'key_stats': key_stats}
  if moco.negatives != 'batch':
    new |= enqueue(carry, *gathered[0], step)  # the keys of the first direction only: one for each image, as in MoCo
    means['queue_filled'] = jnp.minimum((step + 1) * (len(gathered[0][0]) / moco.queue), 1.0)
  return means['loss'], (new, means)


def update_key_encoder(key_params: Params, query_params: Params, momentum: float) -> Params:
  """Moving average of the query encoder. No gradient passes, so keys do not train the query encoder. Running statistics
  are not averaged: each encoder has its own."""
  return jax.tree.map(lambda key, query: momentum * key + (1 - momentum) * jax.lax.stop_gradient(query),
                      key_params, query_params)


def encode(embed: Embed, params: Params, stats: dict, images: Sequence[jax.Array],
           group: int) -> tuple[list[jax.Array], dict]:
  """Encodes one or two views (B, H, W, 1) of a batch in one pass: (z_BD of each, new running statistics).

  With two, groups of the first and of the second view alternate. So each batch-norm group is whole, holds one view, and
  stays on its device, and the running statistics move once, towards the mean over both.
  """
  groups = len(images[0]) // group
  if len(images) == 1:
    z_BD, stats = embed(params, stats, images[0], groups)
    return [z_BD], stats
  # Stacked on an axis that is not split over devices. Joined along the batch axis, half of all images would move.
  stacked = jnp.stack([view.reshape(groups, group, *view.shape[1:]) for view in images], axis=1)  # (G, 2, N, H, W, 1)
  z, stats = embed(params, stats, stacked.reshape(-1, *images[0].shape[1:]), 2 * groups)
  z = z.reshape(groups, 2, group, -1)
  return [z[:, view].reshape(groups * group, -1) for view in range(2)], stats


def gather_keys(keys: Sequence[jax.Array], owners: Owners, moco: ConfigDict) -> list[tuple[jax.Array, Owners]]:
  """Undoes ShuffleBN: (keys in the order of their queries, owners in this order) for each direction. All of it is on
  every device, as the queue and the negatives need it.

  The first keys are in the order of `batch['key']`, and their queries in that of `batch['query']`. With two directions,
  it is the other way round in the second. `owners` are in the order of `batch['query']`.

  Keys and owners travel as one array, so the step has one all-gather; once gathered, the reordering is local.
  """
  dim = keys[0].shape[1]
  # f32 holds the numbers of datasets and patients exactly, up to 2^24.
  rows = replicate(join_columns([*keys, *(owner_B[:, None].astype(jnp.float32) for owner_B in owners.values())]))
  first_BD = replicate(unshuffle_keys(rows[:, :dim], moco.group, moco.shuffle_groups))
  # Owners were never shuffled. Without `replicate`, XLA splits them over the devices and gathers them again.
  owners = {name: replicate(rows[:, len(keys) * dim + column].astype(jnp.int32))
            for column, name in enumerate(owners)}
  if len(keys) == 1:
    return [(first_BD, owners)]
  second_BD = replicate(shuffle_keys(rows[:, dim:2 * dim], moco.group, moco.shuffle_groups))
  return [(first_BD, owners),
          (second_BD, {name: replicate(shuffle_keys(owner_B, moco.group, moco.shuffle_groups))
                       for name, owner_B in owners.items()})]


def join_columns(parts: Sequence[jax.Array]) -> jax.Array:
  """Arrays (B, n) side by side."""
  # A sum of padded arrays instead of a concatenation, on which XLA for GPUs fails (jax 0.10.2).
  ends = list(itertools.accumulate(part.shape[1] for part in parts))
  return functools.reduce(jnp.add, [jnp.pad(part, ((0, 0), (end - part.shape[1], ends[-1] - end)))
                                    for part, end in zip(parts, ends, strict=True)])


def contrast(query_BD: jax.Array, key_BD: jax.Array, owners: Owners, carry: Carry, moco: ConfigDict) -> Measures:
  """The loss and the measures of `compute_loss` in one direction. `owners` are those of the queries, and of the keys in
  the same row."""
  # TPUs multiply f32 in bf16 by default, which is too coarse to compare cosines; 'highest' keeps f32.
  positive_B1 = jnp.einsum('bd,bd->b', query_BD, key_BD, precision='highest')[:, None]
  negative_BK = compare_negatives(query_BD, key_BD, owners, carry, moco)
  return {
    'loss': info_nce(positive_B1, negative_BK, moco.temperature),
    'accuracy': jnp.mean(positive_B1[:, 0] > negative_BK.max(1)),
    **rate_batch(query_BD, key_BD, positive_B1, owners),
    'agreement': positive_B1.mean(),
    'spread': jnp.sqrt(jnp.maximum(1 - jnp.square(query_BD.mean(0)).sum(), 0)),  # unit vectors: 1 - |mean|^2
  }


def compare_negatives(query_BD: jax.Array, key_BD: jax.Array, owners: Owners, carry: Carry,
                      moco: ConfigDict) -> jax.Array:
  """(B, K) cosine of each query with the negatives that `moco.negatives` names; -inf where a key is no negative of this
  query, which then has no weight in the softmax and no gradient."""
  parts = []
  if moco.negatives != 'batch':
    cosine_BK = jnp.einsum('bd,kd->bk', query_BD, carry['queue'], precision='highest')
    parts.append(mask_negatives(cosine_BK, owners, {name: carry[f'queue_{name}'] for name in owners}, moco.same_source))
  if moco.negatives != 'queue':
    cosine_BB = mask_own_keys(jnp.einsum('bd,cd->bc', query_BD, key_BD, precision='highest'))
    parts.append(mask_negatives(cosine_BB, owners, owners, moco.same_source))
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def mask_negatives(cosine_BK: jax.Array, owners: Owners, key_owners: Owners, same_source: bool) -> jax.Array:
  """The cosines, with -inf for keys of the query's patient and, with `same_source`, of other datasets."""
  if same_source:
    cosine_BK = jnp.where(owners['source'][:, None] == key_owners['source'][None], cosine_BK, -jnp.inf)
  if 'patient' in owners:
    cosine_BK = jnp.where(owners['patient'][:, None] == key_owners['patient'][None], -jnp.inf, cosine_BK)
  return cosine_BK


def mask_own_keys(cosine_BB: jax.Array) -> jax.Array:
  """The cosines of a batch, with -inf for each query's own key."""
  return jnp.where(jnp.eye(len(cosine_BB), dtype=bool), -jnp.inf, cosine_BB)


def rate_batch(query_BD: jax.Array, key_BD: jax.Array, positive_B1: jax.Array, owners: Owners) -> Measures:
  """`accuracy_batch`: how often a query is closer to its own key than to every other key of the same batch; chance is
  1 / B. Where positives are of the same patient, keys of the query's patient do not count. `uniformity` (Wang and Isola
  2020): log mean exp(-2 d^2) over queries and the keys of other images; 0 if all embeddings are the same.

  The keys of the queue come from earlier weights of the key encoder, so a query can tell them from its own key by their
  age, without looking at the image. All keys of a batch come from the same weights, so this measure cannot rise that
  way. They are no part of the loss. They need no collective of their own: every device holds all keys.
  """
  query_BD, key_BD, positive_B1 = jax.lax.stop_gradient((query_BD, key_BD, positive_B1))
  cosine_BB = mask_own_keys(jnp.einsum('bd,cd->bc', query_BD, key_BD, precision='highest'))
  closest_B = mask_negatives(cosine_BB, owners, owners, same_source=False).max(1)
  # d^2 = 2 - 2 cos for unit vectors. Own keys have a cosine of -inf here, which adds 0. A plain sum, which joins the
  # step's only all-reduce; `logsumexp` would add one for its maximum.
  total = jnp.exp(4 * cosine_BB - 4).sum()
  return {'accuracy_batch': jnp.mean(positive_B1[:, 0] > closest_B),
          'uniformity': jnp.log(total / (len(query_BD) * (len(query_BD) - 1)))}


def info_nce(positive_B1: jax.Array, negative_BK: jax.Array, temperature: float) -> jax.Array:
  """Mean cross-entropy of picking each query's own key among 1 + K keys (van den Oord et al. 2018)."""
  logits_BL = jnp.concatenate([positive_B1, negative_BK], axis=1) / temperature
  own_key_B = jnp.zeros(len(logits_BL), jnp.int32)
  return optax.softmax_cross_entropy_with_integer_labels(logits_BL, own_key_B).mean()


def average(values: Sequence[jax.Array]) -> jax.Array:
  """The mean of one or two values."""
  return values[0] if len(values) == 1 else sum(values[1:], values[0]) / len(values)


def enqueue(carry: Carry, key_BD: jax.Array, owners: Owners, step: jax.Array) -> dict[str, jax.Array]:
  """The queue, a ring of K places, with its oldest B keys replaced. B need not divide K."""
  keys, places = len(key_BD), len(carry['queue'])
  # A function of the step: there is no pointer to save. The pattern repeats after this many steps; without the modulo,
  # the product would overflow in long runs.
  start = (step % (places // math.gcd(places, keys))) * keys % places
  if places % keys:
    places_B = (start + jnp.arange(keys)) % places  # it may wrap around
    return {'queue': carry['queue'].at[places_B].set(key_BD),
            **{f'queue_{name}': carry[f'queue_{name}'].at[places_B].set(owner_B) for name, owner_B in owners.items()}}
  return {'queue': jax.lax.dynamic_update_slice(carry['queue'], key_BD, (start, 0)),
          **{f'queue_{name}': jax.lax.dynamic_update_slice(carry[f'queue_{name}'], owner_B, (start,))
             for name, owner_B in owners.items()}}
