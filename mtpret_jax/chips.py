"""What chips can do, as published; none of it was measured here.

Those of v5e were read on https://cloud.google.com/tpu/docs/v5e. The others are the figures in common use: compare them
with their makers' pages (https://cloud.google.com/tpu/docs/v4, /v5p, /v6e; the data sheets of NVIDIA's SXM modules
A100, H100 and H200) before money depends on them. The network of a TPU is its links to its neighbours, one direction
of each: half of the "bidirectional" figure; of a GPU half of NVLink's total; arithmetic without sparsity.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
  """What XLA asks of a GPU that is absent: multiprocessors, bytes of shared memory in each and that one block may have,
  bytes of the second cache, GHz, and CUDA's compute capability."""

  name: str
  multiprocessors: int
  shared: int
  shared_block: int
  cache: int
  clock: float
  capability: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Chip:
  """`flops`: bf16 operations a second; `memory`: bytes; `bandwidth`: bytes of it a second; `network`: bytes a second
  that it can send; `gpu`: None for a TPU."""

  flops: float
  memory: float
  bandwidth: float
  network: float
  gpu: Gpu | None = None


A100 = Gpu('NVIDIA A100-SXM4-80GB', 108, 167_936, 166_912, 41_943_040, 1.41, (8, 0))
H100 = Gpu('NVIDIA H100 80GB HBM3', 132, 233_472, 232_448, 52_428_800, 1.98, (9, 0))
H200 = Gpu('NVIDIA H200', 132, 233_472, 232_448, 62_914_560, 1.98, (9, 0))

CHIPS = {
  'v4': Chip(275e12, 32e9, 1200e9, 300e9),
  'v5e': Chip(197e12, 16e9, 819e9, 200e9),
  'v5p': Chip(459e12, 95e9, 2765e9, 600e9),
  'v6e': Chip(918e12, 32e9, 1600e9, 400e9),
  'a100': Chip(312e12, 80e9, 2039e9, 300e9, A100),
  'h100': Chip(989e12, 80e9, 3350e9, 450e9, H100),
  'h200': Chip(989e12, 141e9, 4800e9, 450e9, H200),
}


def describe_gpu(chip):
  """The GPU in the text form that XLA reads."""
  gpu, (major, minor) = chip.gpu, chip.gpu.capability
  return (
    f'gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 '
    f'shared_memory_per_core: {gpu.shared} threads_per_core_limit: 2048 core_count: {gpu.multiprocessors} '
    f'fpus_per_core: {128 if major > 8 else 64} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 '
    f'block_dim_limit_z: 65535 memory_bandwidth: {int(chip.bandwidth)} l2_cache_size: {gpu.cache} '
    f'clock_rate_ghz: {gpu.clock} device_memory_size: {int(chip.memory)} '
    f'shared_memory_per_block_optin: {gpu.shared_block} '
    f'cuda_compute_capability {{ major: {major} minor: {minor} }} registers_per_core_limit: 65536 '
    f'registers_per_block_limit: 65536 }} platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 7 }} '
    f'runtime_version {{ major: 12 minor: 8 }} device_description_str: "{gpu.name}"')
