"""Runs the stage that a config names: prepares the data, trains, evaluates, writes the report.

    python -m mtpret_jax.main --config=configs/pretrain.py [--config.FIELD=VALUE ...]
"""

import os
import signal
from types import FrameType

from mtpret_jax.runtime import backend
from tfds_builders.common import exits


def stop_at_once(number: int, frame: FrameType | None) -> None:
  """Ends the program while it starts, when there is nothing to save. Not an exception: an import may swallow one."""
  name = signal.Signals(number).name
  # Not `print`: it raises RuntimeError if the signal interrupts another write to sys.stderr.
  os.write(2, f'mtpret_jax: stopped by {name}; run the same command to resume\n'.encode())
  os._exit(75)  # runtime.preemption.EXIT_CODE, whose module is slow to import


if __name__ == '__main__':
  exits.open_streams()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop_at_once)  # until `preemption.install_handlers`
  if backend.is_cpu():
    backend.skip_libtpu()
    from mtpret_jax.cpu import malloc
    malloc.restart_with_tunables()  # before the imports that take seconds, because it starts the program again
  from absl import flags

  from mtpret_jax import cli
  flags.adopt_module_key_flags(cli)  # --help then lists them
  cli.run()
