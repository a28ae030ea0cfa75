"""Compiles a run's steps for a pod that is not here and says what each would take there. Nothing is run: all of this is
the compiler's account and arithmetic on the chips' published figures, not a measurement (docs/pods.md)."""

import collections
import dataclasses
import math
import time

import jax

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.validate import check_config
from mtpret_jax.preflight import hlo
from mtpret_jax.preflight.abstract_run import lower, rehearse
from mtpret_jax.preflight.topology import find_pod
from mtpret_jax.runtime.sharding import make_mesh

MEMORY_FULL = 'RESOURCE_EXHAUSTED'


class DoesNotFit(ConfigError):
  """A step that needs more memory than the chip has."""


@dataclasses.dataclass(frozen=True)
class Account:
  """Of one step, per chip: bytes of `memory` by kind; `flops`; bytes of `traffic` with the chip's memory; bytes
  `accessed` at all, by the compiler's count, None where it does not count; `messages` [(kind, bytes)]."""

  memory: dict
  flops: float
  traffic: float
  accessed: float | None
  messages: list
  seconds: float  # that the compiler took

  @property
  def peak(self):
    return sum(bytes for kind, bytes in self.memory.items() if kind != 'aliased') - self.memory['aliased']


def run(config, name):
  """Prints the account of each step of each stage of the config on the pod called `name`. Raises ConfigError where the
  config cannot work there, and DoesNotFit, after the other stages have been told of."""
  jax.config.update('jax_platforms', 'cpu')  # the pod is only compiled for; an accelerator that is here stays free
  stages = config.stages if config.objective == 'recipe' else {config.get('name', 'run'): config}
  if config.objective == 'evaluate':
    raise ConfigError('--preflight is for steps of training: name the config of a stage, or of the recipe')
  pod, misfits = find_pod(name), []
  for title, stage in stages.items():
    check_config(stage, devices=len(pod.devices), processes=pod.processes)
    for task in rehearse(stage).batches:
      try:
        report(stage, title, task, pod)
      except DoesNotFit as error:
        misfits.append(str(error))
  if misfits:
    raise DoesNotFit('\n'.join(misfits))


def report(stage, title, task, pod):
  print(f'{title}, step {task!r} on {pod.name}, {find_rows(stage, task) // len(pod.devices)} images a chip; compiling '
        f'for some minutes', flush=True)
  account = take_account(stage, task, pod)
  for line in describe(stage, task, pod, account):
    print(f'  {line}', flush=True)
  most = None
  if account:
    print('  and with twice as many images, to find the most that fit', flush=True)
    most = find_most(stage, task, pod, account, take_account(double(stage), task, pod))
  if most:
    print(f'  batch      at most about {most:,} images a chip, {most * len(pod.devices):,} in all: a straight line '
          f'through the memory of this batch and of twice as many', flush=True)
  if account is None or account.peak > pod.chip.memory:
    raise DoesNotFit(advise(stage, title, task, pod, account, most))


def take_account(config, task, pod):
  """The `Account` of a step, or None where the compiler finds no room for it."""
  _, lowered = lower(config, rehearse(config), task, make_mesh(pod.devices))
  began = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if MEMORY_FULL in str(error):
      return None
    raise
  text, seconds = compiled.as_text(), time.perf_counter() - began
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  counted = hlo.count_flops(lowered.compiler_ir('hlo').as_hlo_text()) / len(pod.devices)
  return Account(
    memory={'arguments': memory.argument_size_in_bytes, 'temporaries': memory.temp_size_in_bytes,
            'outputs': memory.output_size_in_bytes, 'aliased': memory.alias_size_in_bytes,
            'program': memory.generated_code_size_in_bytes},
    flops=cost.get('flops', counted),
    traffic=hlo.count_traffic(text),
    accessed=cost.get('bytes accessed'),
    messages=hlo.list_messages(text),
    seconds=seconds)


def find_task_configs(config):
  """The parts of the config that say how many images a step has and how they are grouped: one of each task."""
  return {'moco': config} if config.objective == 'moco' else config.tasks


def find_rows(config, task):
  """Images in a step: of a joint one, those of all tasks."""
  task_configs = find_task_configs(config)
  return task_configs[task].batch if task in task_configs else sum(task_config.batch for task_config in task_configs.values())


def double(config):
  """The same run with twice the batch."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for task_config in find_task_configs(config).values():
      task_config.batch *= 2
    if config.objective == 'moco':
      config.moco.queue = max(config.moco.queue, config.batch)
  return config


def find_most(config, task, pod, account, larger):
  """The most images that a chip has room for, in whole groups, by a straight line through the memory of this batch and
  of twice as many; None where the compiler found no room for those."""
  if larger is None:
    return None
  rows = find_rows(config, task) / len(pod.devices)
  each = max((larger.peak - account.peak) / rows, 1)
  group = find_group(config, task)
  return max(math.floor((rows + (pod.chip.memory - account.peak) / each) / group) * group, 0)


def find_group(config, task):
  """Images in a batch-norm group; of a joint step, in one of each task."""
  if config.objective == 'moco':
    return config.moco.group
  return config.tasks[task].group if task in config.tasks else sum(task_config.group for task_config in config.tasks.values())


def find_seconds(account, pod):
  """What each of the chip's limits would take by itself. Of an all-reduce over n chips each sends its bytes
  2 (n - 1) / n times, of other messages half of that."""
  share = (len(pod.devices) - 1) / len(pod.devices)
  sent = sum(bytes * share * (2 if kind == 'all-reduce' else 1) for kind, bytes in account.messages)
  return {'compute': account.flops / pod.chip.flops, 'memory': account.traffic / pod.chip.bandwidth,
          'network': sent / pod.chip.network}


def describe(config, task, pod, account):
  """The account as lines."""
  if account is None:
    return [f'memory     more than the {pod.chip.memory / 1e9:.0f} GB of a chip, says the compiler']
  chips, rows = len(pod.devices), find_rows(config, task)
  seconds = find_seconds(account, pod)
  limit = max(seconds, key=seconds.get)
  rate = rows / seconds[limit]
  kinds = collections.Counter(kind for kind, _ in account.messages)
  sizes = collections.Counter()
  for kind, size in account.messages:
    sizes[kind] += size
  messages = ', '.join(f'{count} {kind} of {show(sizes[kind])}' for kind, count in kinds.items()) or 'nothing'
  accessed = f'; {show(account.accessed)} accessed, fast memory included, says the compiler' if account.accessed else ''
  by_hand = 'says the compiler' if account.accessed else 'counted: convolutions and matrix products of the program'
  memory = ', '.join(f'{kind} {show(size)}' for kind, size in account.memory.items())
  return [
    f'memory     {show(account.peak)} of {pod.chip.memory / 1e9:.0f} GB: {memory}',
    f'compute    {account.flops / 1e12:.3f} TFLOP, {by_hand}',
    f'traffic    {show(account.traffic)} with the chip\'s memory, counted in the compiled program{accessed}',
    f'network    {messages}',
    f'bound      {rate:,.0f} images/s, {rate / chips:,.0f} a chip, by {limit}: ' + ', '.join(
      f'{kind} {value * 1000:.1f} ms' for kind, value in seconds.items()),
    f'compiled in {account.seconds:.0f} s; nothing was run',
  ]


def advise(config, title, task, pod, account, most):
  needs = f'{show(account.peak)}' if account else 'more'
  field = 'batch' if config.objective == 'moco' else f'tasks.{task}.batch'
  fits = f'--config.{field}={most * len(pod.devices)}' if most else f'a smaller --config.{field}'
  return (f'{title}, step {task!r}, does not fit: it needs {needs} of the {pod.chip.memory / 1e9:.0f} GB of a chip of '
          f'{pod.name}; try {fits}, a larger pod, smaller images, --config.dtype=bfloat16 or '
          f'--config.sharding=fsdp')


def show(size):
  return f'{size / 1e9:.2f} GB' if size >= 1e8 else f'{size / 1e6:.2f} MB'
