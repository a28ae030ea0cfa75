"""The command line: parses the flags, runs the config, and stops all processes of a run together if it fails.

`tfds_builders.common.exits` turns errors into one line and an exit code.

Slow imports happen in `main`, after the flags are parsed, so that a typo is reported at once.
"""

import functools
import logging
import re
import shlex
import sys
import traceback
import types
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.config.locate import use_bundled_configs
from mtpret_jax.config.renamed import describe_new_name, new_name
from tfds_builders.common.exits import CLOSED_PIPE, INTERRUPTED, REFUSED, discard_output, explain, is_output_closed

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'the config file of the run, FILE.py or FILE.py:VARIANT, such as configs/pretrain.py:smoke')
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'this process is one of several. On a TPU pod, Slurm, Open MPI or Kubernetes nothing else is '
  'needed; elsewhere also give --coordinator, --processes and --process (docs/pods.md)')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process')
PROCESSES = flags.DEFINE_integer('processes', None, 'the number of processes', lower_bound=1)
PROCESS = flags.DEFINE_integer('process', None, 'the index of this process, from 0', lower_bound=0)
DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'print the images, steps and epochs of every stage, and stop: nothing is prepared or trained')
STALL_TIMEOUT = flags.DEFINE_integer(
  'stall_timeout', 300, 'with --distributed: seconds that a process waits for another before it exits', lower_bound=1)

KNOWN_FLAGS = ('--config, --config.FIELD (after --config), --dry_run and, for several processes, --distributed, '
               '--coordinator, --processes, --process and --stall_timeout')

# Settings of jax that change what a run computes, or stop it. The environment may set them for other programs.
FIXED = {'jax_enable_x64': False, 'jax_default_prng_impl': 'threefry2x32', 'jax_threefry_partitionable': True,
         'jax_random_seed_offset': 0, 'jax_high_dynamic_range_gumbel': False, 'jax_disable_jit': False,
         'jax_numpy_dtype_promotion': 'standard',
         **dict.fromkeys([f'jax_transfer_guard_{way}' for way in (
           'host_to_device', 'device_to_device', 'device_to_host')])}  # None allows every transfer


def run() -> NoReturn:
  """Runs what the command line says, and exits."""
  app.run(main, flags_parser=parse_flags)
  sys.exit()  # never reached, because app.run exits; it tells type checkers that this function does not return


def main(_: list[str]) -> None:
  print('mtpret_jax: starting; the imports take a few seconds', file=sys.stderr, flush=True)
  from mtpret_jax.runtime import backend
  if backend.is_only_absent_tpu():
    refuse(backend.explain_failure(RuntimeError('no device file and no PCI device of a TPU')))
  jax = import_jax()

  from mtpret_jax import stages
  from mtpret_jax.config.validate import check_objective
  from mtpret_jax.runtime import checkpoint, compilation_cache, distributed, loss_guard, preemption, prepare_data
  from mtpret_jax.table.run import CellsFailed
  failures = (loss_guard.Diverged, checkpoint.SaveFailed, CellsFailed)
  absl_logging.set_verbosity(absl_logging.WARNING)  # the libraries log a lot through absl
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)
  try:
    check_objective(CONFIG.value)
    fix_settings()
    compilation_cache.enable_cache()
    if DISTRIBUTED.value:
      distributed.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, STALL_TIMEOUT.value)
      if jax.process_index():  # the first process logs for all
        logging.getLogger('mtpret_jax').setLevel(logging.WARNING)
    elif COORDINATOR.value or PROCESSES.value or PROCESS.value is not None:
      raise ConfigError('--coordinator, --processes and --process need --distributed: add --distributed')
    set_up_cpu(CONFIG.value, single_process=not DISTRIBUTED.value)
    preemption.install_handlers()
    with distributed.exit_on_error((*prepare_data.USER_ERRORS, *failures)):
      stages.print_plan(CONFIG.value) if DRY_RUN.value else stages.run(CONFIG.value)
  except preemption.Stopped as stopped:
    preemption.SignalState.announced = True
    stop(preemption.EXIT_CODE, f'{stopped}; run the same command to resume')
  except Exception as error:
    if isinstance(error, BrokenPipeError) and is_output_closed():
      discard_output()
      sys.exit(CLOSED_PIPE)
    ending = explain(error, prepare_data.USER_ERRORS, failures)
    if ending is None:
      raise
    stop(*ending)


def import_jax() -> types.ModuleType:
  """jax, which reads its settings from the environment when it is imported."""
  try:
    import jax
  except ValueError as error:  # such as JAX_ENABLE_X64=maybe
    refuse(as_line(f'jax does not accept a variable of the environment: {error}'))
  return jax


def fix_settings() -> None:
  """Sets the settings in FIXED, and says in a line which ones the environment has set otherwise."""
  import jax
  changed = [name for name, value in FIXED.items() if getattr(jax.config, name) != value]
  for name in changed:
    jax.config.update(name, FIXED[name])
  if changed:
    logging.getLogger('mtpret_jax').warning(
      '%s in the environment would change the results or stop the run, and has no effect',
      ', '.join(map(str.upper, changed)))


def set_up_cpu(config: ConfigDict, single_process: bool) -> None:
  """On a CPU, installs the implementations for CPUs and makes cores into jax devices, as many as can split the batches
  into whole batch-norm groups. A distributed run keeps the devices that it has."""
  from mtpret_jax import stages
  from mtpret_jax.runtime import backend
  is_cpu = backend.is_cpu()
  # The second test is for a GPU plugin on a machine without a GPU.
  if is_cpu or find_platform() == 'cpu':
    from mtpret_jax import cpu  # here, because it is not imported on other backends
    cpu.install(functools.partial(stages.can_use_devices, config) if is_cpu and single_process else None)
  find_platform()


def find_platform() -> str:
  """The platform that jax runs on. This starts its backends. Raises ConfigError if there is no device."""
  import jax

  from mtpret_jax.runtime import backend
  try:
    return jax.default_backend()
  except (RuntimeError, AssertionError) as error:
    raise ConfigError(backend.explain_failure(error)) from error


def parse_flags(argv: list[str], known: str = KNOWN_FLAGS) -> list[str]:
  """Parses the flags as absl does, but reports an error in a flag or a config in one line, without a traceback.
  `known` lists the flags that the command has."""
  try:
    rest = flags.FLAGS(use_bundled_configs(argv))
    if rest[1:]:
      refuse(f'unexpected argument {rest[1]!r}: arguments must be flags, such as --config.batch=64')
    if CONFIG.value is None and not CONFIG.present:
      refuse('no config given: name one, such as --config=configs/pretrain.py')
    getattr(CONFIG.value, 'to_dict', None)  # raises here, not later, if there is no such config file
    if not isinstance(CONFIG.value, ConfigDict):
      refuse(f'get_config() of the config file returns {type(CONFIG.value).__name__}: it must return a ConfigDict')
    return rest
  except flags.UnrecognizedFlagError as error:
    if error.flagname == 'preflight':
      refuse(f'--preflight is a command of its own now: {preflight_command(argv)}')
    refuse(f'unknown flag --{error.flagname}: the flags are {known}')
  except (AttributeError, KeyError) as error:
    refuse(explain_field(error, argv))
  except (flags.Error, TypeError, ValueError, OSError) as error:
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    refuse(as_line(last.removeprefix('ValueError: ')))  # absl adds the type of what a config file raises
  except Exception as error:  # a config file is a program and may raise anything
    place = traceback.extract_tb(error.__traceback__)[-1]
    refuse(as_line(f'the config file raised {type(error).__name__}: {error} ({place.filename}, line {place.lineno})'))


def preflight_command(argv: list[str]) -> str:
  """The `mtpret_jax.preflight` command that does what the former flag --preflight=POD did."""
  arguments = iter(argv[1:])
  command = ['python', '-m', 'mtpret_jax.preflight']
  for argument in arguments:
    name, equals, pod = argument.partition('=')
    if name.lstrip('-') == 'preflight':
      argument = f'--pod={pod if equals else next(arguments, "v5e:4x4")}'
    command.append(argument)
  return shlex.join(command)


def explain_field(error: Exception, argv: list[str]) -> str:
  """The message for an unknown config field. ml_collections names only the last part of it; this finds its flag."""
  for flag in argv:
    field = re.match(r'--?config\.([\w.]+)', flag)
    new = new_name(field[1]) if field else None
    if new is not None:
      return as_line(f'unknown config field in {show(flag)[1:-1]}: ' + (
        f'it is now --config.{describe_new_name(new)}' if new else 'it no longer exists; leave it out'))
  name = re.search(r"'(\w+)\\?'", str(error))
  flag = next((flag for flag in argv if name and re.match(rf'--config\.([\w.]+\.)?{name[1]}\b', flag)), str(error))
  guess = re.search(r'Did you mean "(\w+)"', str(error))
  remedy = f'did you mean {guess[1]!r}?' if guess else 'see the config file for its fields'
  return as_line(f'unknown config field in {show(flag)[1:-1]}: {remedy}')


def refuse(message: str) -> NoReturn:
  """Prints what is wrong with the flags and exits, before anything slow is imported."""
  print(f'mtpret_jax: {message}', file=sys.stderr, flush=True)
  sys.exit(REFUSED)


def stop(code: int, message: object) -> NoReturn:
  """Prints the message and exits. Several processes exit together."""
  from mtpret_jax.runtime import distributed, preemption
  distributed.print_error(message)
  distributed.exit_together(code)
  if code in (preemption.EXIT_CODE, INTERRUPTED):
    # A signal leaves the compiler at work in its own threads. If Python shut down, they would use what it has freed,
    # and the process would end with a segmentation fault.
    distributed.exit_now(code)
  sys.exit(code)
