"""Reads a program in XLA's text form: what it computes, moves and sends.

For TPUs the compiler says itself how many operations a program has and how many bytes it accesses; for a GPU that is
absent it does not, and it never says what goes to the chip's own fast memory and what to HBM. So both are counted
here, in the text. Loops whose number of rounds the program does not know beforehand count as one round.
"""

import dataclasses
import functools
import math
import re

import numpy as np

WIDTHS = {'pred': 1, 's4': 0.5, 'u4': 0.5, 'bf16': 2} | {
  f'{kind}{bits}': bits // 8 for kind in 'suf' for bits in (8, 16, 32, 64)}
ARRAY = re.compile(r'\b(pred|bf16|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?')
TILED = re.compile(r'\{([\d,]+):T\(([\d,]+)\)')
MESSAGES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast')
FREE = {'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id', 'iota'}


@dataclasses.dataclass(frozen=True)
class Array:
  kind: str
  shape: tuple[int, ...]
  layout: str

  @property
  def bytes(self):
    return math.prod(self.shape) * WIDTHS[self.kind]

  @property
  def in_memory(self):
    """Whether it lies in the device's main memory, not in a faster one of its own (`S(1)` and more)."""
    return 'S(' not in self.layout

  @property
  def stored_bytes(self):
    """With the padding of the tiles that a TPU stores arrays in: 64 channels take the place of 128."""
    tiled = TILED.match(self.layout)
    if not tiled:
      return self.bytes
    order, tile = ([int(number) for number in part.split(',')] for part in tiled.groups())
    sides = list(self.shape)
    for axis, side in zip(order, reversed(tile), strict=False):
      sides[axis] = -(-sides[axis] // side) * side
    return math.prod(sides) * WIDTHS[self.kind]


@dataclasses.dataclass(frozen=True)
class Instruction:
  name: str
  op: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  rest: str  # what stands behind the operands

  def read(self, name):
    """The value of an attribute such as `channel_id=3`, as text, or None."""
    found = re.search(rf'\b{name}=(\{{[^}}]*\}}|[^\s,]+)', self.rest)
    return found and found[1].lstrip('%')


def read_program(text):
  """{name of a computation: {name: Instruction}}; the one that is run is called 'ENTRY'."""
  computations, body = {}, None
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


def read_instruction(line):
  name, value = re.sub(r'/\*.*?\*/', '', line).strip().removeprefix('ROOT ').split(' = ', 1)
  end = find_end(value) if value.startswith('(') else value.index(' ')
  results, call = value[:end], value[end:].lstrip()
  start = call.index('(')
  stop = start + find_end(call[start:])
  operands = tuple(part.split()[-1].lstrip('%') for part in call[start + 1:stop - 1].split(', ') if part.strip())
  return Instruction(name.lstrip('%'), call[:start], read_arrays(results), operands, call[stop:])


def read_arrays(text):
  return tuple(Array(kind, tuple(int(side) for side in sides.split(',') if side), layout)
               for kind, sides, layout in ARRAY.findall(text))


def find_end(text):
  """The place after the bracket that closes the one which `text` begins with."""
  depth = 0
  for place, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      return place + 1
  raise ValueError(f'a bracket is not closed in {text[:80]!r}')


def count_flops(text):
  """Additions and multiplications of all convolutions and matrix products; what is multiplied with padding or with the
  zeros between dilated pixels is not counted."""
  program = read_program(text)

  @functools.cache
  def count(name):
    return sum(count_in(instruction, program[name]) for instruction in program[name].values())

  def count_in(instruction, body):
    operands = [body[operand].results[0] if body[operand].results else None
                for operand in instruction.operands if operand in body]
    if instruction.op == 'dot':
      summed = read_numbers(instruction.read('lhs_contracting_dims'))
      return 2 * math.prod(instruction.results[0].shape) * math.prod(operands[0].shape[axis] for axis in summed)
    if instruction.op == 'convolution':
      return count_convolution(instruction, *operands)
    if instruction.op == 'conditional':
      return max(count(branch) for branch in list_branches(instruction))
    return sum(count(callee) for callee in list_callees(instruction))

  return count('ENTRY')


def list_callees(instruction):
  """Computations that an instruction runs once, as far as anybody knows."""
  if instruction.op in ('fusion', 'async-start'):
    return [instruction.read('calls')]
  if instruction.op == 'call':
    return [instruction.read('to_apply')]
  if instruction.op == 'while':
    return [instruction.read('body')]
  return []


def list_branches(instruction):
  listed = instruction.read('branch_computations')
  if listed:
    return [name.strip().lstrip('%') for name in listed.strip('{}').split(',')]
  return [instruction.read('true_computation'), instruction.read('false_computation')]


def read_numbers(text):
  return [int(number) for number in re.findall(r'\d+', text or '')]


def count_convolution(instruction, images, kernel):
  of_images, of_kernel, of_result = re.split('_|->', instruction.read('dim_labels'))
  (result,) = instruction.results
  window = read_window(instruction)
  pairs = 1
  for index, label in enumerate(sorted(label for label in of_result if label.isdigit())):
    side, size, out = (array.shape[labels.index(label)] for array, labels in (
      (images, of_images), (kernel, of_kernel), (result, of_result)))
    pairs *= count_pairs(side, size, out, **{field: values[index] for field, values in window.items()})
  batch, channels = (result.shape[of_result.index(label)] for label in 'bf')
  return 2 * batch * channels * kernel.shape[of_kernel.index('i')] * pairs


def read_window(instruction):
  """{stride, pad, lhs_dilate, rhs_dilate: one number for each side}, `pad` being that before the first pixel."""
  text = (instruction.read('window') or '').strip('{}')
  given = dict(part.split('=') for part in text.split())
  sides = len(given['size'].split('x')) if given else 0
  window = {field: [int(number) for number in given[field].split('x')] if field in given else [1] * sides
            for field in ('stride', 'lhs_dilate', 'rhs_dilate')}
  pads = given.get('pad', 'x'.join(['0_0'] * sides))
  return window | {'pad': [int(pad.split('_')[0]) for pad in pads.split('x')] if sides else []}


def count_pairs(side, size, out, *, stride, pad, lhs_dilate, rhs_dilate):
  """How often a tap meets a pixel along one side of a convolution."""
  place = np.arange(out)[:, None] * stride + np.arange(size)[None] * rhs_dilate - pad
  return int(((place >= 0) & (place <= (side - 1) * lhs_dilate) & (place % lhs_dilate == 0)).sum())


def count_traffic(text):
  """Bytes that a compiled program reads from the device's main memory and writes to it: operands and results of every
  instruction that runs by itself, those inside a fusion staying on the chip."""
  program = read_program(text)

  @functools.cache
  def count(name):
    return sum(count_in(instruction, program[name]) for instruction in program[name].values())

  def count_in(instruction, body):
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
      moved = [*instruction.results[:1], *operands]
    elif instruction.op == 'slice-start':  # ((from), to, context): of the operand, only the slice is read
      part = instruction.results[len(operands)]
      moved = [part, dataclasses.replace(part, layout=operands[0].layout)]
    elif instruction.op.endswith('-start'):
      moved = instruction.results
    else:
      moved = [*instruction.results, *operands]
    return sum(array.stored_bytes for array in moved if array.in_memory)

  return count('ENTRY')


def list_messages(text):
  """[(kind, bytes)] of the messages between devices, each once: of an all-gather what each device has afterwards, of
  the others what it gives in. The program may have the same message in several places; several that share a channel
  (TPUs' fusions of all-reduce and slice) are told apart by their size."""
  found = {}
  for body in read_program(text).values():
    for instruction in body.values():
      kind = instruction.op.removesuffix('-start')
      if kind in MESSAGES:
        given = [array for operand in instruction.operands if operand in body for array in body[operand].results]
        sent = sum(array.bytes for array in given)
        if kind == 'all-gather':
          sent = sum(array.bytes for array in instruction.results) - (sent if instruction.op.endswith('-start') else 0)
        found[instruction.read('channel_id') or instruction.name, sent] = kind, sent
  return list(found.values())
