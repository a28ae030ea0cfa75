"""Stages 2 and 3: one trunk, a head for each task, a step on one task at a time (or, `joint`, on all).

Cross-task memory is the explicit inductive bias of Li, Grandvalet and Davoine (2018, L2-SP): the trunk is pulled toward
the weights that it had when the previous visit ended. That MUSCLE's "cross-task memorization" is this is an inference;
its strength is our choice. Heads are not pulled. Running statistics of the trunk are kept for each task, since a mean
over hands says nothing of chests; its weights are shared.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.augment import labelled
from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.models.resnet import ResNet
from mtpret_jax.objectives import Objective

TRUNK, SHARED = 'trunk', 'all'


def make_multitask(config, tasks, begins):
  """The objective of the tasks {name: `Task`}; `begins` (steps,) bool says which steps begin a visit. A joint batch has
  the fields of all tasks as 'name/field'."""
  build = functools.partial(build_modules, config, tasks)
  graphs = {name: nnx.split(module)[0] for name, module in nnx.eval_shape(lambda: build(jax.random.key(0))).items()}
  live = {task: (TRUNK, task) if config.train == 'all' else (task,) for task in tasks}
  live[JOINT] = (TRUNK,) * (config.train == 'all') + tuple(tasks)
  return Objective(
    init=functools.partial(init, config, tasks, build),
    loss=functools.partial(compute_loss, config, tasks, graphs, jnp.asarray(begins)),
    parts=live)


def build_modules(config, tasks, rng):
  rngs = nnx.Rngs(rng)
  trunk = ResNet(config.trunk, rngs=rngs)
  return {TRUNK: trunk} | {name: task.make_head(trunk, rngs) for name, task in tasks.items()}


def init(config, tasks, build, rng, trunk=None):
  parts = {name: [nnx.to_pure_dict(part) for part in nnx.split(module, nnx.Param, nnx.BatchStat)[1:]]
           for name, module in build(rng).items()}
  params, stats = ({name: part[index] for name, part in parts.items()} for index in (0, 1))
  if trunk is not None:
    params[TRUNK], stats[TRUNK] = trunk
  stats[TRUNK] = {owner: stats[TRUNK] for owner in find_owners(config, tasks)}
  carry = {'stats': stats}
  if config.memory.anchor != 'none':
    carry['anchor'] = params[TRUNK]
  return params, carry


def find_owners(config, tasks):
  """Whose running statistics the trunk keeps."""
  return [SHARED] if config.statistics == 'shared' else list(tasks)


def owner_of(config, task):
  return SHARED if config.statistics == 'shared' else task


def compute_loss(config, tasks, graphs, begins, task, params, carry, batch, step, rng):
  """The loss of one task, or the mean of all tasks' losses, and the pull of the memory."""
  stats, losses = carry['stats'], {}
  if task == JOINT:
    for index, name in enumerate(tasks):
      own = {field.removeprefix(f'{name}/'): rows for field, rows in batch.items() if field.startswith(f'{name}/')}
      losses[name], stats = compute_task_loss(config, name, tasks[name], graphs, params, stats, own, jax.random.fold_in(rng, index))
  else:
    losses[task], stats = compute_task_loss(config, task, tasks[task], graphs, params, stats, batch, rng)
  loss = sum(losses.values()) / len(losses)
  carry = carry | {'stats': stats}
  measures = {'loss': loss}
  if config.memory.anchor != 'none':
    now = jax.lax.stop_gradient(params[TRUNK])
    moves = begins[step] & (config.memory.anchor == 'previous_visit')
    carry['anchor'] = jax.tree.map(lambda old, new: jnp.where(moves, new, old), carry['anchor'], now)
    distance = measure_distance(params[TRUNK], carry['anchor'])
    loss = loss + 0.5 * config.memory.l2_sp * distance
    measures['drift'] = jnp.sqrt(distance)
  return loss, (carry, measures)


def measure_distance(weights, others):
  """The square of the Euclidean distance between two trees of arrays."""
  return sum(jnp.square(one - other).sum()
             for one, other in zip(jax.tree.leaves(weights), jax.tree.leaves(others), strict=True))


def compute_task_loss(config, name, task, graphs, params, stats, batch, rng):
  """(mean loss, stats) of one task on a view of its batch."""
  task_config, owner = config.tasks[name], owner_of(config, name)
  rng_view, rng_head = jax.random.split(rng)
  batch = labelled.make_labelled_view(batch, rng_view, task_config.augment, config.dtype)
  groups = len(batch['image']) // task_config.group
  trunk = nnx.merge(graphs[TRUNK], params[TRUNK], stats[TRUNK][owner])
  head = nnx.merge(graphs[name], params[name], stats[name])
  moves = config.train == 'all'  # a frozen trunk shows what it shows in inference
  features = trunk(batch['image'], groups=groups if moves else None, output_stride=task.output_stride)
  outputs = task.apply(head, features, batch, groups=groups, rng=rng_head)
  total, count = task.loss(outputs, batch)
  kept = {TRUNK: stats[TRUNK] | {owner: take_stats(trunk)}, name: take_stats(head)}
  return total / jnp.maximum(count, 1), stats | kept


def take_stats(module):
  return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def make_predict(config, name, task):
  """predict(params, stats, batch) -> what the task predicts for whole images, `stats` being `carry['stats']`."""
  graphs = {part: nnx.split(module)[0] for part, module in nnx.eval_shape(
    lambda: build_modules(config, {name: task}, jax.random.key(0))).items()}

  def predict(params, stats, batch):
    batch = labelled.make_labelled_plain(batch, config.tasks[name].augment.size, config.dtype)
    trunk = nnx.merge(graphs[TRUNK], params[TRUNK], stats[TRUNK][owner_of(config, name)])
    head = nnx.merge(graphs[name], params[name], stats[name])
    features = trunk(batch['image'], groups=None, output_stride=task.output_stride)
    return batch, task.predict(task.apply(head, features, batch, groups=None, rng=None))
  return predict
