"""Stage 1 at the papers' scale compiled for TPU pods of 8 to 256 chips, none of which is here: what each chip does.

    python -m benchmarks.pods                                   needs libtpu (benchmarks/requirements.txt), no TPU
    python -m benchmarks.pods --pods v5e:2x4 v5e:4x4 --images 64

As many images a chip on every pod, so each line should read the same: FLOPs, traffic and memory of a chip, and how many
messages it sends and what is summed in them. What is gathered grows with the chips: the keys of all, since each keeps
the whole queue; with many chips XLA sums them instead. All of it is the compiler's account or counted in the compiled
program (docs/pods.md); nothing is run.
A line takes 4 to 23 minutes on two cores.
"""

import argparse

import jax

from configs import pretrain
from mtpret_jax.preflight.report import take_account
from mtpret_jax.preflight.topology import find_pod

PODS = ('v5e:2x4', 'v5e:4x4', 'v5e:4x8', 'v5e:8x8', 'v5e:8x16', 'v5e:16x16')


def make_config(variant, images, chips):
  config = pretrain.get_config(variant)
  config.batch = images * chips
  config.moco.update(group=images, shuffle_groups=4)  # a host has four chips
  config.moco.queue = max(config.moco.queue, config.batch)
  return config


def measure(variant, images, name):
  """The row of one pod as numbers."""
  pod = find_pod(name)
  account = take_account(make_config(variant, images, len(pod.devices)), 'moco', pod)
  gathered = sum(size for kind, size in account.messages if kind == 'all-gather') / 1e6
  return {'chips': len(pod.devices), 'TFLOP': account.flops / 1e12, 'accessed, GB': account.accessed / 1e9,
          'HBM traffic, GB': account.traffic / 1e9, 'memory, GB': account.peak / 1e9,
          'messages': len(account.messages), 'summed, MB': sum(size for _, size in account.messages) / 1e6 - gathered,
          'gathered, MB': gathered, 'compiled in, s': account.seconds}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--variant', default='mtpret11', help='of configs/pretrain.py')
  parser.add_argument('--images', type=int, default=32, help='on a chip')
  parser.add_argument('--pods', nargs='+', default=PODS)
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  rows = []
  for name in args.pods:
    rows.append(measure(args.variant, args.images, name))
    if len(rows) == 1:
      print(f'| pod | {" | ".join(rows[0])} |\n|---|{"---|" * len(rows[0])}')
    print(f'| {name} | ' + ' | '.join(f'{value:,.2f}' if isinstance(value, float) else str(value)
                                      for value in rows[-1].values()) + ' |', flush=True)
  spread = {field: max(row[field] for row in rows) / min(row[field] for row in rows) - 1
            for field in ('TFLOP', 'accessed, GB', 'HBM traffic, GB', 'memory, GB', 'summed, MB')}
  print(f'pods {args.variant}, {args.images} images a chip, {rows[0]["chips"]} to {rows[-1]["chips"]} chips: largest '
        f'difference ' + ', '.join(f'{field} {100 * value:.1f} %' for field, value in spread.items())
        + f'; at most {max(row["messages"] for row in rows)} messages a step')


if __name__ == '__main__':
  main()
