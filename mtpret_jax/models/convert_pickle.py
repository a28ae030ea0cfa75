"""Converts PyTorch's pickled weights (.pth, .pt, .ckpt, .pth.tar) to safetensors. Runs by itself, wherever PyTorch is:

    python convert_pickle.py moco.pth moco.safetensors

It keeps every tensor of numbers, however deep the dicts are nested, and passes by everything else (arguments, optimiser
settings, epochs). The file is loaded with weights_only=True: no code in it runs. Objects of unknown classes become
empty ones that only remember their attributes, so a whole pickled model is read too.
"""

import argparse
import pickle
import re
import sys
from typing import Any

INTERNAL = ('_modules', '_parameters', '_buffers')  # how a pickled nn.Module stores what its state dict names


class Unknown(dict):
  """Stands for an object of any class. Its items are the object's attributes."""

  def __init__(self, *arguments: Any, **named: Any) -> None:
    super().__init__()

  def __setstate__(self, state: Any) -> None:
    if isinstance(state, dict):
      self.update(state)


def load(path: str) -> Any:
  """What torch.save wrote, with `Unknown` in place of what PyTorch does not load as weights."""
  import torch
  unknown: list[str] = []
  while True:
    try:
      with torch.serialization.safe_globals([(Unknown, name) for name in unknown]):
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
      found = re.search(r'GLOBAL ([\w.]+)', str(error))  # the class that it met
      if found is None or found[1] in unknown:
        raise
      unknown.append(found[1])


def list_tensors(value: Any, name: str = '') -> dict[str, Any]:
  """{name with the names of the dicts around it: tensor}."""
  import torch
  if isinstance(value, torch.Tensor):
    return {name: value.detach().clone().contiguous()} if value.is_floating_point() else {}
  found: dict[str, Any] = {}
  for key, inner in value.items() if isinstance(value, dict) else ():
    found |= list_tensors(inner, '.'.join(part for part in (name, '' if key in INTERNAL else str(key)) if part))
  return found


def main() -> int:
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('pickle', help='file that torch.save has written')
  parser.add_argument('target', help='safetensors file to write')
  flags = parser.parse_args()
  try:
    import safetensors.torch
    import torch
    if not hasattr(torch.serialization, 'safe_globals'):
      raise ImportError(f'torch is {torch.__version__}')
  except ImportError as error:
    print(f'this needs torch 2.6 or newer and safetensors ({error}): pip install -U torch safetensors', file=sys.stderr)
    return 2
  try:
    tensors = list_tensors(load(flags.pickle))
    if not tensors:
      raise ValueError('it has no tensors')
  except Exception as error:  # a file of another kind raises many kinds of errors
    reason = ' '.join(str(error).split())[:300]
    print(f'{flags.pickle} cannot be converted ({type(error).__name__}: {reason}): give a file that torch.save has '
          f'written', file=sys.stderr)
    return 2
  try:
    safetensors.torch.save_file(tensors, flags.target, metadata={'format': 'pt'})
  except Exception as error:  # its own kinds for a full disk and the like
    reason = ' '.join(str(error).split())[:300]
    print(f'{flags.target} cannot be written ({reason}): name another file', file=sys.stderr)
    return 2
  print(f'{flags.target}: {len(tensors)} tensors')
  return 0


if __name__ == '__main__':
  sys.exit(main())
