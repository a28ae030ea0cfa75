"""`TaskKind`: everything that the rest of the code needs to know about one kind of task.

Each kind of task has a file in this package, with everything from reading its label to drawing its prediction, except
that the scores and tables of the built-in kinds are in `evaluation/metrics/`. A new kind may have everything in its one
file, as `tests/support/toy_kind.py` does.

The parts that read and score records are NumPy only: worker processes import them, and importing JAX there would cost
each worker seconds and hundreds of megabytes. So the files import JAX lazily, when `make_model` first uses it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from ml_collections import ConfigDict

from mtpret_jax.config.rules import Rule
from mtpret_jax.evaluation.metrics.scoring import Metrics

with epy.lazy_imports():
  import jax
  import jax.numpy as jnp

About = Mapping[str, Any]  # a dataset's metadata: findings, relation, value, mask, box_classes
Row = dict[str, np.ndarray]  # one image of a batch, field by field, without the batch axis


def keep(predictions: Mapping) -> Mapping:
  return predictions


@dataclasses.dataclass(frozen=True)
class TaskModel:
  """Head, loss and prediction. Functions of arrays; only the head has weights.

  Attributes:
    make_head: (trunk, rngs) -> the head, an `nnx.Module` for the trunk's channels.
    output_stride: the stride of the last feature map that the head wants from the trunk: 8, 16 or 32.
    apply: (head, features, batch, *, groups, rng) -> outputs, a dict of arrays with leading axis B. In training,
      `groups` is the number of batch-norm groups and `rng` is the key for dropout and sampling; both are None in
      inference.
    loss: (outputs, batch) -> (sum, count), float32 scalars. Unknown, unannotated and padded entries are in neither, so
      sums and counts of several batches can be added.
    predict: outputs of inference -> predictions, a dict of arrays.
    mirror: the class that each finding, mask class or box class becomes in a mirrored image (`sides.find_mirror`);
      None if none changes.
    merge: predictions of several models or views -> one, such as their mean; None for a kind that does not offer it.
    unmirror: predictions for mirrored images -> predictions for the images.
    decide: predictions -> what is kept of them, such as the likeliest class of each pixel. `merge` and `unmirror` are
      for what comes before.
  """

  make_head: Callable
  output_stride: int
  apply: Callable
  loss: Callable
  predict: Callable
  mirror: tuple[int, ...] | None = None
  merge: Callable[[Sequence[Mapping]], dict] | None = None
  unmirror: Callable[[Mapping], Mapping] = keep
  decide: Callable[[Mapping], Mapping] = keep


def select_all(about: About, task_config: ConfigDict) -> About:
  return about


def accept(name: str, task_config: ConfigDict) -> None:
  return None


def no_summary(record: Mapping) -> dict[str, Any]:
  return {}


def no_classes(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> dict[str, np.ndarray]:
  return {}


def accept_split(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> str:
  return ''


def configured_head(task_config: ConfigDict, source: Any) -> ConfigDict | None:
  return task_config.get('head')


def configured_labels(task_config: ConfigDict, labels: Sequence[Mapping]) -> ConfigDict:
  return task_config


@dataclasses.dataclass(frozen=True)
class TaskKind:
  """One kind of task.

  `about` is a dataset's metadata, `task_config` is `config.tasks.NAME`.

  Attributes:
    name: what `task_config.kind` says, such as 'classification'.
    annotation: the entry of `about` that a dataset needs for this kind of task.
    read_label: (about, task_config, record) -> the label's fields of one row of a batch. Raises ValueError where the
      record contradicts `about`.
    label_shapes: (about, task_config) -> {field: (shape, dtype)} of such a row.
    find_defect: (about, task_config, record, split) -> why the task cannot use the record in this split, one of
      'train', 'validation' and 'test'; '' if it can.
    make_model: (about, head config) -> `TaskModel`.
    make_row: (about, batch, predictions, index) -> the columns of `metrics` for image `index` of a batch.
    metrics: how rows are scored and written to a table, and whether a higher or a lower headline score is better.
    draw: (axes, about, labels, prediction) -> None: draws one image's labels and prediction over it. Both are dicts
      of one image's fields, and `labels` is empty where nobody labelled the image. For new images,
      `about['thresholds']` has the operating points. The axes show the image with x and y from 0 to 1.
    head_schema: the fields of `task_config.head`.
    legend: what the lines and colours of `draw` mean where there are labels; '' where the picture says it itself.
    draw_activation: (axes, about, labels, prediction) -> None: draws over an image what its prediction comes from; None
      for a kind of task that cannot. `labels` as in `draw`.
    dense: whether a label has the size of the image, as masks have.
    select: (about, task_config) -> `about` reduced to what the task asks for.
    check: (task name, task_config) -> None. Raises ConfigError for values that do not fit each other.
    summarise_label: record -> what the functions below need of a label that is too large to keep, such as the classes
      of a mask. It is added to the label fields of the record.
    list_classes: (about, task_config, labels) -> {class: (N,) bool, which of N images show it}, for classes that
      training needs. `labels` has the label fields of the N records, without masks.
    find_split_defect: (about, task_config, labels) -> why these labels alone can be neither learned nor scored, such as
      'has one class only'; '' if they can.
    fit_head: (task_config, source) -> the head's config, with numbers taken from the training records. `source` is
      None where only shapes matter.
    fit_labels: (task_config, labels) -> the task's config with which `read_label` keeps all of these labels.
      Evaluation reads with it; training has the fixed shapes of `label_shapes`.
    make_loss: (about, task_config, labels) -> `TaskModel.loss` as `task_config.loss` wants it, with numbers from the
      labels of the training records; None for a kind without these options.
  """

  name: str
  annotation: str
  read_label: Callable[[About, ConfigDict, Mapping], Row]
  label_shapes: Callable[[About, ConfigDict], dict[str, tuple]]
  find_defect: Callable[[About, ConfigDict, Mapping, str], str]
  make_model: Callable[[About, ConfigDict | None], TaskModel]
  make_row: Callable[[About, Mapping, Mapping, int], dict[str, Any]]
  metrics: Metrics
  draw: Callable[[Any, About, Row, Row], None]
  legend: str = ''
  draw_activation: Callable[[Any, About, Row, Row], None] | None = None
  head_schema: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
  dense: bool = False
  select: Callable[[About, ConfigDict], About] = select_all
  check: Callable[[str, ConfigDict], None] = accept
  summarise_label: Callable[[Mapping], dict[str, Any]] = no_summary
  list_classes: Callable[[About, ConfigDict, Sequence[Mapping]], dict[str, np.ndarray]] = no_classes
  find_split_defect: Callable[[About, ConfigDict, Sequence[Mapping]], str] = accept_split
  fit_head: Callable[[ConfigDict, Any], ConfigDict | None] = configured_head
  fit_labels: Callable[[ConfigDict, Sequence[Mapping]], ConfigDict] = configured_labels
  make_loss: Callable[[About, ConfigDict, Sequence[Mapping]], Callable] | None = None


def find_rows(batch: Mapping) -> 'jax.Array':
  """(B,) bool: the images that are not padding. Only batches of evaluation have padding."""
  return batch['valid'] if 'valid' in batch else jnp.ones(len(batch['image']), bool)


def average(field: str, predictions: Sequence[Mapping]) -> dict:
  """The mean of one field."""
  return {field: sum(each[field] for each in predictions) / len(predictions)}


def sum_weighted(losses: 'jax.Array', weights: 'jax.Array', is_known: 'jax.Array') -> tuple['jax.Array', 'jax.Array']:
  """(sum, count) of the losses whose label is known, as `sum_known`, with sum / count their weighted mean."""
  weights = jnp.where(is_known, weights, 0)
  mean = jnp.where(is_known, losses * weights, 0).sum() / jnp.maximum(weights.sum(), jnp.finfo(jnp.float32).tiny)
  count = is_known.sum().astype(jnp.float32)
  return mean * count, count


def sum_known(losses: 'jax.Array', is_known: 'jax.Array') -> tuple['jax.Array', 'jax.Array']:
  """(sum, count) of the losses whose label is known, float32 scalars."""
  return jnp.where(is_known, losses, 0).sum(), is_known.sum().astype(jnp.float32)
