"""Compiles the steps of a run for TPUs or GPUs that are not attached (a "pod"), and reports what each would cost there.

    python -m mtpret_jax.preflight --config=configs/pretrain.py:mtpret11 --pod=v5e:4x4 [--config.FIELD=VALUE ...]

It needs no chip or archive, and no prepared dataset unless it is one of your own; only the compiler: libtpu or JAX's
CUDA plugin (docs/pods.md).

Exit codes: 0, every step fits into memory; 2, a step does not fit, or the command has a mistake; 1, another error.
"""

import logging
import sys

from absl import app, flags
from absl import logging as absl_logging

from mtpret_jax import cli
from tfds_builders.common.exits import explain, open_streams

POD = flags.DEFINE_string('pod', '', 'the pod to compile for, such as v5e:4x4 (16 TPU v5e chips) or h100:8 (8 GPUs)')
EXAMPLES = '--pod=v5e:4x4 (16 TPU v5e chips), --pod=v5p:2x2x4 (16 TPU v5p chips) or --pod=h100:8 (8 GPUs of one host)'
FLAGS = {
  '--config=FILE:VARIANT': 'the run whose steps are compiled; python -m mtpret_jax.main --help lists all',
  '--config.FIELD=VALUE': 'sets a field, after --config',
  '--pod=CHIP:SHAPE': 'the devices to compile for: v5e:4x4 is 16 TPU v5e chips, h100:8 is 8 GPUs of one host'}


def main(_: list[str]) -> None:
  print('mtpret_jax: starting; the imports take a few seconds', file=sys.stderr, flush=True)
  jax = cli.import_jax()

  from mtpret_jax.config.validate import check_objective
  from mtpret_jax.preflight import report
  from mtpret_jax.runtime import own_task, prepare_data

  # Tracing runs on the CPU, so that an accelerator of this machine stays free. Without `cpu.install()` the steps have
  # the plain formulations of TPUs and GPUs.
  jax.config.update('jax_platforms', 'cpu')
  absl_logging.set_verbosity(absl_logging.WARNING)  # the libraries log through absl, and a lot
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)
  try:
    check_objective(cli.CONFIG.value)
    cli.fix_settings()
    report.run(own_task.resolve(cli.CONFIG.value), POD.value)
  except (Exception, KeyboardInterrupt) as error:
    ending = explain(error, prepare_data.USER_ERRORS)
    if ending is None:
      raise
    cli.stop(*ending)


def parse_or_help(argv: list[str]) -> list[str]:
  """`parse_flags`, or with --help one screen about the command."""
  if not set(argv).intersection(cli.HELP):
    return parse_flags(argv)
  from mtpret_jax.config import help
  print(f'{(__doc__ or "").strip()}\n\nFlags\n\n' + '\n'.join(help.align(FLAGS.items())))
  sys.exit(0)


def parse_flags(argv: list[str]) -> list[str]:
  """As `cli.parse_flags`, but the only flags are --config and --pod."""
  rest = cli.parse_flags(argv, '--config, --config.FIELD (after --config) and --pod')
  for flag in flags.FLAGS.get_key_flags_for_module(cli.__name__):  # importing `cli` defines the flags of a run
    if flag.present and flag.name != 'config':
      cli.refuse(f'leave out --{flag.name}: it is a flag of python -m mtpret_jax.main, and preflight runs in one '
                 f'process')
  if not POD.value:
    cli.refuse(f'no pod given: name a chip and a shape, such as {EXAMPLES}')
  return rest


if __name__ == '__main__':
  open_streams()
  app.run(main, flags_parser=parse_or_help)
