"""A model as StableHLO, by `jax.export`: weights and images in, predictions out. It runs wherever jax does, without
this package.

The weights are an argument and not part of the program: XLA would spend longer on folding them than on compiling.

Letters: B images, S side of the square that the network is given, h w C rows, columns and channels of the last feature
map, T findings.
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtpret_jax.augment import labelled
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.metrics.temperature import MARGIN
from mtpret_jax.export.trained import Trained
from mtpret_jax.models.pool import pool_mean
from mtpret_jax.objectives.modules import split_graphs
from mtpret_jax.objectives.multitask import TRUNK, build_modules, find_owner, make_predict
from mtpret_jax.runtime import backend
from mtpret_jax.runtime.atomic_io import write_atomically, write_json
from mtpret_jax.tasks.fitted import FittedTask
from mtpret_jax.tasks.task import TaskModel
from tfds_builders.common.dataset import SIZES

FILE, WEIGHTS, SPEC = 'model.stablehlo', 'weights.npz', 'stablehlo.json'
PLATFORMS = ('cpu', 'cuda', 'tpu')
Outputs = dict[str, jax.Array]
Weights = Mapping[str, Any]  # {path of an array in the network: array}
# What each output is, for the description of the model.
MEANINGS = {
  'score': 'probability, 0 to 1', 'logits': 'before the temperature and the sigmoid or softmax',
  'features': 'last feature map', 'embedding': 'mean of the last feature map',
  'activation': 'class activation map: its mean plus the bias is the logit; its positive part is Grad-CAM',
  'value': 'in the unit that `about` names',
  'mask': 'index of the class of each pixel of the image stretched to a square',
  'boxes': 'y0, x0, y1, x1 in 0-1 of the image; zeros in empty slots',
  'class_id': 'index of the class; -1 in empty slots'}


def write(trained: Trained, task: str | None, folder: pathlib.Path) -> dict[str, Any]:
  """Writes the program of a task, or after stage 1 of the trunk, its weights, and `stablehlo.json`, which it returns.

  Raises:
    ConfigError: the package that jax needs for this is missing.
  """
  exported = export(trained, task)
  try:
    data = exported.serialize()
  except ImportError as error:
    raise ConfigError(f'jax writes StableHLO with the package flatbuffers, which is missing ({error}): type '
                      f'pip install flatbuffers') from error
  write_atomically(folder / FILE, bytes(data))
  packed = io.BytesIO()
  np.savez(packed, allow_pickle=False, **flatten(trained, task))
  write_atomically(folder / WEIGHTS, packed.getvalue())
  spec = describe(trained, task, exported)
  write_json(folder / SPEC, spec)
  return spec


def export(trained: Trained, task: str | None) -> jax.export.Exported:
  """The function (weights, images (B, S, S, 1) uint8) -> outputs, for any B and each of PLATFORMS."""
  size = trained.tasks[task].size if task else trained.config.data.size
  shape = (*jax.export.symbolic_shape('B'), size, size, 1)
  with backend.default_implementations():  # it must run on other machines too
    return jax.export.export(jax.jit(make_function(trained, task)), platforms=PLATFORMS)(
      jax.tree.map(jax.typeof, flatten(trained, task)), jax.ShapeDtypeStruct(shape, np.uint8))


def make_function(trained: Trained, task: str | None) -> Callable[[Weights, jax.Array], Outputs]:
  """(weights, images (B, S, S, 1) uint8) -> outputs."""
  parts = take_parts(trained, task)
  names, treedef = list_names(parts), jax.tree.structure(parts)
  compute = make_trunk_function(trained) if task is None else make_task_function(trained, task)

  def predict(weights: Weights, images: jax.Array) -> Outputs:
    return compute(jax.tree.unflatten(treedef, [weights[name] for name in names]), images)
  return predict


def make_trunk_function(trained: Trained) -> Callable[[Mapping[str, tuple], jax.Array], Outputs]:
  config, graphs = trained.config, split_graphs(functools.partial(build_modules, trained.config, {}))

  def embed(parts: Mapping[str, tuple], images: jax.Array) -> Outputs:
    batch = labelled.make_labelled_plain({'image': images}, config.augment.size, config.dtype)
    last = nnx.merge(graphs[TRUNK], *parts[TRUNK])(batch['image'], groups=None)[-1]
    return {'embedding': pool_mean(last), 'features': last.astype(jnp.float32)}
  return embed


def make_task_function(trained: Trained, task: str) -> Callable[[Mapping[str, tuple], jax.Array], Outputs]:
  """The prediction of evaluation; for a classification also what its score is made of."""
  fitted, temperature = trained.tasks[task], trained.read_temperature(task)
  is_classification = fitted.kind == 'classification'
  model = show_features(fitted.make_model()) if is_classification else fitted.make_model()
  compute, owner = make_predict(trained.config, task, model), find_owner(trained.config, task)

  def predict(parts: Mapping[str, tuple], images: jax.Array) -> Outputs:
    params = {part: own_params for part, (own_params, _) in parts.items()}
    stats = {TRUNK: {owner: parts[TRUNK][1]}, task: parts[task][1]}
    _, outputs = compute(params, stats, {'image': images})
    if is_classification:
      outputs['score'] = scale_score(outputs['score'], fitted.about['relation'], temperature)
    return outputs
  return predict


def show_features(model: TaskModel) -> TaskModel:
  """A classification whose predictions also have `logits` and `features`, those of the image as it is."""
  def apply(head: Any, features: list, batch: Mapping, **options: Any) -> Outputs:
    return model.apply(head, features, batch, **options) | {'features': features[-1].astype(jnp.float32)}
  return dataclasses.replace(model, apply=apply, predict=lambda outputs: model.predict(outputs) | outputs)


def scale_score(score_BT: jax.Array, relation: str, temperature: float) -> jax.Array:
  """As `metrics.temperature.apply_temperature`."""
  if temperature == 1:
    return score_BT
  score_BT = jnp.clip(score_BT, jnp.finfo(jnp.float32).tiny, 1 - MARGIN)
  if relation == 'independent':
    return jax.nn.sigmoid((jnp.log(score_BT) - jnp.log1p(-score_BT)) / temperature)
  return jax.nn.softmax(jnp.log(score_BT) / temperature)


def take_parts(trained: Trained, task: str | None) -> dict[str, tuple]:
  """{'trunk': (params, stats), task: the same of its head}."""
  return {TRUNK: trained.take_trunk(task)} | ({task: trained.take_head(task)} if task else {})


def list_names(parts: Mapping[str, tuple]) -> list[str]:
  """A name for each array, such as 'trunk/stages/0/0/conv1/kernel', in the order of the tree."""
  return [f'{part.key}/{"/".join(str(step.key) for step in path)}'
          for (part, _, *path), _ in jax.tree_util.tree_leaves_with_path(parts)]


def flatten(trained: Trained, task: str | None) -> dict[str, np.ndarray]:
  """The weights of a function that `make_function` gives."""
  parts = take_parts(trained, task)
  return dict(zip(list_names(parts), map(np.asarray, jax.tree.leaves(parts)), strict=True))


def describe(trained: Trained, task: str | None, exported: jax.export.Exported) -> dict[str, Any]:
  """The content of `stablehlo.json`:

    file, weights            the program, and its first argument
    platforms, jax           where it runs, and the version of jax that wrote it
    kind                     of task; 'trunk' after stage 1
    task, state, step        name of the task in the run ('' after stage 1); 'best' or 'last', and its step
    input                    the second argument: shape and type of the images; B is any number of them
    stored_longest           px: the longer side of an image is first reduced to this; null: it is not
    outputs                  {name: shape, type, meaning}
    about                    names of findings, classes and the value, with its unit
    temperature              what the logits are divided by before they become probabilities
    thresholds               {finding or box class: the score from which it counts as positive}, where the run has them
  """
  fitted: FittedTask | None = trained.tasks[task] if task else None
  outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
  return {
    'file': FILE, 'platforms': list(exported.platforms), 'jax': jax.__version__,
    'kind': fitted.kind if fitted else 'trunk', 'task': task or '', 'state': trained.chosen, 'step': trained.step,
    'weights': WEIGHTS,
    'input': describe_array(exported.in_avals[-1]) | {
      'meaning': 'grey images, bone bright, stretched to a square; the model standardises them'},
    'stored_longest': SIZES[trained.config.data.stored_size],
    'outputs': {name: describe_array(array) | {'meaning': MEANINGS.get(name, '')} for name, array in outputs.items()},
    'about': {field: fitted.about[field] for field in ('findings', 'relation', 'value', 'mask', 'box_classes')
              if field in fitted.about} if fitted else {},
    'temperature': trained.read_temperature(task),
    'thresholds': trained.read_points().get(task, {}).get('thresholds', {}) if task else {}}


def describe_array(array: Any) -> dict[str, Any]:
  return {'shape': [side if isinstance(side, int) else str(side) for side in array.shape], 'type': array.dtype.name}
