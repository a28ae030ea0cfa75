"""Runs the stage that a config names: prepares the data, trains, evaluates, writes the report.

    python -m mtpret_jax.main --config=configs/pretrain.py [--config.FIELD=VALUE ...]
"""

import functools
import signal

from mtpret_jax.runtime import backend
from tfds_builders.common import exits

RESUMABLE = 75  # as runtime.preemption.EXIT_CODE, whose module is slow to import

stop = functools.partial(exits.stop_at_once, program='mtpret_jax: ', remedy='resume', code=RESUMABLE)

if __name__ == '__main__':
  exits.open_streams()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)  # until `preemption.install_handlers`
  if backend.is_cpu():
    backend.skip_libtpu()
    from mtpret_jax.cpu import malloc
    malloc.restart_with_tunables()  # before the imports that take seconds, because it starts the program again
  from absl import flags

  from mtpret_jax import cli
  flags.adopt_module_key_flags(cli)  # --help then lists them
  cli.run()
