"""Mends what tensorstore loses. As it makes Python's dicts of JSON it takes two references to each key and value and
gives one back, so that they are never freed; Orbax asks for such a dict for each array of each save and of each look at
what was saved. Seen in tensorstore 0.1.74 to 0.1.86 (`JsonToPyObject`): 0.1 MB a save of a ResNet-18.
"""

import ast
import functools
import json

import tensorstore as ts


def stop_leaks():
  """For all of this process: has `to_json` of specs read their text, and keeps Orbax from tensorstore's counters,
  which only its own log would show."""
  for kind in (ts.Spec, ts.KvStore.Spec):
    kind.to_json = read_text(kind.to_json)
  ts.experimental_collect_matching_metrics = lambda *_, **__: []


def read_text(ask):
  """`to_json` without a loss, where it is asked for without options. The text `KvStore.Spec({'driver': 'file', ...})`
  is a Python literal, in which each byte of UTF-8 is a character."""
  @functools.wraps(ask)
  def to_json(spec, *options, **more):
    if options or more:
      return ask(spec, *options, **more)
    try:
      literal = ast.literal_eval(repr(spec).partition('(')[2].removesuffix(')'))
      return json.loads(json.dumps(literal, ensure_ascii=False).encode('latin-1'))
    except (ValueError, SyntaxError):  # another version's text
      return ask(spec)
  return to_json
