"""Scores a run of stage 2 or 3 again, from its checkpoints.

    python -m mtpret_jax.main --config=configs/evaluate.py --config.run=runs/finetune/pneumonia
    python -m mtpret_jax.main --config=configs/evaluate.py --config.run=runs/continual --config.split=validation

`scores.json` and the predictions are written to `workdir`, by default the folder `test` (or `validation`) in the run's.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(dict(
    objective='evaluate',
    run='runs/finetune/pneumonia',  # workdir of the run
    state='',                  # 'best' by validation, or 'last'; '' is the best, of a run with several tasks the last
    split='test',              # or 'validation', 'train'
    workdir='',                # '' is the split's name in the run's workdir
    resamples=1000,            # of patients, for the intervals
    data=dict(dir=''),         # '' is as in the run; the split is by the run's rule, others mix training and test
  ))
