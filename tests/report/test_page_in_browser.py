"""Pages in a real browser, on wide and narrow screens, light and dark."""

import re

import PIL.Image
import pytest

from mtpret_jax.report import page as pages
from mtpret_jax.report.page import write_page
from tests.support import browser
from tests.support.made_up_runs import write_stage_1, write_stage_2, write_stage_3
from tests.support.scored import ABOUT

WIDTHS = (1280, 390)
PICTURE = 900  # pixels, the width of a picture
# variables of the style -> the background they stand on, and the contrast that WCAG 2 asks for
CONTRASTS = [('--ink', '--paper', 4.5), ('--muted', '--paper', 4.5), ('--muted', '--tint', 4.5),
             ('--accent', '--paper', 4.5), ('--warn-ink', '--warn', 4.5),
             *((f'--series-{number}', '--paper', 3.0) for number in range(8))]

in_chromium = pytest.mark.skipif(browser.CHROMIUM is None, reason='needs Chromium')


def write_long_names(folder):
  findings = ['x' * 90, 'b ' * 60, 'c']
  run = write_stage_3(folder / ('p' * 100), about={**ABOUT['independent'], 'findings': findings}, notes=['n' * 150])
  PIL.Image.new('L', (PICTURE, 40)).save(run / 'examples_independent.png')
  return run


@in_chromium
@pytest.mark.parametrize('write', [write_long_names, write_stage_1, write_stage_2])
def test_the_page_fits_both_widths_and_asks_for_nothing(write, tmp_path):
  (tmp_path / 'served').mkdir()
  measured, console, requested = browser.measure(write_page(write(tmp_path / 'run')), WIDTHS, tmp_path / 'served')
  assert not console
  assert set(requested) <= {'/measure.html', '/page.html', '/favicon.ico'}  # the last one for measure.html
  assert [one['width'] for one in measured] == [1280, 1280, 390, 390] and measured[0]['svg'] > 5
  assert all(one['content'] <= one['inner'] for one in measured), measured
  assert not any(one['tiny'] for one in measured), 'text of plots is too small to read'
  pictures = [PICTURE] * (write is write_long_names)
  assert all(one['shown'] == pictures for one in measured), 'a picture scrolls in its frame on a narrow screen'
  light, dark = measured[0]['paper'], measured[1]['paper']
  assert light != dark


@in_chromium
def test_the_browser_notices_what_is_wrong(tmp_path):
  page = tmp_path / 'page.html'
  page.write_text('<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
                  '<body><pre>' + 500 * 'x' + '</pre><img src="other.png">')
  (tmp_path / 'served').mkdir()
  measured, console, _ = browser.measure(page, WIDTHS, tmp_path / 'served')
  assert measured[-1]['content'] > measured[-1]['inner']
  assert 'other.png' in console[0]


def test_text_and_curves_are_readable_in_both_colour_schemes():
  style = (pages.TEMPLATES / 'style.css').read_text()
  light, dark = re.findall(r':root \{(.*?)\}', style, re.S)
  for block in (light, dark):
    colours = dict(re.findall(r'(--[\w-]+): (#\w{6})', block))
    for front, back, least in CONTRASTS:
      assert find_contrast(colours[front], colours[back]) >= least, (front, colours[front])


def find_contrast(*colours):
  """The contrast ratio of WCAG 2."""
  low, high = sorted(sum(share * linear(int(colour[at:at + 2], 16) / 255)
                         for at, share in ((1, 0.2126), (3, 0.7152), (5, 0.0722))) for colour in colours)
  return (high + 0.05) / (low + 0.05)


def linear(value):
  return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
