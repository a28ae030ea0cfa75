"""What each chip does in stage 1 at full scale, compiled for TPU pods of 8 to 256 chips that are not here.

    python -m benchmarks.pods                                   needs libtpu (benchmarks/requirements.txt), no TPU
    python -m benchmarks.pods --pods v5e:2x4 v5e:4x4 --images 64

Every pod has the same number of images per chip, so all lines should be equal: FLOPs, memory traffic and memory of a
chip, the number of its collectives, and the bytes that they sum. The bytes that they gather grow with the chips,
because each chip gets the keys of all for its queue. With many chips XLA sums these instead. All figures are the
compiler's, or counted in the compiled program (docs/pods.md); nothing is run. A line takes 4 to 23 minutes on two
cores.
"""

import argparse

import jax
from ml_collections import ConfigDict

from configs import pretrain
from mtpret_jax.preflight.report import compute_cost
from mtpret_jax.preflight.topology import find_pod

PODS = ('v5e:2x4', 'v5e:4x4', 'v5e:4x8', 'v5e:8x8', 'v5e:8x16', 'v5e:16x16')


def make_config(variant: str, images: int, chips: int) -> ConfigDict:
  config = pretrain.get_config(variant)
  config.batch = images * chips
  config.moco.update(group=images, shuffle_groups=4)  # a host has four chips
  config.moco.queue = max(config.moco.queue, config.batch)
  return config


def measure(variant: str, images: int, name: str) -> dict[str, float]:
  """The line of one pod."""
  pod = find_pod(name)
  cost = compute_cost(make_config(variant, images, len(pod.devices)), 'moco', pod)
  if cost is None:
    raise SystemExit(f'the step does not fit into the memory of a chip of {name}: choose fewer --images')
  gathered = sum(size for kind, size in cost.collectives if kind == 'all-gather') / 1e6
  return {'chips': len(pod.devices), 'TFLOP': cost.flops / 1e12, 'accessed, GB': (cost.bytes_accessed or 0) / 1e9,
          'HBM traffic, GB': cost.hbm_bytes / 1e9, 'memory, GB': cost.peak_memory / 1e9,
          'messages': len(cost.collectives), 'summed, MB': sum(size for _, size in cost.collectives) / 1e6 - gathered,
          'gathered, MB': gathered, 'compiled in, s': cost.compile_seconds}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--variant', default='mtpret11', help='of configs/pretrain.py')
  parser.add_argument('--images', type=int, default=32, help='per chip')
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
