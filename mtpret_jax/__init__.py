"""MTPret in JAX: multitask pretraining for X-ray images (Liao et al., IEEE TAI 2024).

    import mtpret_jax as mt
    model = mt.load('runs/finetune/pneumonia')
    model.predict(['scan.dcm'])  # docs/python-api.md

    main, cli, stages      the command line; config -> everything the loop needs
    train, step            the loop; the train state, the optimiser and the compiled step
    objectives/            the method: MD-MoCo (stage 1); multitask learning with cross-task memory (stages 2 and 3)
    models/                ResNet and DenseNet trunks, DeepLab-V3 and Faster R-CNN heads, batch norm over groups
    tasks/                 one file per kind of task: label, head, loss, prediction, scores
    augment/ data/         random views on the device; prepared records -> batches, task schedule, ShuffleBN
    evaluation/ report/    linear probe, validation, test scores; printed tables and pictures
    config/ runtime/       checks of a config; checkpoints, preemption, sharding, logging
    predict/ export/       a trained model on new images; its weights for other programs
    cpu/ preflight/        what only CPUs need; a compile-only check of a run on TPUs or GPUs that are not attached

The end of an array's name lists its axes: `images_BHW1` has the axes batch, height, width and one channel. The
docstring of a module lists its letters.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mtpret_jax.predict.model import Model

__version__ = '0.1.0'


def load(path: str | os.PathLike | Sequence[str | os.PathLike], task: str | None = None, state: str | None = None, *,
         size: int = 224) -> 'Model':
  """Loads a trained model, whose `predict` and `embed` take paths, arrays and pydicom data sets.

  Args:
    path: the workdir of a run of any stage; a folder of `python -m mtpret_jax.export RUN --to safetensors` or
      `--to stablehlo`; a file with the weights of a torchvision ResNet, which can only embed; or several runs of the
      same task, whose predictions are averaged: `predict/ensemble.py`.
    task: which one to predict, for a run that has several.
    state: 'best' by validation, the default for a run with one task; or 'last', the default for the others.
    size: of the images that the network gets, px; only for a file of weights, which does not say it.

  Raises:
    ConfigError: there is no such run, state or task, or it is damaged; the message says what to do.
  """
  from mtpret_jax.predict.load import load as load_model  # not above, because jax takes seconds to import
  return load_model(path, task, state, size=size)
