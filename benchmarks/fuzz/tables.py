"""Damages to tables and texts: functions (rng, bytes) -> bytes."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np

from benchmarks.fuzz import values


def edit_csv(rng: np.random.Generator, raw: bytes) -> bytes:
  """A cell changed, dropped or doubled; a row dropped, doubled, cut or moved; a column dropped, renamed or doubled."""
  rows = list(csv.reader(io.StringIO(raw.decode('utf-8-sig'))))
  if not rows:
    return values.pick(rng, values.WORDS).encode()
  place = rng.integers(len(rows))
  cell = rng.integers(len(rows[place])) if rows[place] else 0
  way = rng.integers(9)
  if way < 4 and rows[place]:
    rows[place][cell] = values.pick(rng, values.WORDS)
  elif way == 4:
    rows[place][cell:cell + 1] = values.pick(rng, ([], rows[place][cell:cell + 1] * 2))
  elif way == 5:
    rows[place:place + 1] = values.pick(rng, ([], rows[place:place + 1] * 2, [rows[place][:cell]], [[]]))
  elif way == 6:
    rows.insert(rng.integers(len(rows)), rows.pop(place))
  elif way == 7:
    for row in rows:
      del row[cell:cell + 1]
  else:
    rows[0][rng.integers(len(rows[0]))] = values.pick(rng, (*values.WORDS, *rows[0]))
  out = io.StringIO()
  csv.writer(out, quoting=values.pick(rng, (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(rows)
  text = out.getvalue()
  if rng.random() < 0.1:  # a quote that is never closed
    comma = text.find(',', rng.integers(len(text) // 2 + 1))
    text = f'{text[:comma + 1]}"{text[comma + 1:]}'
  return text.encode('utf-8', 'surrogatepass')


def edit_json(rng: np.random.Generator, raw: bytes) -> bytes:
  """A leaf or branch replaced, dropped or doubled anywhere in the tree; or nested very deeply."""
  tree = json.loads(raw)
  if rng.random() < 0.05:
    return b'[' * 100_000
  spots = list(list_spots(tree))
  # Every field name is equally likely; otherwise nearly all edits would hit the many numbers of boxes.
  fields = sorted({str(key) if isinstance(key, str) else '' for _, key in spots})
  field = values.pick(rng, fields)
  where, key = values.pick(rng, [spot for spot in spots if (spot[1] if isinstance(spot[1], str) else '') == field])
  way = rng.random()
  if way < 0.7:
    where[key] = values.pick(rng, values.LEAVES)
  elif way < 0.85:
    del where[key]
  elif isinstance(where, list):
    where.append(where[key])
  else:
    where[key] = [where[key]]
  return json.dumps(tree).encode()


def list_spots(tree: Any) -> Iterator[tuple[Any, Any]]:
  for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
    yield tree, key
    if isinstance(value, (dict, list)):
      yield from list_spots(value)


def edit_xml(rng: np.random.Generator, raw: bytes) -> bytes:
  """A text or attribute changed, an element dropped or doubled; a document type, an encoding, a very deep nesting."""
  way = rng.random()
  if way < 0.1:
    grow = ''.join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 100}">' for i in range(9))
    return re.sub(rb'<(\w+)', lambda match: f'<!DOCTYPE a [{grow}]><'.encode() + match[1] + b' a="&e8;"',
                  raw[raw.index(b'?>') + 2:] if b'?>' in raw else raw, count=1)
  if way < 0.15:
    return b'<a>' * 200_000
  if way < 0.2:
    return b'<?xml version="1.0" encoding="%s"?>' % values.pick(rng, (b'utf-7', b'klingon', b'utf-16')) + raw
  tree = ElementTree.fromstring(raw)
  parents = {child: parent for parent in tree.iter() for child in parent}
  nodes = sorted(parents, key=lambda node: node.tag)  # not the root, so its parent is there
  tag = values.pick(rng, sorted({node.tag for node in nodes}))
  node = values.pick(rng, [node for node in nodes if node.tag == tag])
  if way < 0.5:
    node.text = values.pick(rng, values.WORDS)
  elif way < 0.7 and node.attrib:
    node.set(values.pick(rng, sorted(node.attrib)), values.pick(rng, values.WORDS))
  elif way < 0.85:
    parents[node].remove(node)
  else:
    parents[node].append(node)
  return ElementTree.tostring(tree).replace(b'\0', b'')


def edit_text(rng: np.random.Generator, raw: bytes) -> bytes:
  """A line or word of a text replaced, dropped or doubled."""
  lines = raw.decode('utf-8-sig', 'replace').split('\n')
  place = rng.integers(len(lines))
  lines[place:place + 1] = values.pick(rng, (
    [], lines[place:place + 1] * 2, [values.pick(rng, values.WORDS)],
    [f'{lines[place]} {values.pick(rng, values.WORDS)}'],
    [re.sub(r'\d+', values.pick(rng, ('9' * 5000, '-1', '٣', '²', '999')), lines[place])]))
  return '\n'.join(lines).encode('utf-8', 'replace')


def recode(rng: np.random.Generator, raw: bytes) -> bytes:
  """The same text in another encoding, with other line ends, a byte-order mark, or bytes that are not text."""
  text = raw.decode('utf-8-sig', 'replace')
  return values.pick(rng, (
    text.encode('utf-16'), text.encode('utf-16-be'), text.encode('utf-32'), text.encode('utf-8-sig'),
    text.replace('\n', '\r').encode(), text.replace('\n', '\r\n').encode(), text.replace(',', ';').encode(),
    raw + b'\xff\xfe\xe9\n', raw.replace(b'a', b'\xe9'), raw.replace(b'\n', b'\0\n'), b'\x1f\x8b\x08' + raw))


KINDS = {'CSV edited': (edit_csv, '.csv'), 'JSON edited': (edit_json, '.json'), 'XML edited': (edit_xml, '.xml'),
         'text edited': (edit_text, '.txt'), 'other encoding': (recode, ('.csv', '.json', '.xml', '.txt'))}
