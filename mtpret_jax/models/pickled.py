"""Reads the pickle in a file of `torch.save` without executing it.

A pickle is a program for a small stack machine, and Python's own machine lets it import and call anything. The machine
here knows tensors, dicts, lists, tuples and plain values. Every other class or function becomes an `Unknown`, which
stores attributes and calls nothing: a checkpoint may contain `argparse.Namespace` or be a whole model. What a file can
cost is limited too: its instructions and what they copy are counted, and a key of a dict must be a string or an integer
of 64 bits.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

from mtpret_jax.config.errors import show

MAX_INSTRUCTIONS = 2_000_000  # about 4 s; ResNet-50 with Adam's state has 20,000
MAX_GLOBAL = 1000  # characters of the name of a class or function
SETS = ('builtins.set', 'builtins.frozenset', '__builtin__.set', '__builtin__.frozenset')  # harmless, but not needed


@dataclasses.dataclass(frozen=True)
class Global:
  """A class or function by its name, such as `torch.FloatStorage`. Nothing is imported."""

  name: str


@dataclasses.dataclass(frozen=True)
class Storage:
  """The numbers of one or several tensors.

  Attributes:
    key: names it in the file.
    kind: torch's class, such as `torch.FloatStorage`.
    count: of numbers.
    offset: of the first one, where the storage is a view of another one.
  """

  key: str
  kind: str
  count: int
  offset: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A view of a storage; `offset` and `stride` count numbers."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


class Unknown(dict):
  """Stands for any other object. Its items are the object's attributes."""

  def __init__(self) -> None:
    super().__init__()


@dataclasses.dataclass
class Machine:
  """The stack machine.

  Attributes:
    value: of the pickle, once it is read.
    stack: what is above the last mark.
    below: the stacks below each mark.
    storages: {key: storage} of all that the pickle refers to.
    unknown: the names of what became `Unknown`.
    cost: the instructions so far, and the items that they copied.
  """

  value: Any = None
  stack: list = dataclasses.field(default_factory=list)
  below: list[list] = dataclasses.field(default_factory=list)
  memo: dict[int, Any] = dataclasses.field(default_factory=dict)
  storages: dict[str, Storage] = dataclasses.field(default_factory=dict)
  unknown: dict[str, None] = dataclasses.field(default_factory=dict)
  cost: int = 0

  def charge(self, count: int) -> None:
    """Adds to the cost. An instruction that copies a list or tuple of the memo costs its length, else a small file
    could copy a long one a million times."""
    self.cost += count
    if self.cost > MAX_INSTRUCTIONS:
      raise ValueError(f'its pickle has more than {MAX_INSTRUCTIONS:,} instructions: save only the weights, with '
                       f'torch.save(model.state_dict(), NEW_FILE)')

  def push(self, value: Any) -> None:
    self.stack.append(value)

  def pop(self) -> Any:
    return self.stack.pop()

  def pop_to_mark(self) -> list:
    items, self.stack = self.stack, self.below.pop()
    return items

  def mark(self) -> None:
    self.below.append(self.stack)
    self.stack = []

  def put(self, index: int) -> None:
    self.memo[index] = self.stack[-1]

  def set_items(self, items: list) -> None:
    """Adds [key, value, key, value, ...] to the dict on top of the stack."""
    self.update(self.stack[-1], list(zip(items[::2], items[1::2], strict=True)))

  def update(self, target: dict, pairs: Collection) -> None:
    """Adds the pairs whose key is plain to a dict. A nested tuple as a key could take forever to hash."""
    self.charge(len(pairs))
    target.update((key, value) for key, value in pairs if self.is_plain(key))

  def is_plain(self, key: Any) -> bool:
    """Whether the key is a string or a short integer: a long one is hashed anew each time. A string is compared with an
    equal one, which costs little unless it is very long."""
    if isinstance(key, str):
      self.charge(len(key) // 1000)
    return isinstance(key, str) or isinstance(key, int) and key.bit_length() <= 64

  def append(self, items: list) -> None:
    """Adds items to the list on top of the stack. An `Unknown` does not keep them."""
    if not isinstance(self.stack[-1], Unknown):
      self.stack[-1].extend(items)

  def call(self, function: Any, arguments: Any) -> None:
    self.push(make(function, arguments, self))

  def push_global(self, module: str, name: str) -> None:
    self.charge(len(module) + len(name))
    if len(module) + len(name) > MAX_GLOBAL:
      raise ValueError(f'its pickle has a class with a name of more than {MAX_GLOBAL:,} characters')
    self.push(Global(f'{module}.{name}'))

  def refer(self, identity: Any) -> None:
    """Pushes the storage that a persistent id names, or an `Unknown`."""
    self.charge(len(identity))
    storage = find_storage(identity)
    if isinstance(storage, Storage):
      self.charge(len(storage.key))
      if self.storages.setdefault(storage.key, storage).kind != storage.kind:
        raise ValueError(f'its storage {show(storage.key)} is of two types')
    self.push(storage)

  def build(self) -> None:
    """Gives an object its attributes. Those of dicts and tensors are metadata."""
    state, value = self.pop(), self.stack[-1]
    if isinstance(value, Unknown):
      parts = state if isinstance(state, tuple) else (state,)
      self.charge(len(parts))
      for part in parts:
        self.update(value, part.items() if isinstance(part, dict) else ())


def read_pickle(file: BinaryIO) -> Machine:
  """Reads the pickle at the file's position and leaves the position behind it.

  Raises:
    ValueError: the pickle is damaged, too long, or uses what `torch.save` does not write.
  """
  machine = Machine()
  try:
    for opcode, argument, _ in pickletools.genops(file):
      machine.charge(1)
      if opcode.name not in INSTRUCTIONS:
        raise ValueError(f'its pickle has the instruction {opcode.name}, which torch.save does not write')
      INSTRUCTIONS[opcode.name](machine, argument)
    machine.value = machine.pop()
    return machine
  except (IndexError, KeyError, TypeError, AttributeError) as error:
    raise ValueError('its pickle is damaged') from error


def make(function: Any, arguments: Any, machine: Machine) -> Any:
  """What a call in the pickle would give: a tensor or a dict; for all other calls an `Unknown`, whose name the machine
  notes."""
  match getattr(function, 'name', None), arguments:
    case 'torch._utils._rebuild_tensor' | 'torch._utils._rebuild_tensor_v2', (Storage() as storage, offset, shape,
                                                                              stride, *_):
      machine.charge(len(shape) + len(stride))
      return Tensor(storage, offset, tuple(shape), tuple(stride))
    case 'torch._utils._rebuild_parameter' | 'torch._utils._rebuild_parameter_with_state', (Tensor() as tensor, *_):
      return tensor
    case 'torch._tensor._rebuild_from_type_v2', (inner, _, inner_arguments, *_):  # a subclass of torch.Tensor
      return make(inner, inner_arguments, machine) if inner != function else Unknown()
    case 'collections.OrderedDict', (list() as pairs,):  # as Python 2 wrote it
      made: dict = {}
      machine.update(made, pairs)
      return made
    case 'collections.OrderedDict' | 'collections.defaultdict', _:
      return {}
    case str(name), _ if name not in SETS:
      machine.unknown[name] = None
  return Unknown()


def find_storage(identity: Any) -> Storage | Unknown:
  """The storage that a persistent id names. In files of before torch 1.6 a storage may be a view of another one."""
  match identity:
    case ('storage', Global(kind), str(key), _, int(count), *view):
      match view:
        case [(_, int(offset), int(length))]:
          return Storage(key, kind, length, offset)
      return Storage(key, kind, count)
  return Unknown()


def push_constant(value: Any) -> Callable[[Machine, Any], None]:
  return lambda machine, argument: machine.push(value)


def push_tuple(length: int) -> Callable[[Machine, Any], None]:
  def run(machine: Machine, argument: Any) -> None:
    items = machine.stack[-length:]
    if len(items) < length:
      raise IndexError
    machine.stack[-length:] = [tuple(items)]
  return run


def push_dict(machine: Machine, argument: Any) -> None:
  items = machine.pop_to_mark()
  machine.push({})
  machine.set_items(items)


def push_set(machine: Machine, argument: Any) -> None:
  machine.pop_to_mark()
  machine.push(Unknown())


def push_global(machine: Machine, argument: Any) -> None:
  name, module = machine.pop(), machine.pop()
  if not isinstance(name, str) or not isinstance(module, str):
    raise TypeError
  machine.push_global(module, name)


def call(machine: Machine, argument: Any) -> None:
  arguments = machine.pop()
  machine.call(machine.pop(), arguments)


def call_with_names(machine: Machine, argument: Any) -> None:
  machine.pop()
  call(machine, argument)


def set_item(machine: Machine, argument: Any) -> None:
  value, key = machine.pop(), machine.pop()
  machine.set_items([key, value])


def push_argument(machine: Machine, argument: Any) -> None:
  machine.push(argument)


def do_nothing(machine: Machine, argument: Any) -> None:
  return None


def put(machine: Machine, argument: Any) -> None:
  machine.put(argument)


def get(machine: Machine, argument: Any) -> None:
  machine.push(machine.memo[argument])


# The instructions of protocols 2 to 5. Each takes the machine and the argument that stands in the pickle.
INSTRUCTIONS: dict[str, Callable[[Machine, Any], Any]] = {
  **dict.fromkeys(('PROTO', 'FRAME', 'STOP'), do_nothing),
  **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE',
                   'BINUNICODE8', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8',
                   'BYTEARRAY8'), push_argument),
  'NONE': push_constant(None), 'NEWTRUE': push_constant(True), 'NEWFALSE': push_constant(False),
  'EMPTY_TUPLE': push_constant(()), 'TUPLE1': push_tuple(1), 'TUPLE2': push_tuple(2), 'TUPLE3': push_tuple(3),
  'EMPTY_DICT': lambda machine, argument: machine.push({}), 'EMPTY_LIST': lambda machine, argument: machine.push([]),
  'EMPTY_SET': lambda machine, argument: machine.push(Unknown()),
  'MARK': lambda machine, argument: machine.mark(),
  'TUPLE': lambda machine, argument: machine.push(tuple(machine.pop_to_mark())),
  'LIST': lambda machine, argument: machine.push(machine.pop_to_mark()),
  'DICT': push_dict,
  'FROZENSET': push_set,
  'APPEND': lambda machine, argument: machine.append([machine.pop()]),
  'APPENDS': lambda machine, argument: machine.append(machine.pop_to_mark()),
  'ADDITEMS': lambda machine, argument: machine.pop_to_mark(),
  'SETITEM': set_item,
  'SETITEMS': lambda machine, argument: machine.set_items(machine.pop_to_mark()),
  'BINPUT': put, 'LONG_BINPUT': put, 'MEMOIZE': lambda machine, argument: machine.put(len(machine.memo)),
  'BINGET': get, 'LONG_BINGET': get,
  'POP': lambda machine, argument: machine.pop(), 'POP_MARK': lambda machine, argument: machine.pop_to_mark(),
  'DUP': lambda machine, argument: machine.push(machine.stack[-1]),
  'GLOBAL': lambda machine, argument: machine.push_global(*argument.split(' ', 1)),
  'STACK_GLOBAL': push_global,
  'REDUCE': call, 'NEWOBJ': call, 'NEWOBJ_EX': call_with_names, 'BUILD': lambda machine, argument: machine.build(),
  'BINPERSID': lambda machine, argument: machine.refer(machine.pop()),
}
