"""Relative links and anchors in every Markdown file lead somewhere."""

import re

import pytest

from tests.support.paths import ROOT

PAGES = [path for folder in ('', 'docs', 'tfds_builders') for path in
         ((ROOT / folder).rglob('*.md') if folder else ROOT.glob('*.md'))]
LINK = re.compile(r'\]\(([^)\s]+)\)')
FENCE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def list_anchors(text):
  """The anchors that GitHub makes of the headings."""
  headings = re.findall(r'^#+ (.+)$', FENCE.sub('', text), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-') for heading in headings}


def list_links(page):
  return LINK.findall(FENCE.sub('', page.read_text()).replace('\n', ' '))


@pytest.mark.parametrize('page', PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_links_lead_somewhere(page):
  broken = []
  for link in list_links(page):
    path, _, anchor = link.partition('#')
    if re.match(r'[a-z]+:', link):
      continue  # another site
    target = page.parent / path if path else page
    if not target.exists() or anchor and anchor not in list_anchors(target.read_text()):
      broken.append(link)
  assert broken == []


@pytest.mark.parametrize('page', [path for path in PAGES if path.parent == ROOT / 'docs'], ids=lambda path: path.name)
def test_every_page_of_docs_is_linked_from_the_readme_or_another_page(page):
  linked = {(other.parent / link.partition('#')[0]).resolve() for other in PAGES if other != page
            for link in list_links(other)}
  assert page.resolve() in linked
