"""The command line: parses the flags, runs the config, and stops all processes of a run together if it fails.

`tfds_builders.common.exits` turns errors into one line and an exit code.

Slow imports happen in `main`, after the flags are parsed, so that a typo is reported at once.
"""

import functools
import logging
import re
import sys
import traceback
import types
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from mtpret_jax.config import flag_errors
from mtpret_jax.config.bare_words import quote_words
from mtpret_jax.config.errors import ConfigError, as_line
from mtpret_jax.config.locate import use_bundled_configs
from tfds_builders.common.exits import CLOSED_PIPE, INTERRUPTED, REFUSED, discard_output, explain, is_output_closed
from tfds_builders.common.suggest import suggest

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'the config file of the run, FILE.py or FILE.py:VARIANT, such as configs/pretrain.py:smoke')
DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'this process is one of several. On a TPU pod, Slurm, Open MPI or Kubernetes nothing else is '
  'needed; elsewhere also give --coordinator, --processes and --process (docs/pods.md)')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process')
PROCESSES = flags.DEFINE_integer('processes', None, 'the number of processes', lower_bound=1)
PROCESS = flags.DEFINE_integer('process', None, 'the index of this process, from 0', lower_bound=0)
DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'print the data, steps, parameters, memory, disk and time of every stage, and stop: nothing is '
  'prepared or trained')
IMAGES_PER_SECOND = flags.DEFINE_float(
  'images_per_second', None, 'with --dry_run: the speed to count with', lower_bound=1e-3)
STALL_TIMEOUT = flags.DEFINE_integer(
  'stall_timeout', 300, 'with --distributed: seconds that a process waits for another before it exits', lower_bound=1)

KNOWN_FLAGS = ('--config, --config.FIELD (after --config), --dry_run, --images_per_second, --help and, for several '
               'processes, --distributed, --coordinator, --processes, --process and --stall_timeout')
HELP = ('--help', '-help', '-h', '--helpfull', '--helpshort')

# Settings of jax that change what a run computes, or stop it. The environment may set them for other programs.
FIXED = {'jax_enable_x64': False, 'jax_default_prng_impl': 'threefry2x32', 'jax_threefry_partitionable': True,
         'jax_random_seed_offset': 0, 'jax_high_dynamic_range_gumbel': False, 'jax_disable_jit': False,
         'jax_numpy_dtype_promotion': 'standard',
         **dict.fromkeys([f'jax_transfer_guard_{way}' for way in (
           'host_to_device', 'device_to_device', 'device_to_host')])}  # None allows every transfer


def run() -> NoReturn:
  """Runs what the command line says, and exits."""
  app.run(main, flags_parser=parse_or_help)
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
  from mtpret_jax.stages.table.run import CellsFailed
  failures = (loss_guard.Diverged, checkpoint.SaveFailed, CellsFailed)
  absl_logging.set_verbosity(absl_logging.WARNING)  # the libraries log a lot through absl
  absl_logging.get_absl_handler().setFormatter(LogLine())
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)
  try:
    check_objective(CONFIG.value)
    fix_settings()
    compilation_cache.enable_cache()
    if DISTRIBUTED.value:
      distributed.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, STALL_TIMEOUT.value)
      if jax.process_index():  # the first process logs for all
        logging.getLogger('mtpret_jax').setLevel(logging.WARNING)
    elif IMAGES_PER_SECOND.value and not DRY_RUN.value:
      raise ConfigError('--images_per_second only counts the time of a --dry_run: add --dry_run')
    elif COORDINATOR.value or PROCESSES.value or PROCESS.value is not None:
      raise ConfigError('--coordinator, --processes and --process need --distributed: add --distributed')
    set_up_cpu(CONFIG.value, single_process=not DISTRIBUTED.value)
    preemption.install_handlers()
    with distributed.exit_on_error((*prepare_data.USER_ERRORS, *failures)):
      stages.print_plan(CONFIG.value, IMAGES_PER_SECOND.value) if DRY_RUN.value else stages.run(CONFIG.value)
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


class LogLine(logging.Formatter):
  """'08:04:24 resumed from step 40 of 300'. Only warnings and errors say what they are."""

  def __init__(self) -> None:
    super().__init__('{asctime} {prefix}{message}', '%H:%M:%S', '{')

  def format(self, record: logging.LogRecord) -> str:
    record.prefix = f'{record.levelname.lower()}: ' if record.levelno > logging.INFO else ''
    return super().format(record)


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
  from mtpret_jax.runtime import backend
  from mtpret_jax.stages import checks
  is_cpu = backend.is_cpu()
  # The second test is for a GPU plugin on a machine without a GPU.
  if is_cpu or find_platform() == 'cpu':
    from mtpret_jax import cpu  # here, because it is not imported on other backends
    cpu.install(functools.partial(checks.can_use_devices, config) if is_cpu and single_process else None)
  find_platform()


def find_platform() -> str:
  """The platform that jax runs on. This starts its backends. Raises ConfigError if there is no device."""
  import jax

  from mtpret_jax.runtime import backend
  try:
    return jax.default_backend()
  except (RuntimeError, AssertionError) as error:
    raise ConfigError(backend.explain_failure(error)) from error


def parse_or_help(argv: list[str]) -> list[str]:
  """`parse_flags`, or with --help a screen about the config that is given, or about all."""
  rest = [argument for argument in argv if argument not in HELP]
  if rest == argv:
    return parse_flags(argv)
  from mtpret_jax.config import help
  if rest[1:]:
    parse_flags(rest)
  print(help.describe_config(CONFIG.value) if rest[1:] else help.describe())
  sys.exit(0)


def parse_flags(argv: list[str], known: str = KNOWN_FLAGS) -> list[str]:
  """Parses the flags as absl does, but reports an error in a flag or a config in one line, without a traceback.
  `known` lists the flags that the command has."""
  try:
    rest = flags.FLAGS(quote_words(use_bundled_configs(argv)))
    if rest[1:]:
      refuse(f'unexpected argument {rest[1]!r}: {flag_errors.explain_argument(rest[1], CONFIG.present)}')
    if CONFIG.value is None and not CONFIG.present:
      refuse('no config given: name one, such as --config=configs/pretrain.py')
    getattr(CONFIG.value, 'to_dict', None)  # raises here, not later, if there is no such config file
    if not isinstance(CONFIG.value, ConfigDict):
      refuse(f'get_config() of the config file returns {type(CONFIG.value).__name__}: it must return a ConfigDict')
    return rest
  except flags.UnrecognizedFlagError as error:
    if error.flagname == 'preflight':
      refuse(f'--preflight is a command of its own now: {flag_errors.preflight_command(argv)}')
    near = suggest(f'--{error.flagname}', re.findall(r'--\w+', known))
    refuse(f'unknown flag --{error.flagname}: the flags are {known}{near}')
  except (AttributeError, KeyError) as error:
    refuse(flag_errors.explain_field(error, argv))
  except (flags.Error, TypeError, ValueError, OSError) as error:
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    # absl adds the type of what a config file raises
    refuse(as_line(flag_errors.add_suggestion(last.removeprefix('ValueError: '))))
  except Exception as error:  # a config file is a program and may raise anything
    place = traceback.extract_tb(error.__traceback__)[-1]
    refuse(as_line(f'the config file raised {type(error).__name__}: {error} ({place.filename}, line {place.lineno})'))


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
    # The compiler's threads still run. A normal shutdown frees memory that they use, and crashes.
    distributed.exit_now(code)
  sys.exit(code)
