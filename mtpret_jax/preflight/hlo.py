"""Reads a program in XLA's text form (HLO): FLOPs, HBM traffic and collectives.

For TPUs the compiler reports FLOPs and bytes accessed. For a GPU that is not attached it reports neither, and it never
says which bytes are in HBM and which in the chip's fast memory. So both are counted here, in the text. A loop whose
number of iterations is not in the program counts as one iteration.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import numpy as np

WIDTHS = {'pred': 1, 's4': 0.5, 'u4': 0.5, 'bf16': 2} | {  # bytes per element
  f'{kind}{bits}': bits // 8 for kind in 'suf' for bits in (8, 16, 32, 64)}
ARRAY = re.compile(r'\b(pred|bf16|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?')
TILED = re.compile(r'\{([\d,]+):T\(([\d,]+)\)')
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute',
               'collective-broadcast')
# Instructions that move no data.
FREE = {'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id', 'iota'}


@dataclasses.dataclass(frozen=True)
class Array:
  """One array in the program. `layout` is what follows the shape in the text, such as '{3,2,1,0:T(8,128)S(1)}'."""

  dtype: str
  shape: tuple[int, ...]
  layout: str

  @property
  def bytes(self) -> float:
    return math.prod(self.shape) * WIDTHS[self.dtype]

  @property
  def in_hbm(self) -> bool:
    """False in another memory space, the chip's own fast memory: `S(1)` and higher."""
    return 'S(' not in self.layout

  @property
  def padded_bytes(self) -> float:
    """Bytes with the padding of tiles: a TPU stores 64 channels in the space of 128."""
    tiled = TILED.match(self.layout)
    if not tiled:
      return self.bytes
    order, tile = ([int(number) for number in part.split(',')] for part in tiled.groups())
    sides = list(self.shape)
    for axis, side in zip(order, reversed(tile), strict=False):  # a tile covers the innermost axes only
      sides[axis] = -(-sides[axis] // side) * side
    return math.prod(sides) * WIDTHS[self.dtype]


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of the program: `%name = results op(operands), attributes`."""

  name: str
  op: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str

  def read(self, name: str) -> str:
    """The value of an attribute such as `channel_id=3`, as text, or '' if it is absent."""
    found = re.search(rf'\b{name}=(\{{[^}}]*\}}|[^\s,]+)', self.attributes)
    return found[1].lstrip('%') if found else ''


Computation = dict[str, Instruction]  # by name of the instruction


def read_program(text: str) -> dict[str, Computation]:
  """The computations of a program by name; the main one is 'ENTRY'."""
  computations: dict[str, Computation] = {}
  body: Computation | None = None
  for line in text.splitlines():
    if line.endswith('{') and not line.startswith((' ', 'HloModule')):
      name = line.split()[0 if not line.startswith('ENTRY') else 1].lstrip('%')
      body = computations['ENTRY' if line.startswith('ENTRY') else name] = {}
    elif line.startswith('}'):
      body = None
    elif body is not None and ' = ' in line:
      instruction = read_instruction(line)
      body[instruction.name] = instruction
  return computations


def read_instruction(line: str) -> Instruction:
  name, value = re.sub(r'/\*.*?\*/', '', line).strip().removeprefix('ROOT ').split(' = ', 1)
  end = find_closing(value) if value.startswith('(') else value.index(' ')
  results, call = value[:end], value[end:].lstrip()
  start = call.index('(')
  stop = start + find_closing(call[start:])
  operands = tuple(part.split()[-1].lstrip('%') for part in call[start + 1:stop - 1].split(', ') if part.strip())
  return Instruction(name.lstrip('%'), call[:start], read_arrays(results), operands, call[stop:])


def read_arrays(text: str) -> tuple[Array, ...]:
  return tuple(Array(dtype, tuple(int(side) for side in sides.split(',') if side), layout)
               for dtype, sides, layout in ARRAY.findall(text))


def find_closing(text: str) -> int:
  """The index just after the bracket that closes the first character of `text`."""
  depth = 0
  for index, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return index + 1
  raise ValueError(f'unclosed bracket in {text[:80]!r}')


def count_flops(text: str) -> float:
  """Additions and multiplications of all convolutions and matrix products, without products with padding or with the
  zeros between dilated pixels. Of a conditional, only the most expensive branch counts."""
  program = read_program(text)

  @functools.cache
  def count(name: str) -> float:
    return sum(count_one(instruction, program[name]) for instruction in program[name].values())

  def count_one(instruction: Instruction, body: Computation) -> float:
    if instruction.op in ('dot', 'convolution'):
      operands = [body[operand].results[0] for operand in instruction.operands]
    if instruction.op == 'dot':
      summed = read_numbers(instruction.read('lhs_contracting_dims'))
      return 2 * math.prod(instruction.results[0].shape) * math.prod([operands[0].shape[axis] for axis in summed])
    if instruction.op == 'convolution':
      return count_convolution(instruction, *operands)
    if instruction.op == 'conditional':
      return max(count(branch) for branch in list_branches(instruction))
    return sum(count(callee) for callee in list_callees(instruction))

  return count('ENTRY')


def list_callees(instruction: Instruction) -> list[str]:
  """The computations that an instruction calls. A loop's body is listed once, since its iterations are unknown."""
  if instruction.op in ('fusion', 'async-start'):
    return [instruction.read('calls')]
  if instruction.op == 'call':
    return [instruction.read('to_apply')]
  if instruction.op == 'while':
    return [instruction.read('body')]
  return []


def list_branches(instruction: Instruction) -> list[str]:
  """The computations that a conditional chooses from."""
  listed = instruction.read('branch_computations')
  if listed:
    return [name.strip().lstrip('%') for name in listed.strip('{}').split(',')]
  return [instruction.read(f'{case}_computation') for case in ('true', 'false')]


def read_numbers(text: str) -> list[int]:
  return [int(number) for number in re.findall(r'\d+', text)]


def count_convolution(instruction: Instruction, images: Array, kernel: Array) -> float:
  """FLOPs of a convolution; `dim_labels` such as b01f_01io->b01f name the axes of images, kernel and result."""
  of_images, of_kernel, of_result = re.split('_|->', instruction.read('dim_labels'))
  (result,) = instruction.results
  window = read_window(instruction)
  products = 1  # of a kernel tap and a pixel, for one input and one output channel of one image
  for index, label in enumerate(sorted(label for label in of_result if label.isdigit())):
    side, size, out = (array.shape[labels.index(label)] for array, labels in (
      (images, of_images), (kernel, of_kernel), (result, of_result)))
    products *= count_taps(side, size, out, **{field: values[index] for field, values in window.items()})
  batch, channels = (result.shape[of_result.index(label)] for label in 'bf')
  return 2 * batch * channels * kernel.shape[of_kernel.index('i')] * products


def read_window(instruction: Instruction) -> dict[str, list[int]]:
  """A number for each spatial axis: 'stride', 'pad' before the first pixel, 'lhs_dilate' (the distance of pixels) and
  'rhs_dilate' (the distance of taps)."""
  text = instruction.read('window').strip('{}')
  given = dict(part.split('=') for part in text.split())
  sides = len(given['size'].split('x')) if given else 0
  window = {field: [int(number) for number in given[field].split('x')] if field in given else [1] * sides
            for field in ('stride', 'lhs_dilate', 'rhs_dilate')}
  pads = given.get('pad', 'x'.join(['0_0'] * sides))
  return window | {'pad': [int(pad.split('_')[0]) for pad in pads.split('x')] if sides else []}


def count_taps(side: int, size: int, out: int, *, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int) -> int:
  """How often a tap of the kernel meets a pixel along one axis: `side` pixels, `size` taps, `out` positions."""
  place = np.arange(out)[:, None] * stride + np.arange(size)[None] * rhs_dilate - pad
  return int(((place >= 0) & (place <= (side - 1) * lhs_dilate) & (place % lhs_dilate == 0)).sum())


def count_hbm_bytes(text: str) -> float:
  """Bytes that a compiled program reads from HBM and writes to it: the operands and results of every instruction. What
  lies inside a fusion stays on the chip."""
  program = read_program(text)

  @functools.cache
  def count(name: str) -> float:
    return sum(count_one(instruction, program[name]) for instruction in program[name].values())

  def count_one(instruction: Instruction, body: Computation) -> float:
    if instruction.op in FREE or instruction.op.endswith(('-done', '-update')):
      return 0
    if instruction.op == 'conditional':
      return max(count(branch) for branch in list_branches(instruction))
    if instruction.op in ('call', 'while'):
      return sum(count(callee) for callee in list_callees(instruction))
    if instruction.read('custom_call_target') == '"ConcatBitcast"':
      return 0
    operands = [array for operand in instruction.operands if operand in body for array in body[operand].results]
    if instruction.op == 'copy-start':  # (to, from, context)
      moved: Sequence[Array] = [*instruction.results[:1], *operands]
    elif instruction.op == 'slice-start':  # ((from), to, context): of the operand, only the slice is read
      part = instruction.results[len(operands)]
      moved = [part, dataclasses.replace(part, layout=operands[0].layout)]
    elif instruction.op.endswith('-start'):
      moved = instruction.results
    else:
      moved = [*instruction.results, *operands]
    return sum(array.padded_bytes for array in moved if array.in_hbm)

  return count('ENTRY')


def list_collectives(text: str) -> list[tuple[str, float]]:
  """[(operation, bytes)] of the collectives between devices: for an all-gather the bytes of its result on each device,
  for the others the bytes of their operands.

  The text may contain copies of the same collective, which count once. On TPUs, fusions of an all-reduce and a slice
  share a channel; their sizes distinguish them.
  """
  found: dict[tuple[str, float], tuple[str, float]] = {}
  for body in read_program(text).values():
    for instruction in body.values():
      operation = instruction.op.removesuffix('-start')
      if operation in COLLECTIVES:
        operands = [array for operand in instruction.operands if operand in body for array in body[operand].results]
        size = sum(array.bytes for array in operands)
        if operation == 'all-gather':  # the results of an asynchronous one begin with its operands
          size = sum(array.bytes for array in instruction.results) - (size if instruction.op.endswith('-start') else 0)
        found[instruction.read('channel_id') or instruction.name, size] = operation, size
  return list(found.values())
