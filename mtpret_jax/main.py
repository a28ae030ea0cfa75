"""Runs the stage that a config names: prepares the data, trains, evaluates, writes the report.

    python -m mtpret_jax.main --config=configs/pretrain.py [--config.FIELD=VALUE ...]
"""

from mtpret_jax.runtime import backend

if __name__ == '__main__':
  if backend.is_cpu():
    backend.skip_libtpu()
    from mtpret_jax.cpu import malloc
    malloc.restart_with_tunables()  # before the imports that take seconds, because it starts the program again
  from absl import flags

  from mtpret_jax import cli
  flags.adopt_module_key_flags(cli)  # --help then lists them
  cli.run()
