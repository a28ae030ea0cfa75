"""Scores a run of stage 2 or 3 again, from its checkpoints.

    python -m mtpret_jax.main --config=configs/evaluate.py --config.run=runs/finetune/pneumonia
    python -m mtpret_jax.main --config=configs/evaluate.py --config.run=runs/continual --config.split=validation
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(dict(
    objective='evaluate',  # the kind of run; fixed for this file
    run='runs/finetune/pneumonia',  # workdir of the run to score
    state='',         # 'best' by validation or 'last'; '' means 'best', or 'last' for a run with several tasks
    split='test',     # 'train', 'validation' or 'test'
    flips='',         # predictions of an image and its mirror image as one: 'on', 'off', or '' as the run has it
    workdir='',       # folder of the scores and predictions; '' means RUN/SPLIT
    resamples=1000,   # bootstrap resamples of patients, for the 95 % intervals
    data=dict(
      dir='',         # folder of the prepared datasets; '' means that of the run
    ),
  ))
