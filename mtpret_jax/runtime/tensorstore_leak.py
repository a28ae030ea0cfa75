"""Works around a memory leak in tensorstore 0.1.74 to 0.1.86.

When tensorstore turns JSON into a Python dict (`JsonToPyObject`), it takes two references to each key and value and
releases one, so that they are never freed. Orbax asks for such a dict for each array of each save, and again whenever
it reads what a checkpoint holds: 0.1 MB per save of a ResNet-18.
"""

import ast
import functools
import json
from collections.abc import Callable
from typing import Any

import tensorstore as ts


def stop_leaks() -> None:
  """Until this process ends, `to_json` of a spec parses its printed form, and tensorstore gives Orbax no counters.
  Orbax would only log them."""
  specs: tuple[Any, ...] = (ts.Spec, ts.KvStore.Spec)
  for spec in specs:
    spec.to_json = parse_repr(spec.to_json)
  ts.experimental_collect_matching_metrics = lambda *_, **__: []


def parse_repr(to_json: Callable) -> Callable:
  """`to_json` without the leak, when it is called without options. It reads the text of the spec, such as
  `KvStore.Spec({'driver': 'file', ...})`: a Python literal in which each character is one byte of UTF-8."""
  @functools.wraps(to_json)
  def to_json_without_leak(spec: Any, *options: Any, **named: Any) -> Any:
    if options or named:
      return to_json(spec, *options, **named)
    try:
      literal = ast.literal_eval(repr(spec).partition('(')[2].removesuffix(')'))
      return json.loads(json.dumps(literal, ensure_ascii=False).encode('latin-1'))
    except (ValueError, SyntaxError):  # another version may print something else
      return to_json(spec)
  return to_json_without_leak
