"""Precision-recall and FROC of predicted boxes at IoU 0.5, and the images with the most mistakes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtpret_jax.report.blocks import Plots, Section, Table, Words
from mtpret_jax.report.pages.points import describe_rule, make_point_blocks, read_points
from mtpret_jax.report.plots.boxes import Ranking, draw_froc, draw_precision_recall
from mtpret_jax.report.run_files import RunFiles
from mtpret_jax.report.words import format_number

HALF = 0  # the index of IoU 0.5 among the levels of a match
ANY = 'any class'
MISTAKES = 10


def make_sections(run: RunFiles, name: str, result: Mapping[str, Any], about: Mapping[str, Any],
                  rows: Mapping[str, np.ndarray]) -> list[Section]:
  points, classes = read_points(run, name, result), about['box_classes']
  rankings = {title: rank_boxes([image[index] for image in rows['matched']], points.thresholds.get(title))
              for index, title in enumerate(classes)}
  if len(classes) > 1:
    rankings[ANY] = rank_boxes([image[0] for image in rows['matched_any']], None)
  rankings = {title: ranking for title, ranking in rankings.items() if ranking.truths}
  if not rankings:
    return []
  scores = result['scores']
  of_class = 'AP50' if len(classes) == 1 else 'AP50: {}'
  areas = {title: (scores.get(of_class.format(title)) or {}).get('value') for title in rankings}
  words = []
  if points.thresholds:
    words.append(Words([f'The dots are the operating points. {describe_rule(points)}'], tone='muted'))
  if len(rows['patient']) < result['images']:
    words.append(Words([f'Shown are the boxes of {len(rows["patient"]):,} of {result["images"]:,} images.'],
                       tone='note'))
  return [Section('Boxes', [
    Plots([draw_precision_recall(rankings, areas), draw_froc(rankings)]), *words,
    make_counts(rankings), *make_point_blocks(points), make_misses(rows)])]


def rank_boxes(matched: list, threshold: float | None) -> Ranking:
  """The boxes of all images in one ranking. `matched`: of each image (score_D, hit_LD, truths)."""
  score_D = np.concatenate([image[0] for image in matched])
  hit_D = np.concatenate([image[1][HALF] for image in matched])
  order = np.argsort(-score_D, kind='stable')
  return Ranking(score_D[order], hit_D[order], sum(image[2] for image in matched), len(matched), threshold)


def make_counts(rankings: Mapping[str, Ranking]) -> Table:
  """Boxes by outcome, for each class and as the sum over the classes."""
  rows, sums = [], [0, 0, 0]  # true boxes, found, false boxes
  by_class = {title: ranking for title, ranking in rankings.items() if title != ANY}
  for title, ranking in by_class.items():
    cut = len(ranking.hit_D) if ranking.threshold is None else ranking.find_cut() or 0
    hits = int(ranking.hit_D[:cut].sum())
    rows.append((title, '-' if ranking.threshold is None else format_number(ranking.threshold), f'{ranking.truths:,}',
                 f'{hits:,}', f'{ranking.truths - hits:,}', f'{cut - hits:,}',
                 format_number((cut - hits) / ranking.images)))
    sums = [total + number for total, number in zip(sums, (ranking.truths, hits, cut - hits), strict=True)]
  if len(by_class) > 1:
    truths, hits, wrong = sums
    rows.append(('all classes', '-', f'{truths:,}', f'{hits:,}', f'{truths - hits:,}', f'{wrong:,}',
                 format_number(wrong / next(iter(by_class.values())).images)))
  return Table(('class', 'threshold', 'true boxes', 'found', 'missed', 'false boxes', 'false boxes per image'), rows,
               'Boxes by outcome at IoU 0.5, above the operating point where there is one, else all predicted boxes.')


def make_misses(rows: Mapping[str, np.ndarray]) -> Table:
  """The images in which most true boxes are not found."""
  counted = []
  for at, image in enumerate(rows['matched']):
    truths, hits = sum(part[2] for part in image), sum(int(part[1][HALF].sum()) for part in image)
    counted.append((truths - hits, -at, truths))
  lines = [(str(rows['image_id'][-at]), str(rows['patient'][-at]), f'{truths:,}', f'{missed:,}')
           for missed, at, truths in sorted(counted, reverse=True)[:MISTAKES] if missed]
  return Table(('image', 'patient', 'true boxes', 'missed'), lines, 'Images with the most missed boxes',
               text_columns=(0, 1), folded=True)
