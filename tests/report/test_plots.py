"""The axes of the plots of a page."""

import re

import pytest

from mtpret_jax.report.plots import figure
from mtpret_jax.report.plots.lines import Line, draw_lines


@pytest.mark.parametrize('values, ticks', [
  ([9.2, 9.6, 9.9], {'9.2', '9.8'}), ([2.0, 30.0], {'10', '20'}), ([0.0005, 3.0, 100.0], {'0.001', '10'}),
  ([None, None], set())])
def test_a_logarithmic_axis_has_a_few_plain_numbers(values, ticks):
  with figure.themed():
    plot = draw_lines({'moco': Line(range(len(values)), values)}, 'Gradient', 'step', 'norm', log='y')
  texts = re.findall(r'<text[^>]*>([^<]*)</text>', plot.svg)
  assert ticks <= set(texts) and len(texts) < 16 and '$' not in plot.svg


@pytest.mark.parametrize('value', [0.5, 0.001, 99_999.0])
def test_numbers_beside_a_plot_are_not_cut_off(value):
  with figure.themed():
    plot = draw_lines({'moco': Line([20], [value])}, 'Learning rate', 'step at the end', 'rate')
  numbers = re.findall(r'text-anchor: end;[^>]* x="([\d.]+)"[^>]*>([^<]+)<', plot.svg)
  assert numbers and all(float(end) > 0.58 * 9 * len(number) for end, number in numbers)
  assert not re.search(r'>(19|20)\.\d<', plot.svg), 'steps are whole numbers'


def test_the_interval_of_a_single_point_is_seen():
  with figure.themed():
    plain, with_interval = (draw_lines({'mtpret': Line([1], [0.7], *ends)}, 'AUC', 'labels', 'AUC').svg
                            for ends in ((), ([0.6], [0.8])))
  assert with_interval.count('stroke-opacity: 0.5') == plain.count('stroke-opacity: 0.5') + 1
