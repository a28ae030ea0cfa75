"""Published peak figures of accelerators, each with its source. We measured none of them.

All figures are taken as decimal, also where the source says GiB (v4 and v5p), which is 7 % more; the memory that a
program gets differs a little. FLOP/s are dense bf16, without sparsity. The network of a TPU is all its links to
neighbouring chips in one direction, half of the "bidirectional" figure; that of a GPU is half of NVLink's total.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
  """What XLA needs to know to compile for a GPU that is not attached.

  Attributes:
    multiprocessors: number of streaming multiprocessors.
    shared: bytes of shared memory per multiprocessor.
    shared_block: bytes of it that one block may use.
    cache: bytes of the L2 cache.
    clock: GHz.
    capability: CUDA compute capability, (major, minor).
  """

  name: str
  multiprocessors: int
  shared: int
  shared_block: int
  cache: int
  clock: float
  capability: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Chip:
  """Attributes:
    flops: bf16 FLOP/s.
    memory: bytes of HBM.
    bandwidth: HBM bytes per second.
    network: bytes per second that the chip can send to others.
    gpu: None for a TPU.
  """

  flops: float
  memory: float
  bandwidth: float
  network: float
  gpu: Gpu | None = None


# OpenXLA, xla/backends/gpu/target_config/specs/{a100_sxm_80,h100_sxm,h200}.txtpb (https://github.com/openxla/xla)
A100 = Gpu('NVIDIA A100-SXM4-80GB', 108, 167_936, 166_912, 41_943_040, 1.41, (8, 0))
H100 = Gpu('NVIDIA H100 80GB HBM3', 132, 233_472, 232_448, 52_428_800, 1.98, (9, 0))
H200 = Gpu('NVIDIA H200 141GB HBM3e', 132, 233_472, 232_448, 52_428_800, 1.98, (9, 0))

CHIPS = {
  # "TPU v4", https://cloud.google.com/tpu/docs/v4: 275 TFLOPS, 32 GiB, 1200 GB/s. Its links, six of 45 GB/s: "How to
  # Think About TPUs" in How to Scale Your Model, https://jax-ml.github.io/scaling-book/tpus
  'v4': Chip(275e12, 32e9, 1200e9, 270e9),
  # "TPU v5e", https://cloud.google.com/tpu/docs/v5e: 197 TFLOPS, 16 GB, 819 GB/s, 400 GB/s in both directions
  'v5e': Chip(197e12, 16e9, 819e9, 200e9),
  # "TPU v5p", https://docs.cloud.google.com/tpu/docs/v5p-training: 459 TFLOPS, 95 GiB, 2765 GB/s, 1200 GB/s in both
  # directions
  'v5p': Chip(459e12, 95e9, 2765e9, 600e9),
  # "TPU v6e", https://docs.cloud.google.com/tpu/docs/v6e: 918 TFLOPS, 32 GB, 1638 GB/s, 800 GB/s in both directions
  'v6e': Chip(918e12, 32e9, 1638e9, 400e9),
  # GPUs, SXM modules: "How to Think About GPUs" in How to Scale Your Model, https://jax-ml.github.io/scaling-book/gpus
  # (3.1e14, 9.9e14 and 9.9e14 FLOP/s; 80, 80 and 141 GB; 300, 450 and 450 GB/s of NVLink). More digits come from
  # OpenXLA's files above: the bandwidth of all three, and the FLOP/s of H100 and H200, 132 multiprocessors x 4 units x
  # 512 multiply-adds at 1.8295 GHz. A100's 312 TFLOPS: https://glennklockwood.com/garden/processors/A100, which quotes
  # NVIDIA's "A100 datasheet" (nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf). None of these figures was
  # checked against NVIDIA's own pages.
  'a100': Chip(312e12, 80e9, 2039e9, 300e9, A100),
  'h100': Chip(989e12, 80e9, 3352e9, 450e9, H100),
  'h200': Chip(989e12, 141e9, 4800e9, 450e9, H200),
}


def describe_gpu(chip: Chip) -> str:
  """The target config of a GPU in the text form that XLA reads."""
  assert chip.gpu, 'a TPU has no GPU target config'
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
