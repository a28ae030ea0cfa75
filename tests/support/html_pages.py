"""Reads HTML pages in tests."""

import html.parser

VOID = {'meta', 'link', 'img', 'br', 'hr', 'input', 'path', 'use', 'rect', 'line', 'circle'}


class Reader(html.parser.HTMLParser):
  """Checks that tags are closed in order, and collects text, attributes and ids."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.open, self.tags, self.attributes, self.texts = [], [], [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes += [(tag, *attribute) for attribute in attributes]
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes += [(tag, *attribute) for attribute in attributes]

  def handle_endtag(self, tag):
    if tag in VOID:
      return
    assert self.open and self.open.pop() == tag, f'</{tag}> closes no open tag, after {self.texts[-3:]}'

  def handle_data(self, data):
    if data.strip() and (not self.open or self.open[-1] != 'style'):
      self.texts.append(data.strip())

  def find(self, name):
    """The values of an attribute."""
    return [value for _, attribute, value in self.attributes if attribute == name]

  @property
  def text(self):
    return ' '.join(self.texts)


def read_page(path):
  """The `Reader` of a page, which must be well-formed, without scripts, and load nothing from elsewhere."""
  source = path.read_text()
  reader = Reader()
  reader.feed(source)
  reader.close()
  assert not reader.open, reader.open
  assert 'script' not in reader.tags and 'iframe' not in reader.tags
  loaded = [value for name in ('src', 'href', 'srcset', 'data', 'poster', 'action') for value in reader.find(name)]
  assert all(value.startswith(('data:', '#')) or '://' not in value for value in loaded), loaded
  assert not [value for _, name, value in reader.attributes if name.startswith('on')]
  ids = reader.find('id')
  assert len(ids) == len(set(ids)), sorted(name for name in ids if ids.count(name) > 1)
  assert {value[1:] for value in reader.find('href') if value.startswith('#')} <= set(ids)
  assert path.stat().st_size < 5e6
  return reader
