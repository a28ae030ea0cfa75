"""Compiles each step of a run for a pod and prints what the step would take there.

Nothing is run. Memory, FLOPs and bytes come from the compiler or are counted in the compiled program, and times are
these figures divided by the published peaks of the chip. None of it is a measurement (docs/pods.md).
"""

import collections
import dataclasses
import math
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, add_stage, name_stage
from mtpret_jax.config.validate import check_config
from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.preflight import hlo
from mtpret_jax.preflight.topology import Pod, find_pod
from mtpret_jax.report.abstract_run import lower_step, make_abstract_run
from mtpret_jax.runtime.logging import batch_size
from mtpret_jax.runtime.sharding import make_mesh

OUT_OF_MEMORY = 'RESOURCE_EXHAUSTED'  # in the compiler's message


class DoesNotFit(ConfigError):
  """A step needs more memory than the chip has."""


@dataclasses.dataclass(frozen=True)
class StepCost:
  """What one step takes, per chip.

  Attributes:
    memory: {'arguments', 'temporaries', 'outputs', 'aliased', 'program'}, bytes of HBM. Aliased outputs reuse the
      memory of arguments.
    flops: of one step.
    hbm_bytes: read from and written to HBM, counted in the compiled program.
    bytes_accessed: the compiler's count, on-chip memory included; None if it does not count (GPUs).
    collectives: [(operation, bytes)].
    compile_seconds: how long the compiler took here.
  """

  memory: dict[str, int]
  flops: float
  hbm_bytes: float
  bytes_accessed: float | None
  collectives: list[tuple[str, float]]
  compile_seconds: float

  @property
  def peak_memory(self) -> int:
    """Bytes of HBM that the step needs at once."""
    return sum(size for kind, size in self.memory.items() if kind != 'aliased') - self.memory['aliased']


def run(config: ConfigDict, pod_name: str) -> None:
  """Prints the cost of each step of each stage of the config on a pod.

  Raises:
    ConfigError: there is no such pod, or the config cannot work on it.
    DoesNotFit: a step does not fit into memory. Raised after all steps have been reported.
  """
  if config.objective == 'evaluate':
    raise ConfigError('preflight compiles training steps, and an evaluation has none: give the config of a stage or of '
                      'a recipe, such as --config=configs/pretrain.py')
  if config.objective == 'table':
    raise ConfigError('preflight compiles the steps of a few stages, and a table has many runs of the same ones: give '
                      'the config of a stage or of a recipe, such as --config=configs/mtpret.py')
  is_recipe = config.objective == 'recipe'
  stages = config.stages if is_recipe else {config.get('name', 'run'): config}
  pod, misfits = find_pod(pod_name), []
  for name, stage in stages.items():
    try:
      check_config(stage, devices=len(pod.devices), processes=pod.processes)
      tasks = make_abstract_run(stage).batches
    except ConfigError as error:
      if is_recipe:
        raise name_stage(name, error) from error
      raise
    for task in tasks:
      try:
        report_step(stage, name, task, pod)
      except DoesNotFit as error:  # names its stage
        misfits.append(add_stage(name, str(error)) if is_recipe else str(error))
  if misfits:
    raise DoesNotFit('\n'.join(misfits))


def report_step(stage: ConfigDict, name: str, task: str, pod: Pod) -> None:
  """Compiles and reports one step, then compiles it with twice the batch to estimate the largest batch.

  The report is printed before the second compilation, because that also takes minutes. Raises DoesNotFit.
  """
  print(f'{name}, step {task!r} on {pod.name}: {len(pod.devices)} chips, '
        f'{batch_size(stage, task) // len(pod.devices)} images per chip. Compiling takes minutes.', flush=True)
  cost = compute_cost(stage, task, pod)
  for line in describe_cost(stage, task, pod, cost):
    print(f'  {line}', flush=True)
  largest = None
  if cost:
    print('  Compiling with twice the batch, to estimate the largest batch that fits.', flush=True)
    largest = estimate_largest(stage, task, pod, cost, compute_cost(double_batch(stage), task, pod))
  if largest:
    print(f'  largest batch   about {largest:,} images per chip, {largest * len(pod.devices):,} in all: extrapolated '
          f'linearly from this batch and twice this batch', flush=True)
  if cost is None or cost.peak_memory > pod.chip.memory:
    raise DoesNotFit(explain_misfit(stage, name, task, pod, cost, largest))


def compute_cost(config: ConfigDict, task: str, pod: Pod) -> StepCost | None:
  """Compiles a step; None if the compiler says that it does not fit into memory."""
  lowered = lower_step(config, make_abstract_run(config), task, make_mesh(pod.devices))
  began = time.perf_counter()
  try:
    compiled: Any = lowered.compile()  # JAX declares its analyses optional; CPU, TPU and GPU all have them
  except jax.errors.JaxRuntimeError as error:
    if OUT_OF_MEMORY in str(error):
      return None
    raise
  text, seconds = compiled.as_text(), time.perf_counter() - began
  memory, analysis = compiled.memory_analysis(), compiled.cost_analysis() or {}
  program: Any = lowered.compiler_ir('hlo')  # before partitioning, so its FLOPs are those of all devices
  counted = hlo.count_flops(program.as_hlo_text()) / len(pod.devices)
  return StepCost(
    memory={'arguments': memory.argument_size_in_bytes, 'temporaries': memory.temp_size_in_bytes,
            'outputs': memory.output_size_in_bytes, 'aliased': memory.alias_size_in_bytes,
            'program': memory.generated_code_size_in_bytes},
    flops=analysis.get('flops', counted),
    hbm_bytes=hlo.count_hbm_bytes(text),
    bytes_accessed=analysis.get('bytes accessed'),
    collectives=hlo.list_collectives(text),
    compile_seconds=seconds)


def find_batch_configs(config: ConfigDict) -> dict[str, ConfigDict]:
  """{task: the part of the config with its `batch`}."""
  return {'moco': config} if config.objective == 'moco' else dict(config.tasks.items())


def group_size(config: ConfigDict, task: str) -> int:
  """Images in a batch-norm group; for a joint step, the sum over tasks."""
  if config.objective == 'moco':
    return config.moco.group
  return sum(task_config.group for name, task_config in config.tasks.items() if task in (name, JOINT))


def double_batch(config: ConfigDict) -> ConfigDict:
  """The same run with twice the batch."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for batch_config in find_batch_configs(config).values():
      batch_config.batch *= 2
    if config.objective == 'moco':
      config.moco.queue = max(config.moco.queue, config.batch)  # the queue takes in a whole batch of keys
  return config


def estimate_largest(config: ConfigDict, task: str, pod: Pod, cost: StepCost, doubled: StepCost | None) -> int | None:
  """Images per chip of the largest batch that fits, in whole batch-norm groups.

  Memory is taken to grow linearly, through this batch and twice this batch. None if twice this batch did not compile.
  """
  if doubled is None:
    return None
  images = batch_size(config, task) / len(pod.devices)
  per_image = max((doubled.peak_memory - cost.peak_memory) / images, 1)
  group = group_size(config, task)
  return max(math.floor((images + (pod.chip.memory - cost.peak_memory) / per_image) / group) * group, 0)


def estimate_seconds(cost: StepCost, pod: Pod) -> dict[str, float]:
  """The time that compute, HBM and network would each take alone, at the published peaks.

  In an all-reduce over n chips, each sends 2 (n - 1) / n times its bytes; in other collectives, half of that.
  """
  share = (len(pod.devices) - 1) / len(pod.devices)
  sent = sum(size * share * (2 if operation == 'all-reduce' else 1) for operation, size in cost.collectives)
  return {'compute': cost.flops / pod.chip.flops, 'HBM': cost.hbm_bytes / pod.chip.bandwidth,
          'network': sent / pod.chip.network}


def describe_cost(config: ConfigDict, task: str, pod: Pod, cost: StepCost | None) -> list[str]:
  """The cost as lines to print."""
  hbm = f'{pod.chip.memory / 1e9:.0f} GB'
  if cost is None:
    return [f'HBM per chip    more than {hbm}, according to the compiler']
  images, chips = batch_size(config, task), len(pod.devices)
  seconds = estimate_seconds(cost, pod)
  bound = max(seconds, key=lambda resource: seconds[resource])
  rate = images / seconds[bound]
  counts = collections.Counter(operation for operation, _ in cost.collectives)
  sizes = {operation: sum(size for other, size in cost.collectives if other == operation) for operation in counts}
  times = ', '.join(f'{resource} takes {value * 1000:.1f} ms' for resource, value in seconds.items())
  memory = ' + '.join(f'{kind} {format_bytes(size)}' for kind, size in cost.memory.items() if kind != 'aliased')
  accessed = (f'; the compiler counts {format_bytes(cost.bytes_accessed)} accessed, on-chip memory included'
              if cost.bytes_accessed else '')
  source = ('counted by the compiler' if cost.bytes_accessed else
            'convolutions and matrix products, counted in the program')
  return [
    f'HBM per chip    {format_bytes(cost.peak_memory)} of {hbm}: {memory} - aliased '
    f'(donated state) {format_bytes(cost.memory["aliased"])}',
    f'FLOPs per chip  {cost.flops / 1e12:.3f} TFLOP a step, {source}',
    f'HBM traffic     {format_bytes(cost.hbm_bytes)} read and written per chip, counted in the compiled program'
    f'{accessed}',
    'collectives     ' + (', '.join(f'{count} {operation} ({format_bytes(sizes[operation])} per chip)'
                                    for operation, count in counts.items()) or 'none'),
    f'bound by        {bound}: a step takes at least {seconds[bound] * 1000:.1f} ms; at the published peaks {times}',
    f'throughput      at most {rate:,.0f} images/s, {rate / chips:,.0f} per chip',
    f'compiled in {cost.compile_seconds:.0f} s; nothing was run',
  ]


def explain_misfit(config: ConfigDict, name: str, task: str, pod: Pod, cost: StepCost | None,
                   largest: int | None) -> str:
  """What is too large, and what to change."""
  hbm = f'{pod.chip.memory / 1e9:.0f} GB'
  needs = (f'it needs {format_bytes(cost.peak_memory)} of HBM per chip, and a chip of {pod.name} has {hbm}' if cost else
           f'it needs more HBM than the {hbm} of a chip of {pod.name}')
  if config.objective != 'moco' and task not in config.tasks:
    batch = 'a smaller --config.tasks.TASK.batch'  # a joint step has the images of all tasks
  else:
    flag = '--config.batch' if config.objective == 'moco' else f'--config.tasks.{task}.batch'
    batch = f'{flag}={largest * len(pod.devices)}' if largest else f'a smaller {flag}'
  return (f'{name}, step {task!r}, does not fit: {needs}; try {batch}, a larger pod, smaller images, '
          f'--config.dtype=bfloat16 or --config.sharding=fsdp')


def format_bytes(size: float) -> str:
  return f'{size / 1e9:.2f} GB' if size >= 1e8 else f'{size / 1e6:.2f} MB'
