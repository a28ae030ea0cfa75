"""Runs the stage that a config names: prepare the data, train, probe, report.

    python -m mtpret_jax.main --config=configs/pretrain.py [--config.FIELD=VALUE ...]
"""

from mtpret_jax.cpu import malloc

if __name__ == '__main__':
  malloc.set_up()  # before all that takes seconds to import
  from absl import flags

  from mtpret_jax import cli
  flags.adopt_module_key_flags(cli)  # so that --help lists them
  cli.run()
