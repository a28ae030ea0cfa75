"""What a step spends its time on, by kind of operation, for `--profile` of the comparisons.

Ours is a trace of jax's profiler: the time of each instruction of the compiled program. `name_operations` gives the
convolutions and batch norms their names in that program; a fused instruction counts for the operation that it ends
with. PyTorch's is `torch.profiler`: the time of each operator without those that it calls.

Both are wall time, in which other programs may run.
"""

import collections
import contextlib
import pathlib
import re
import tempfile
import unittest.mock as mock
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

TakeSteps = Callable[[int], None]

FORWARD, BY_IMAGES, BY_KERNEL = 'convolution', 'gradient by images', 'gradient by kernel'
NORM = 'batch norm'
# What the name of an instruction begins with, for those without the name of an operation: XLA's own changes of layout.
LAYOUT = 'copy', 'transpose'
# kind -> what the names of PyTorch's operators have in them; the first that fits counts.
TORCH_KINDS = {'gradients of convolutions': ('conv2d_backward', 'convolution_backward'),
               FORWARD: ('conv',),
               NORM: ('batch_norm',),
               'ReLU and sums': ('threshold', 'clamp_min', 'relu', 'aten::add'),
               'optimiser': ('adamw', 'foreach', 'sgd'),
               'pooling and resizing': ('pool', 'upsample', 'mean'),
               'copies and zeros': ('copy_', 'fill_', 'zero_', 'empty')}


@contextlib.contextmanager
def name_operations() -> Iterator[None]:
  """Within this block, what is traced gives the convolutions, their two gradients and the batch norms a scope."""
  from mtpret_jax.runtime import backend
  backend.skip_libtpu()
  import jax

  from mtpret_jax.models import conv, norm
  run, normalise = conv.run_on_backend, norm.BatchNorm.__call__

  def run_named(operation: str, *arguments: Any) -> Any:
    if operation == 'convolve':
      with jax.named_scope(FORWARD):
        return run(operation, *arguments)
    # Both gradients are computed twice here, and the compiler drops the half that is not used.
    with jax.named_scope(BY_IMAGES):
      by_images = run(operation, *arguments)[0]
    with jax.named_scope(BY_KERNEL):
      return by_images, run(operation, *arguments)[1]

  def normalise_named(self: Any, *arguments: Any, **named: Any) -> jax.Array:
    with jax.named_scope(NORM):
      return normalise(self, *arguments, **named)

  with (mock.patch.object(conv, 'run_on_backend', run_named),
        mock.patch.object(norm.BatchNorm, '__call__', normalise_named)):
    yield


def measure(side: str, take_steps: TakeSteps) -> dict[str, float]:
  """{kind of operation: milliseconds of one step}, the longest first."""
  times = (measure_ours if side == 'ours' else measure_torch)(take_steps)
  return dict(sorted(times.items(), key=lambda item: -item[1]))


def measure_ours(take_steps: TakeSteps) -> dict[str, float]:
  import jax
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      take_steps(1)
    path, = pathlib.Path(folder).rglob('*.xplane.pb')
    trace = jax.profiler.ProfileData.from_file(str(path))
  operations = {module.name: list_operations(module.to_string())
                for program in jax.devices()[0].client.live_executables() for module in program.hlo_modules()}
  times: dict[str, float] = collections.defaultdict(float)
  for line in (line for plane in trace.planes for line in plane.lines):
    named = ((event, dict(event.stats)) for event in line.events)
    events = [(event.start_ns, event.duration_ns, find_kind(about['hlo_op'], operations[about['hlo_module']]))
              for event, about in named if 'hlo_op' in about]
    for kind, nanoseconds in subtract_inner(events):
      times[kind] += nanoseconds / 1e6
  return times


def list_operations(program: str) -> dict[str, str]:
  """{instruction: the operation that it comes from, or ''} of a compiled program's text."""
  found = ((re.match(r'\s*(?:ROOT )?%?([\w.-]+) = ', line), re.search(r'op_name="([^"]*)"', line))
           for line in program.splitlines())
  return {name[1]: operation[1] if operation else '' for name, operation in found if name}


def subtract_inner(events: Iterable[tuple[float, float, str]]) -> list[tuple[str, float]]:
  """(name, duration without those of the events inside) of each (start, duration, name) of one thread."""
  results: list[list] = []
  around: list[tuple[float, list]] = []  # (end, result) of the events that the present one may lie in
  for start, duration, name in sorted(events, key=lambda event: (event[0], -event[1])):
    while around and around[-1][0] <= start:
      around.pop()
    if around:
      around[-1][1][1] -= duration
    results.append([name, duration])
    around.append((start + duration, results[-1]))
  return [(name, duration) for name, duration in results]


def find_kind(instruction: str, operations: Mapping[str, str]) -> str:
  """The kind of operation that an instruction of ours counts for. `operations` is from `list_operations`."""
  operation = operations.get(instruction, '')
  for kind in (BY_IMAGES, BY_KERNEL, FORWARD, NORM):
    if kind in operation:
      return kind
  if not operation:
    return 'changes of layout' if instruction.startswith(LAYOUT) else 'other'
  return 'ReLU, sums and the rest' if 'jvp(' in operation else 'optimiser and checks'


def measure_torch(take_steps: TakeSteps) -> dict[str, float]:
  import torch
  with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
    take_steps(1)
  times: dict[str, float] = collections.defaultdict(float)
  for operator in profile.key_averages():
    kind = next((kind for kind, words in TORCH_KINDS.items() if any(word in operator.key for word in words)), 'other')
    times[kind] += operator.self_cpu_time_total / 1e3
  return times
