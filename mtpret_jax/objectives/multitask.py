"""Stages 2 and 3: one trunk and a head per task. A step is on one task, or on all tasks in the order `joint`.

Stage 2 is multitask continual learning: the trunk visits one task after another (`data/task_schedule.py`). Stage 3
fine-tunes the trunk on one task.

Cross-task memory is an L2-SP penalty (Li, Grandvalet and Davoine 2018), l2_sp / 2 * |trunk - anchor|^2. Its gradient,
`pull_trunk`, pulls the trunk towards an anchor, which is the trunk at the end of the previous visit. We infer that
MUSCLE's "cross-task memorization" is this penalty; its strength is our choice. Heads are not pulled.

The trunk's weights are shared, but its running statistics are kept per task by default: a mean over hands and chests
fits neither.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mtpret_jax.augment import labelled
from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.models.trunk import make_trunk
from mtpret_jax.objectives import Batch, Carry, Measures, Objective, Params, Weights, apply_no_pull
from mtpret_jax.objectives.modules import Graphs, split_graphs, split_weights, take_stats
from mtpret_jax.tasks.task import TaskModel

TRUNK, SHARED = 'trunk', 'all'  # a part of the params; the key of shared running statistics

Tasks = Mapping[str, TaskModel]


def make_multitask(config: ConfigDict, tasks: Tasks, begins: np.ndarray) -> Objective:
  """The objective of stages 2 and 3.

  Args:
    tasks: {name: `TaskModel`}.
    begins: (steps,) bool, True for the first step of each visit.

  A batch has the fields of its task, see `tasks/dataset.py:read_row`; the batch of a joint step has the fields of all
  tasks as 'task/field'.
  """
  build = functools.partial(build_modules, config, tasks)
  graphs = split_graphs(build)
  trains_trunk = config.train == 'all'
  # A step must not touch the other heads: weight decay and momentum would move them even at a gradient of zero.
  updated: dict[str, tuple[str, ...]] = {task: (TRUNK, task) if trains_trunk else (task,) for task in tasks}
  updated[JOINT] = (TRUNK, *tasks) if trains_trunk else tuple(tasks)
  # The share is for what pretraining has learned; with random weights there is nothing to keep.
  scales = {} if config.init == 'scratch' else {TRUNK: config.trunk_scale}
  pulls = config.memory.anchor != 'none' and trains_trunk  # a frozen trunk lies on its anchor and gets no gradient
  # `begins` is a constant of the compiled step, which looks up its own step number. The first step of a visit therefore
  # needs no program of its own.
  return Objective(
    init=functools.partial(init, config, tasks, build),
    loss=functools.partial(compute_loss, config, tasks, graphs, jnp.asarray(begins)),
    parts=updated,
    pull=functools.partial(pull_trunk, config.memory.l2_sp) if pulls else apply_no_pull,
    learning_rate_scales=scales,
    average=functools.partial(update_average, config, tasks, updated) if averages(config) else None)


def build_modules(config: ConfigDict, tasks: Tasks, rng: jax.Array) -> dict[str, Any]:
  """{'trunk': the trunk, task: its head}, with random weights."""
  rngs = nnx.Rngs(rng)
  trunk = make_trunk(config.trunk, rngs=rngs)
  return {TRUNK: trunk} | {name: task.make_head(trunk, rngs) for name, task in tasks.items()}


def init(config: ConfigDict, tasks: Tasks, build: Callable, rng: jax.Array,
         weights: Weights | None = None) -> tuple[Params, Carry]:
  """Params of the trunk and of all heads, and a carry with running statistics and the anchor, if there is memory."""
  params, stats = split_weights(build(rng))
  for part, (own_params, own_stats) in (weights or {}).items():
    params[part], stats[part] = (own_params, own_stats) if part == TRUNK else (
      fill(params[part], own_params), fill(stats[part], own_stats))
  # Each task (or all together, see `list_owners`) starts from the same statistics, such as those of stage 1.
  stats[TRUNK] = {owner: stats[TRUNK] for owner in list_owners(config, tasks)}
  carry = {'stats': stats}
  if config.memory.anchor != 'none':
    # Costs another copy of the trunk. The arrays are shared here, but `step.init_state` runs this in jit, which copies.
    carry['anchor'] = params[TRUNK]
  return params, add_average(params, carry) if averages(config) else carry


def averages(config: ConfigDict) -> bool:
  return bool(config.optimiser.ema) if 'optimiser' in config else False


def fill(tree: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
  """The tree with the arrays of `given`, which may lack some."""
  return {key: fill(leaf, given[key]) if isinstance(leaf, dict) and key in given else given.get(key, leaf)
          for key, leaf in tree.items()}


def list_owners(config: ConfigDict, tasks: Tasks) -> list[str]:
  """The keys under which the trunk's running statistics are kept: one per task, or one for all."""
  return [SHARED] if config.statistics == 'shared' else list(tasks)


def find_owner(config: ConfigDict, task: str) -> str:
  """The key of the running statistics that a step on `task` uses and updates."""
  return SHARED if config.statistics == 'shared' else task


def compute_loss(config: ConfigDict, tasks: Tasks, graphs: Graphs, begins: jax.Array, task: str, params: Params,
                 carry: Carry, batch: Batch, step: jax.Array,
                 rng: jax.Array) -> tuple[jax.Array, tuple[Carry, Measures]]:
  """The loss of one task, or the mean of all tasks' losses if joint. Moves the anchor at the first step of a visit.

  Measures: `loss`; `drift`, the distance between the trunk and its anchor. The L2-SP penalty is in neither, see
  `pull_trunk`: losses of runs with different strengths can be compared.
  """
  stats, losses = carry['stats'], []
  if task == JOINT:
    # One task after the other, so that shared running statistics pass through all of them in turn.
    for index, name in enumerate(tasks):
      own_rows = {field.removeprefix(f'{name}/'): rows for field, rows in batch.items() if field.startswith(f'{name}/')}
      own_rng = jax.random.fold_in(rng, index)  # with one key for all, their crops and flips would be the same
      task_loss, stats = compute_task_loss(config, name, tasks[name], graphs, params, stats, own_rows, own_rng)
      losses.append(task_loss)
  else:
    task_loss, stats = compute_task_loss(config, task, tasks[task], graphs, params, stats, batch, rng)
    losses.append(task_loss)
  # A mean, not a sum: the learning rate need not change with the number of tasks.
  loss = sum(losses, jnp.zeros(())) / len(losses)
  carry = carry | {'stats': stats}  # a new dict, because the loss must not change its arguments
  measures = {'loss': loss}
  if config.memory.anchor != 'none':
    moves = begins[step] & (config.memory.anchor == 'previous_visit')
    carry['anchor'] = move_anchor(carry['anchor'], params[TRUNK], moves)
    measures['drift'] = measure_drift(jax.lax.stop_gradient(params[TRUNK]), carry['anchor'])
  return loss, (carry, measures)


def compute_task_loss(config: ConfigDict, name: str, task: TaskModel, graphs: Graphs, params: Params,
                      stats: dict[str, Any], batch: Batch, rng: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
  """(mean loss, new running statistics) of one task on a random view of its batch."""
  task_config, owner = config.tasks[name], find_owner(config, name)
  rng_view, rng_head = jax.random.split(rng)
  batch = labelled.make_labelled_view(batch, rng_view, task_config.augment, config.dtype, task.mirror)
  groups = len(batch['image']) // task_config.group
  # The modules exist only inside this function. Calling them updates their running statistics, which are taken out
  # below.
  trunk = nnx.merge(graphs[TRUNK], params[TRUNK], stats[TRUNK][owner])
  head = nnx.merge(graphs[name], params[name], stats[name])
  # A frozen trunk runs in inference mode, so that the head trains on the features that it will get in evaluation.
  trunk_groups = groups if config.train == 'all' else None
  features = trunk(batch['image'], groups=trunk_groups, output_stride=task.output_stride)
  outputs = task.apply(head, features, batch, groups=groups, rng=rng_head)
  total, count = task.loss(outputs, batch)
  new_stats = {TRUNK: stats[TRUNK] | {owner: take_stats(trunk)}, name: take_stats(head)}
  # Losses are (sum, count) because labels may be missing. A batch without any label has a loss of zero, not NaN.
  return total / jnp.maximum(count, 1), stats | new_stats


def move_anchor(anchor: dict[str, Any], trunk: dict[str, Any], moves: jax.Array) -> dict[str, Any]:
  """The trunk's current weights if `moves`, else the old anchor.

  At the first step of a visit, the current weights are those with which the previous visit ended. `moves` is a traced
  value, so all steps of a task share one compilation.
  """
  current = jax.lax.stop_gradient(trunk)
  return jax.tree.map(lambda old, new: jnp.where(moves, new, old), anchor, current)


def measure_drift(trunk: dict[str, Any], anchor: dict[str, Any]) -> jax.Array:
  """|trunk - anchor|, over all weights, batch-norm scales and biases included. For the log: its gradient would be NaN
  where trunk and anchor are equal."""
  squares = jax.tree.map(lambda weight, anchor_weight: jnp.square(weight - anchor_weight).sum(), trunk, anchor)
  return jnp.sqrt(sum(jax.tree.leaves(squares), jnp.zeros(())))


def pull_trunk(strength: float, params: Params, carry: Carry) -> Params:
  """The gradient of strength / 2 * |trunk - anchor|^2 on the trunk. Its norm is `strength` times the drift."""
  return {TRUNK: jax.tree.map(lambda weight, anchor_weight: strength * (weight - anchor_weight),
                              params[TRUNK], carry['anchor'])}


def make_predict(config: ConfigDict, name: str, task: TaskModel) -> Callable[..., tuple[Batch, Any]]:
  """predict(params, stats, batch) -> (the batch as the trunk sees it, predictions of the task), for whole images.

  `stats` is `carry['stats']`. The running statistics are used and not changed.
  """
  graphs = split_graphs(functools.partial(build_modules, config, {name: task}))  # only the head that is evaluated

  def predict(params: Params, stats: dict[str, Any], batch: Batch) -> tuple[Batch, Any]:
    batch = labelled.make_labelled_plain(batch, config.tasks[name].augment.size, config.dtype)
    trunk = nnx.merge(graphs[TRUNK], params[TRUNK], stats[TRUNK][find_owner(config, name)])
    head = nnx.merge(graphs[name], params[name], stats[name])

    def compute(seen: Batch) -> Any:
      # Without groups, the prediction for an image does not depend on the other images of its batch.
      features = trunk(seen['image'], groups=None, output_stride=task.output_stride)
      return task.apply(head, features, seen, groups=None, rng=None)
    predictions = task.predict(compute(batch))
    if config.get('flips', False) and task.merge is not None:
      mirrored = task.predict(compute({**batch, 'image': batch['image'][:, :, ::-1]}))
      # What is not merged, such as class activation maps, is that of the image itself.
      predictions = {**predictions, **task.merge([predictions, task.unmirror(mirrored)])}
    return batch, task.decide(predictions)
  return predict


# Averaged weights


def add_average(params: Params, carry: Carry) -> Carry:
  """The carry with an average of the weights and of the running statistics, which starts as these. It costs another
  copy of the weights."""
  updates = {part: jnp.int32(0) for part in params}
  return carry | {'average': {'params': params, 'stats': carry['stats'], 'updates': updates}}


def update_average(config: ConfigDict, tasks: Tasks, parts: Mapping[str, tuple[str, ...]], task: str, params: Params,
                   carry: Carry) -> Carry:
  """The carry after a step on `task`: the average moves towards the new weights of the parts that the step trained, and
  towards their running statistics, by 1 - min(ema, (1 + n) / (10 + n)) after n updates of the part.

  The share is small at first, as in TensorFlow's ExponentialMovingAverage, so that random weights are soon forgotten. n
  is counted by part: the head of a task that is first visited late has had few updates.
  """
  average, stats = carry['average'], carry['stats']
  updates = {part: count + (part in parts[task]) for part, count in average['updates'].items()}

  def move(part: str, old: Any, new: Any) -> Any:
    count = updates[part].astype(jnp.float32)
    share = 1 - jnp.minimum(config.optimiser.ema, (1 + count) / (10 + count))
    return jax.tree.map(lambda before, now: before + share * (now - before), old, new)

  names = list(tasks) if task == JOINT else [task]
  owners = {find_owner(config, name): TRUNK if config.statistics == 'shared' else name for name in names}
  moved = {name: move(name, average['stats'][name], stats[name]) for name in names}
  moved[TRUNK] = average['stats'][TRUNK] | {
    owner: move(part, average['stats'][TRUNK][owner], stats[TRUNK][owner]) for owner, part in owners.items()}
  return carry | {'average': {
    'params': average['params'] | {part: move(part, average['params'][part], params[part]) for part in parts[task]},
    'stats': average['stats'] | moved, 'updates': updates}}
