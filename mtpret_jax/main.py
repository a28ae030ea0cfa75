"""Runs the stage that a config names: prepare the data, train, probe, report.

    python -m mtpret_jax.main --config=configs/pretrain.py [--config.FIELD=VALUE ...]
"""

import logging
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from mtpret_jax import prepare, report, train
from mtpret_jax.check import ConfigError, check_config, check_workdir
from tfds_builders import build

CONFIG = config_flags.DEFINE_config_file('config', 'configs/pretrain.py', 'file.py or file.py:variant of the run')
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'one of several processes (TPU pod, Slurm, GPU cluster): call jax.distributed.initialize()')

FAILED, REFUSED = 1, 2  # exit codes: the run went wrong; the command has to be changed


def main(_):
  config = CONFIG.value
  if DISTRIBUTED.value:
    jax.distributed.initialize()
  try:
    check_workdir(config.workdir)
    prepare.choose_datasets(config)
    check_config(config, devices=jax.device_count(), processes=jax.process_count())
    prepare.prepare_data(config)
    report.save_config(config)
    state = train.train(config, config.workdir)
    report.finish(state, config)
  except (ConfigError, build.ArchiveChanged) as error:
    stop(REFUSED, error)
  except train.Diverged as error:
    stop(FAILED, error)


def parse_flags(argv):
  """As absl does it, but what is wrong with a flag or a config is one line, not a traceback."""
  try:
    rest = flags.FLAGS(argv)
    CONFIG.value.to_dict()  # a config file that is not there only says so when it is used
    if rest[1:]:
      stop(REFUSED, f'unexpected argument {rest[1]!r}: every argument is a flag, such as --config.batch=64')
    return rest
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    stop(REFUSED, error)


def stop(code, error):
  print(f'mtpret_jax: {error}', file=sys.stderr)
  sys.exit(code)


if __name__ == '__main__':
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)  # the libraries' own chatter stays at warnings
  app.run(main, flags_parser=parse_flags)
