"""A trained model as an object, which can `predict` and `embed` images. `load.py` makes it.

The compiled functions are those of `evaluation/predict.py`, so a prediction is the one that evaluation gives for the
record of the same image.

Letters: N images, B images of a batch, S side of the square that a stored image is stretched to, C feature channels.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.metrics.temperature import apply_temperature
from mtpret_jax.evaluation.predict import compile_predict
from mtpret_jax.evaluation.probe import make_embed
from mtpret_jax.export.trained import Trained
from mtpret_jax.objectives.multitask import TRUNK
from mtpret_jax.predict.batches import Prediction, run_batches
from mtpret_jax.predict.ensemble import check_ensemble, compile_merge, keep_undecided
from mtpret_jax.predict.outputs import find_positive
from mtpret_jax.predict.reading import CHANNELS, Reading, Unreadable, is_dataset, read_images
from mtpret_jax.runtime.sharding import by_batch, make_mesh, place_batch, replicated
from mtpret_jax.tasks.fitted import FittedTask
from mtpret_jax.tasks.task import About

FEW = 8  # so many images are predicted in a batch of this size, which compiles and runs faster than a whole one
EMBED_BATCH = 64  # of models without a task


class Model:
  """A trained model, or an ensemble of models of one task. `load.load` makes it.

  Attributes:
    members: what was loaded from each path.
    tasks: {name: its description} of all tasks of the run; {} for models that can only embed.
    task: the name of the task that is predicted; '' if there is none or it was not chosen.
    stored_size: '256', '512' or 'original': what `reading.read_image` must be given.
    batch: images that are computed at a time, unless a call says otherwise.
    state: 'best' or 'last'.
    step: of the state.
    thresholds: {finding or box class: the score from which it counts as positive}, chosen on validation; {} where the
      run has none.
  """

  def __init__(self, members: Sequence[Trained], task: str | None = None) -> None:
    first = members[0]
    self.members, self.tasks = members, first.tasks
    self.task = choose_task(first, task)
    self.stored_size: str = first.config.data.stored_size
    check_ensemble(members, self.task)
    self.state, self.step = first.chosen, first.step
    self.mesh = make_mesh(jax.local_devices())
    self.batch: int = first.config.tasks[self.task].batch if self.task else EMBED_BATCH
    self.points = [member.read_points().get(self.task, {}) for member in members]
    self.thresholds: Mapping[str, float] = self.points[0].get('thresholds', {}) if len(members) == 1 else {}

  @property
  def fitted(self) -> FittedTask:
    """The description of the chosen task. Raises ConfigError if there is none."""
    if self.task:
      return self.tasks[self.task]
    where = self.members[0].run
    if self.tasks:
      raise ConfigError(f'{where} has several tasks: choose one with task=..., of {", ".join(self.tasks)}')
    raise ConfigError(f'{where} has no head, because it is not a run of stage 2 or 3: it can embed images, but not '
                      f'predict')

  @property
  def kind(self) -> str:
    """The kind of the task: classification, regression, segmentation or detection."""
    return self.fitted.kind

  @property
  def about(self) -> About:
    """What the task predicts: `findings` and their `relation`, `value`, classes of the `mask`, `box_classes`."""
    return self.fitted.about

  def __repr__(self) -> str:
    first = self.members[0]
    what = f'task={self.task!r}, kind={self.kind!r}, ' if self.task else ''
    runs = ', '.join(str(member.run) for member in self.members)
    return f'Model({what}trunk={first.config.trunk!r}, state={first.chosen!r}, step={first.step}, from {runs})'

  def predict(self, images: Any, batch: int | None = None) -> dict[str, np.ndarray]:
    """Predicts for images.

    Args:
      images: one image, or a sequence of N images: paths, pydicom data sets and arrays (`reading.read_array` has their
        types and ranges), also mixed.
      batch: images that are computed at a time.

    Returns:
      Arrays with leading axis N, in the order of the images:

      | kind of task | arrays |
      |---|---|
      | classification | `score` (N, T) float32 in 0-1, for each of `about['findings']`; `activation` (N, h, w, T),
        class activation maps, not of an ensemble; with operating points also `positive` (N, T) bool,
        False for a finding that validation gave none |
      | regression | `value` (N, 1) float32, in `about['value']['unit']` |
      | segmentation | `mask` (N, H, W) int32, index into `about['mask']`, for the image stretched to a square |
      | detection | `boxes` (N, M, 4) float32: y0, x0, y1, x1 in 0-1 of the image; `class_id` (N, M) int32, index into
        `about['box_classes']`, -1 in empty slots; `score` (N, M) float32 in 0-1, in descending order |

    Raises:
      Unreadable: an image cannot be read; the message says which one.
      ConfigError: the model has no head, or several and none is chosen.
    """
    sources = list_images(images)
    found = self.iterate(self.read(sources), batch or self.choose_batch(len(sources)))
    predictions = [prediction for _, prediction in found if prediction is not None]
    stacked = {field: np.stack([prediction[field] for prediction in predictions]) for field in predictions[0]}
    if self.kind == 'classification' and self.thresholds:
      stacked['positive'] = find_positive(self.about['findings'], self.thresholds, stacked['score'])
    return stacked

  def embed(self, images: Any, batch: int | None = None) -> np.ndarray:
    """(N, C) float32: the mean of the trunk's last feature map; C is 512 for ResNet-18 and 34, 2,048 for ResNet-50.
    Arguments and errors are those of `predict`; a model without a head will do."""
    sources = list_images(images)
    found = self.iterate_features(self.read(sources), batch or self.choose_batch(len(sources)))
    return np.stack([features for _, features in found if features is not None])

  def iterate(self, readings: Iterable[Reading | Unreadable],
              batch: int | None = None) -> Iterator[tuple[Reading | Unreadable, Prediction | None]]:
    """Yields each reading with its prediction, in order; None for an unreadable image. Memory does not grow with the
    number of images. `reading.read_images` reads with `stored_size` of this model."""
    sizes = {self.fitted.size, *(member.tasks[self.task].size for member in self.members)}
    yield from run_batches(readings, self.round_batch(batch or self.batch), sizes, self.compute_predictions,
                           self.combine)

  def iterate_features(self, readings: Iterable[Reading | Unreadable],
                       batch: int | None = None) -> Iterator[tuple[Reading | Unreadable, np.ndarray | None]]:
    """Like `iterate`, with the features (C,) float32 of each image."""
    if self.tasks:
      size = self.fitted.size  # raises where no task is chosen: the running statistics are those of a task
    else:
      size = self.members[0].config.data.size
    if len(self.members) > 1:
      raise ConfigError('the features of several runs have no common axes: load one run to embed')
    found = run_batches(readings, self.round_batch(batch or self.batch), [size],
                        lambda images: self.compute_features(images[size]),
                        lambda outputs: {'features': np.asarray(outputs, np.float32)})
    yield from ((reading, None if row is None else row['features']) for reading, row in found)

  def read(self, sources: Sequence[Any]) -> Iterator[Reading]:
    """Reads images; raises Unreadable at the first that cannot be read, and warns of doubtful ones."""
    for number, found in enumerate(read_images(sources, self.stored_size)):
      where = f'image {number}' if len(sources) > 1 else 'the image'
      if isinstance(found, Unreadable):
        shown = f' ({sources[number]})' if isinstance(sources[number], str | os.PathLike) else ''
        raise Unreadable(f'{where}{shown}: {found}')
      if found.warning:
        warnings.warn(f'{where} ({found.name}): {found.warning}', stacklevel=4)
      yield found

  def choose_batch(self, count: int) -> int:
    """A batch for so many images. There are three sizes only, since each is compiled."""
    return next((size for size in (1, FEW) if count <= size), max(self.batch, FEW))

  def round_batch(self, batch: int) -> int:
    """The next batch that the devices can share evenly."""
    return -(-batch // self.mesh.size) * self.mesh.size

  def compute_predictions(self, images: Mapping[int, np.ndarray]) -> list[Mapping[str, jax.Array]]:
    """What each member predicts for images of its size."""
    batches = {size: place_batch({'image': images_BSS1}, self.mesh) for size, images_BSS1 in images.items()}
    return [predict(params, stats, batches[member.tasks[self.task].size])[1]
            for member, (predict, params, stats) in zip(self.members, self.predictors, strict=True)]

  def combine(self, outputs: Sequence[Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """The predictions of the members for one batch, at their temperatures, as one."""
    if self.kind == 'classification':
      outputs = [{**output, 'score': apply_temperature(self.about, output['score'], point.get('temperature', 1.0))}
                 for output, point in zip(outputs, self.points, strict=True)]
    return outputs[0] if len(outputs) == 1 else self.merge(outputs)

  @functools.cached_property
  def merge(self) -> Callable[[Sequence[Mapping]], Mapping[str, np.ndarray]]:
    return compile_merge(self.fitted.make_model())

  @functools.cached_property
  def predictors(self) -> list[tuple[Callable, Any, Any]]:
    """[(compiled function, params, running statistics)] of each member, on the devices."""
    compiled: dict[str, Callable] = {}
    found = []
    for member in self.members:
      # Seeds of one run differ in their weights only, and share what is compiled.
      key = str(member.tasks[self.task].as_json()) + describe_network(member.config, self.task)
      if key not in compiled:
        model = member.tasks[self.task].make_model()
        compiled[key] = compile_predict(member.config, self.task, model if len(self.members) == 1 else keep_undecided(
          model), self.mesh)
      params = {part: member.params[part] for part in (TRUNK, self.task)}
      found.append((compiled[key], *jax.device_put((params, dict(member.stats)), replicated(self.mesh))))
    return found

  @functools.cached_property
  def compute_features(self) -> Callable[[np.ndarray], jax.Array]:
    """(B, S, S, 1) uint8 -> (B, C)."""
    member = self.members[0]
    trunk = jax.device_put(member.take_trunk(self.task or None), replicated(self.mesh))
    view = self.fitted.view if self.task else member.config.augment.size
    embed = compile_embed(member.config, view, self.mesh)
    return lambda images_BSS1: embed(*trunk, place_batch({'image': images_BSS1}, self.mesh)['image'])


def choose_task(trained: Trained, task: str | None) -> str:
  """The task to predict; '' if there is none, or several and none is chosen."""
  if task is not None and task not in trained.tasks:
    there = f'choose one of {", ".join(trained.tasks)}' if trained.tasks else 'it has none'
    raise ConfigError(f'{trained.run} has no task {task!r}: {there}')
  return task or (next(iter(trained.tasks)) if len(trained.tasks) == 1 else '')


def describe_network(config: ConfigDict, task: str) -> str:
  """What the compiled model of a task depends on, beside its description. Fields of other parts of the config do no
  harm: the model is then compiled once more."""
  return str([config.trunk, config.dtype, config.statistics, config.get('flips'), config.tasks[task].to_json()])


def compile_embed(config: ConfigDict, size: int, mesh: jax.sharding.Mesh) -> Callable:
  """embed(params, stats, images) -> (B, C): as `evaluation/probe.py` embeds images of stage 1."""
  embed = make_embed(config.trunk, size, config.dtype)

  @functools.partial(jax.jit, in_shardings=(replicated(mesh), replicated(mesh), by_batch(mesh)),
                     out_shardings=replicated(mesh))
  def embed_batch(params: Mapping, stats: Mapping, images_BSS1: jax.Array) -> jax.Array:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return embed(params, stats, images_BSS1)

  return embed_batch


def list_images(images: Any) -> list[Any]:
  """The images one by one: a path, a data set and an array of one image are lists of one.

  Raises:
    ValueError: there are none.
  """
  shape: tuple[int, ...] = getattr(images, 'shape', ())
  is_array = len(shape) == 2 or len(shape) == 3 and shape[2] in CHANNELS
  is_single = is_array or isinstance(images, str | os.PathLike) or is_dataset(images)
  sources = [images] if is_single else list(images)
  if not sources:
    raise ValueError('no images given: name at least one')
  return sources
