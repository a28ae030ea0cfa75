"""The command line, and the one place that turns what goes wrong into a line and an exit code."""

import contextlib
import logging
import re
import sys
import traceback

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from mtpret_jax import (
  bad_steps,
  checkpoint,
  compiled,
  cores,
  hosts,
  lock,
  preflight,
  prepare,
  rehearsal,
  report,
  scores,
  stopping,
  train,
)
from mtpret_jax.check import (
  ConfigError,
  as_line,
  check_config,
  check_fields,
  check_folder,
  check_objective,
  check_workdir,
  in_stage,
)
from mtpret_jax.data.pipeline import flatten
from mtpret_jax.fields import show
from mtpret_jax.progress import list_libraries
from mtpret_jax.room import check_room
from mtpret_jax.start import check_start, list_lineage

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
FAILED, REFUSED, STOPPED = 1, 2, stopping.CODE
FAILURES = (bad_steps.Diverged, checkpoint.SaveFailed)
EXPECTED = (*prepare.REFUSALS, *FAILURES)  # what is told in one line, by all processes at the same time


def main(_):
  absl_logging.set_verbosity(absl_logging.WARNING)  # the libraries' chatter
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)
  try:
    objective = check_objective(CONFIG.value)
    if PREFLIGHT.value:  # keeps nothing: jax reads what it compiled only where the chips are
      return preflight.fly(CONFIG.value, PREFLIGHT.value)
    compiled.keep_compiled()
    if DISTRIBUTED.value:
      hosts.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, STALL_TIMEOUT.value)
      if jax.process_index():  # the first process speaks for all
        logging.getLogger('mtpret_jax').setLevel(logging.WARNING)
    elif COORDINATOR.value or PROCESSES.value or PROCESS.value is not None:
      raise ConfigError('--coordinator, --processes and --process are for --distributed: give that, too')
    else:
      cores.use_cores(CONFIG.value)
    stopping.listen()
    with hosts.alarm(EXPECTED):
      RUNS[objective](CONFIG.value)
  except prepare.REFUSALS as error:
    stop(REFUSED, error)
  except FAILURES as error:
    stop(FAILED, error)
  except stopping.Stopped as notice:
    stopping.Notice.told = True
    stop(STOPPED, f'{notice}; the same command goes on')


def run_stage(config):
  """Prepares, trains and reports one stage."""
  hosts.in_all(lambda: check_run(config), prepare.REFUSALS)
  hosts.check_same(flatten(config.to_dict()) | list_libraries())
  hosts.check_shared(config.workdir, 'workdir')
  with contextlib.ExitStack() as stack:
    hosts.on_first(lambda: stack.enter_context(lock.hold(config.workdir)))
    with rehearsal.compiling(config) as steps:
      prepare.prepare_data(config)
    state = train.train(config, config.workdir, steps)
    with stopping.free():
      (report if config.objective == 'contrast' else scores).finish(state, config)


def check_run(config):
  """Everything that is checked before data is prepared; of a recipe, in all of its stages."""
  objective = check_objective(config)
  if objective == 'evaluate':
    return check_fields(config)
  if objective != 'recipe':
    return check_stage(config)
  check_fields(config)
  check_workdir(config.workdir)
  made = {stage.get('workdir') for stage in config.stages.values()}
  for name, stage in config.stages.items():
    try:
      check_stage(stage.copy_and_resolve_references(), made)
    except prepare.REFUSALS as error:
      raise in_stage(name, error) from error


def check_stage(config, made=()):
  """`made`: workdirs that are still to be filled, which the stage may start from."""
  devices, processes = jax.device_count(), jax.process_count()
  check_fields(config, devices, processes)
  check_workdir(config.workdir)
  check_folder('data.dir', config.data.dir)
  prepare.choose_datasets(config)
  check_config(config, devices=devices, processes=processes)
  check_room(config, processes)
  prepare.refuse_unteachable(config)
  if config.init_from not in made:
    check_start(config)
    prepare.refuse_external(config, list_lineage(config))


def run_evaluation(config):
  check_run(config)
  scores.evaluate_run(config)


def run_recipe(config):
  """Runs the stages one after another; those that have reported with the same config are passed by."""
  hosts.in_all(lambda: check_run(config), prepare.REFUSALS)
  for name, stage in config.stages.items():
    if scores.is_finished(stage):
      log.info('%s: finished before, see %s', name, stage.workdir)
    else:
      log.info('%s', name)
      run_stage(stage)
  hosts.on_first(lambda: scores.finish_recipe(config))


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
  hosts.say(error)
  hosts.leave_with_all(code)
  if rehearsal.is_compiling():  # Python would wait for it
    hosts.leave(code)
  sys.exit(code)


RUNS = {'contrast': run_stage, 'multitask': run_stage, 'evaluate': run_evaluation, 'recipe': run_recipe}


def run():
  """What the command line asks for; ends the program."""
  app.run(main, flags_parser=parse_flags)
