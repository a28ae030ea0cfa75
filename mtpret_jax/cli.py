"""The command line, and the one place that turns what goes wrong into a line and an exit code."""

import logging
import re
import sys
import traceback

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from mtpret_jax import stages
from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.config.validate import check_objective
from mtpret_jax.cpu import devices
from mtpret_jax.preflight import report
from mtpret_jax.runtime import (
  checkpoint,
  compilation_cache,
  distributed,
  loss_guard,
  preemption,
  prepare_data,
)

CONFIG = config_flags.DEFINE_config_file('config', None, 'file.py or file.py:variant of the run')
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'one of several processes, which a TPU pod, Slurm, Open MPI or Kubernetes introduces to each '
  'other; elsewhere with --coordinator, --processes and --process (docs/pods.md)')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process')
PROCESSES = flags.DEFINE_integer('processes', None, 'how many processes there are', lower_bound=1)
PROCESS = flags.DEFINE_integer('process', None, 'which of them this is, from 0', lower_bound=0)
STALL_TIMEOUT = flags.DEFINE_integer(
  'stall_timeout', 300, 'seconds after which one of several processes gives up waiting for another', lower_bound=1)
PREFLIGHT = flags.DEFINE_string(
  'preflight', None, 'only compile the steps for this pod, such as v5e:4x4 or h100:8, which need not be here, and say '
  'what they take there (docs/pods.md)')

log = logging.getLogger(__name__)

# exit codes: the run went wrong; the command has to be changed; the same command goes on
FAILED, REFUSED, STOPPED = 1, 2, preemption.EXIT_CODE
FAILURES = (loss_guard.Diverged, checkpoint.SaveFailed)
EXPECTED = (*prepare_data.USER_ERRORS, *FAILURES)  # what is told in one line, by all processes at the same time


def main(_):
  absl_logging.set_verbosity(absl_logging.WARNING)  # the libraries' chatter
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)
  try:
    check_objective(CONFIG.value)
    if PREFLIGHT.value:  # keeps nothing: jax reads what it compiled only where the chips are
      return report.run(CONFIG.value, PREFLIGHT.value)
    compilation_cache.enable_cache()
    if DISTRIBUTED.value:
      distributed.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, STALL_TIMEOUT.value)
      if jax.process_index():  # the first process speaks for all
        logging.getLogger('mtpret_jax').setLevel(logging.WARNING)
    elif COORDINATOR.value or PROCESSES.value or PROCESS.value is not None:
      raise ConfigError('--coordinator, --processes and --process are for --distributed: give that, too')
    else:
      devices.use_cores(CONFIG.value)
    preemption.install_handlers()
    with distributed.exit_on_error(EXPECTED):
      stages.run(CONFIG.value)
  except prepare_data.USER_ERRORS as error:
    stop(REFUSED, error)
  except FAILURES as error:
    stop(FAILED, error)
  except preemption.Stopped as notice:
    preemption.SignalState.announced = True
    stop(STOPPED, f'{notice}; the same command goes on')


def parse_flags(argv):
  """As absl does it, but what is wrong with a flag or a config is one line, not a traceback."""
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      stop(REFUSED, f'unexpected argument {rest[1]!r}: every argument is a flag, such as --config.batch=64')
    if CONFIG.value is None and not CONFIG.present:
      stop(REFUSED, 'which run? Name its config, such as --config=configs/pretrain.py')
    getattr(CONFIG.value, 'to_dict', None)  # a config file that is not there only says so when it is used
    if not isinstance(CONFIG.value, ConfigDict):
      stop(REFUSED, f'get_config() of the config file gives {type(CONFIG.value).__name__}, must give a ConfigDict')
    return rest
  except flags.UnrecognizedFlagError as error:
    stop(REFUSED, f'unknown flag --{error.flagname}: have --config, --config.FIELD (after --config), --preflight '
                  f'and, for several processes, --distributed, --coordinator, --processes, --process and '
                  f'--stall_timeout')
  except (AttributeError, KeyError) as error:
    stop(REFUSED, explain_field(error, argv))
  except (flags.Error, TypeError, ValueError, OSError) as error:
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    stop(REFUSED, as_line(last.removeprefix('ValueError: ')))  # absl puts the kind before what a config file raises
  except Exception as error:  # a config file is a program, and may have any mistake
    place = traceback.extract_tb(error.__traceback__)[-1]
    stop(REFUSED, as_line(f'the config file does not run: {type(error).__name__} {error}, in {place.filename} line '
                          f'{place.lineno}'))


def explain_field(error, argv):
  """ml_collections names the last part of an unknown field only; this finds the flag it came from."""
  name = re.search(r"'(\w+)\\?'", str(error))
  flag = next((flag for flag in argv if name and re.match(rf'--config\.([\w.]+\.)?{name[1]}\b', flag)), str(error))
  guess = re.search(r'Did you mean "(\w+)"', str(error))
  remedy = f'did you mean {guess[1]!r}?' if guess else 'the config file lists the fields there are'
  return as_line(f'unknown config field in {show(flag)[1:-1]}: {remedy}')


def stop(code, error):
  distributed.print_error(error)
  distributed.exit_together(code)
  sys.exit(code)


def run():
  """What the command line asks for; ends the program."""
  app.run(main, flags_parser=parse_flags)
