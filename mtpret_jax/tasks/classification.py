"""Classification: which of T findings are present, from the mean over the last feature map.

Findings are independent (a sigmoid each), or exactly one is present: 'exclusive', or 'ordinal' where the findings are
ordered by severity (one softmax). The loss does not use the order of ordinal findings, only the metrics do; this is our
choice.

Letters: B images, N rows of a table, T findings.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from ml_collections import ConfigDict

from mtpret_jax.data.records import name_record, read_text
from mtpret_jax.evaluation.metrics import classification
from mtpret_jax.tasks import focal_losses
from mtpret_jax.tasks.class_weights import BALANCED, balance, read_weights, weigh_positives
from mtpret_jax.tasks.sides import exchange, find_mirror
from mtpret_jax.tasks.task import About, Row, TaskKind, TaskModel, average, find_rows, sum_known

with epy.lazy_imports():
  import jax
  import optax

  from mtpret_jax.models import heads


SOFT = (0.55, 0.85)  # Pham et al. 2021
WRONG = 0.5  # error of a probability above which a finding contradicts its label
HEAT = 0.6  # opacity of the place that raises a probability most

# Labels


def read_label(about: About, task_config: ConfigDict, record: Mapping) -> Row:
  """`present` (T,) float32, 0 where not known; `label_mask` (T,) bool: which findings are known."""
  label_mask, stated = np.asarray(record['label_mask'], bool), np.asarray(record['present'])
  shape = (len(about['findings']),)
  present = np.where(label_mask, stated, 0).astype(np.float32) if label_mask.shape == stated.shape == shape else stated
  if present.shape != shape or not np.isin(present, (0, 1)).all():
    raise ValueError(f'{name_record(record)}: present is {present.tolist()}, but it must be 0 or 1 for each of '
                     f'{about["findings"]}')
  if 'uncertain' in record:
    present, label_mask = decide_uncertain(task_config.get('uncertain', 'ignore'), record, present, label_mask)
  columns = list_columns(about, task_config)
  return {'present': present[columns], 'label_mask': label_mask[columns]}


def decide_uncertain(policy: str, record: Mapping, present: np.ndarray,
                     label_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(present, label_mask) where uncertain labels are what the policy says: unknown ('ignore'), 'zeros' or 'ones'
  (U-Ignore, U-Zeros and U-Ones of Irvin et al. 2019), or 'soft', a random number from SOFT, fixed for each image
  (U-Ones with label smoothing, Pham et al. 2021)."""
  uncertain = np.asarray(record['uncertain'], bool)
  if policy == 'ignore':
    return present, label_mask
  if policy == 'soft':
    rng = np.random.default_rng(zlib.crc32(read_text(record['image_id']).encode()))
    guess: Any = rng.uniform(*SOFT, size=len(uncertain))
  else:
    guess = float(policy == 'ones')
  return np.where(uncertain, guess, present).astype(np.float32), label_mask | uncertain


def read_certain_labels(task_config: ConfigDict, labels: Sequence[Mapping]) -> ConfigDict:
  """The config for evaluation: uncertain labels are in no score, whatever training makes of them."""
  return ConfigDict({**task_config, 'uncertain': 'ignore'})


def list_columns(about: About, task_config: ConfigDict) -> list[int]:
  """The places of the findings that the task asks for; no findings in the config means all."""
  return [about['findings'].index(name) for name in select_findings(about, task_config)['findings']]


def select_findings(about: About, task_config: ConfigDict) -> About:
  """`about` with only the findings that the task asks for. Raises ValueError for a finding that is not there."""
  names = task_config.get('findings') or ()
  absent = [name for name in names if name not in about['findings']]
  if absent:
    raise ValueError(f'{task_config.dataset} has no finding {absent[0]!r}: choose one of '
                     f'{", ".join(about["findings"])}')
  return {**about, 'findings': list(names)} if names else about


def label_shapes(about: About, task_config: ConfigDict) -> dict[str, tuple]:
  findings = len(list_columns(about, task_config))
  return {'present': ((findings,), np.float32), 'label_mask': ((findings,), np.bool_)}


def find_defect(about: About, task_config: ConfigDict, record: Mapping, split: str) -> str:
  if task_config.get('among') and not shows(about, record, task_config.among):
    return f'no {task_config.among}'
  columns = list_columns(about, task_config)
  label_mask, present = np.asarray(record['label_mask'], bool)[columns], np.asarray(record['present'])[columns]
  if about['relation'] == 'independent':
    if split == 'train' and task_config.get('uncertain', 'ignore') != 'ignore' and 'uncertain' in record:
      label_mask = label_mask | np.asarray(record['uncertain'], bool)[columns]
    return '' if label_mask.any() else 'no known finding'
  known = int((present[label_mask] > 0).sum())
  return '' if known == 1 else 'several findings known to be present' if known else 'no finding known to be present'


def shows(about: About, record: Mapping, finding: str) -> bool:
  """Whether an image is known to have the finding. Raises ValueError if the dataset has no such finding."""
  if finding not in about['findings']:
    raise ValueError(f'there is no finding {finding!r}: choose one of {", ".join(about["findings"])}')
  column = about['findings'].index(finding)
  return bool(record['label_mask'][column]) and record['present'][column] > 0


def list_classes(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> dict[str, np.ndarray]:
  """A class for each finding; for each independent finding another one, 'no <finding>', of images known not to have
  it. Uncertain labels are what the policy of the config says; a soft one is present."""
  columns, names = list_columns(about, task_config), select_findings(about, task_config)['findings']
  label_mask_NT = np.array([label['label_mask'] for label in labels], bool)
  present_NT = np.array([label['present'] for label in labels])
  policy = task_config.get('uncertain', 'ignore')
  if labels and 'uncertain' in labels[0]:  # each record of a dataset has the field, or none has
    uncertain = {'uncertain': [label['uncertain'] for label in labels]}
    present_NT, label_mask_NT = decide_uncertain('ones' if policy == 'soft' else policy, uncertain, present_NT,
                                                 label_mask_NT)
  present_NT, label_mask_NT = present_NT[:, columns] > 0, label_mask_NT[:, columns]
  classes = dict(zip(names, (present_NT & label_mask_NT).T, strict=True))
  if about['relation'] == 'independent':
    classes |= {f'no {name}': absent_N for name, absent_N in zip(names, (~present_NT & label_mask_NT).T, strict=True)}
  return classes


def find_split_defect(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> str:
  classes = list_classes(about, task_config, labels)
  shown = [name for name, shown_N in classes.items() if shown_N.any()]
  if about['relation'] != 'independent':
    return '' if len(shown) > 1 else f'has one class only ({", ".join(shown)})'
  if any(name in shown and f'no {name}' in shown for name in classes):
    return ''
  return f'has no finding that is present in one image and absent in another (only {", ".join(shown)})'


# Model


def make_model(about: About, config: ConfigDict | None) -> TaskModel:
  """Pool and linear layer; binary cross-entropy for independent findings, softmax cross-entropy for the others."""
  exclusive, mirror = about['relation'] != 'independent', find_mirror(about['findings'])

  def apply(head: Any, features: Sequence, batch: Mapping, *, groups: int | None, rng: Any) -> dict:
    return {'logits': head(features), 'activation': head.map_activation(features)}

  def predict(outputs: Mapping) -> dict:
    score_BT = (jax.nn.softmax if exclusive else jax.nn.sigmoid)(outputs['logits'])
    return {'score': score_BT, 'activation': outputs['activation']}

  return TaskModel(
    make_head=lambda trunk, rngs: heads.LinearHead(trunk.channels, len(about['findings']), rngs=rngs),
    output_stride=32,
    apply=apply,
    loss=exclusive_loss if exclusive else independent_loss,
    predict=predict,
    mirror=mirror,
    merge=functools.partial(average, 'score'),
    unmirror=lambda predictions: {'score': exchange(predictions['score'], mirror)})


def independent_loss(outputs: Mapping, batch: Mapping) -> tuple['jax.Array', 'jax.Array']:
  """Binary cross-entropy over all known findings."""
  losses_BT = optax.sigmoid_binary_cross_entropy(outputs['logits'], batch['present'])
  return sum_known(losses_BT, batch['label_mask'] & find_rows(batch)[:, None])


def exclusive_loss(outputs: Mapping, batch: Mapping) -> tuple['jax.Array', 'jax.Array']:
  """Softmax cross-entropy over all images whose finding is known."""
  losses_B = optax.softmax_cross_entropy(outputs['logits'], batch['present'])
  is_known_B = (batch['label_mask'] & (batch['present'] > 0)).any(1)
  return sum_known(losses_B, is_known_B & find_rows(batch))


def make_loss(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> Callable:
  """The loss with `task_config.loss`: class weights and focal loss. `labels` are those of the training records.

  'balanced' weights are images without / images with the finding for independent findings, and images / (classes *
  images of the class) for the others; unknown labels are not counted."""
  selected = select_findings(about, task_config)
  names, independent = selected['findings'], about['relation'] == 'independent'
  setting = task_config.loss.class_weights
  if setting == BALANCED:
    counts = {name: int(shown_N.sum()) for name, shown_N in list_classes(about, task_config, labels).items()}
    weights = ([weigh_positives(counts[name], counts[f'no {name}']) for name in names] if independent
               else balance([counts[name] for name in names]))
  else:
    weights = read_weights(setting, names)
  loss = focal_losses.independent_loss if independent else focal_losses.exclusive_loss
  return functools.partial(loss, np.array(weights, np.float32), task_config.loss.focal)


# Scores


def make_row(about: About, batch: Mapping, predictions: Mapping, index: int) -> dict[str, Any]:
  return {'score': predictions['score'][index], 'present': batch['present'][index],
          'label_mask': batch['label_mask'][index]}


def draw(axes: Any, about: About, labels: Row, prediction: Row) -> None:
  """The three likeliest findings with their probabilities, the threshold and the side of it that they are on, if there
  is one, and the truth, if there is one: present, absent or unknown.
  """
  order = np.argsort(-prediction['score'], kind='stable')[:3]
  lines = [f'{about["findings"][index]} {prediction["score"][index]:.2f}' for index in order]
  thresholds = [about.get('thresholds', {}).get(about['findings'][index]) for index in order]
  lines = [line if threshold is None else f'{line} ({"positive" if score >= threshold else "negative"}: threshold '
           f'{threshold:.2f})' for line, threshold, score in zip(lines, thresholds, np.asarray(
             prediction['score'], np.float64)[order], strict=True)]
  if labels:
    truth = np.where(labels['label_mask'], np.where(labels['present'] > 0, 'present', 'absent'), 'unknown')
    lines = [f'{line} ({truth[index]})' for line, index in zip(lines, order, strict=True)]
  axes.set_xlabel('\n'.join(lines), fontsize=7)


def draw_activation(axes: Any, about: About, labels: Row, prediction: Row) -> None:
  """Grad-CAM of one finding, see `LinearHead.map_activation`: of independent findings the one that contradicts its
  label most, or else the likeliest one. Places that do not raise its probability stay clear."""
  score_T = np.asarray(prediction['score'], np.float64)
  error_T = (np.where(labels['label_mask'], np.abs(labels['present'] - score_T), 0)
             if labels and about['relation'] == 'independent' else np.zeros(1))
  finding = int(np.argmax(error_T) if error_T.max() > WRONG else np.argmax(score_T))
  heat_hw = np.maximum(np.asarray(prediction['activation'], np.float32)[..., finding], 0)
  heat_hw /= max(float(heat_hw.max()), 1e-6)
  axes.imshow(heat_hw, cmap='autumn_r', vmin=0, vmax=1, alpha=HEAT * heat_hw, extent=(0, 1, 1, 0),
              interpolation='bilinear', aspect=axes.get_aspect())
  axes.set_xlabel(f'Grad-CAM: {about["findings"][finding]}{"" if heat_hw.any() else " (no place raises it)"}',
                  fontsize=7)


CLASSIFICATION = TaskKind(
  name='classification',
  annotation='findings',
  read_label=read_label,
  label_shapes=label_shapes,
  find_defect=find_defect,
  make_model=make_model,
  make_row=make_row,
  metrics=classification.METRICS,
  draw=draw,
  draw_activation=draw_activation,
  list_classes=list_classes,
  find_split_defect=find_split_defect,
  select=select_findings,
  fit_labels=read_certain_labels,
  make_loss=make_loss)
