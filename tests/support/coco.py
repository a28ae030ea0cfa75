"""Average precision by pycocotools itself, with its own settings, to compare scores with."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluate(rows, drawn, kinds):
  """(10, 101, kinds) precisions of pycocotools with its own settings, drawn images being repeated; -1 without truth."""
  truths, boxes = [], []
  for place, image in enumerate(drawn):
    height, width = (float(side) for side in rows['sizes'][image])
    for marks, prefix in ((truths, 'truth_'), (boxes, '')):
      for index, (box, kind) in enumerate(zip(rows[f'{prefix}boxes'][image], rows[f'{prefix}class_id'][image],
                                              strict=True)):
        y0, x0, y1, x1 = (float(edge) for edge in box)
        if kind >= 0:
          mark = {'image_id': place, 'category_id': int(kind),
                  'bbox': [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]}
          marks.append(mark | ({} if prefix else {'score': float(rows['score'][image][index])}))
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = {'images': [{'id': place} for place in range(len(drawn))], 'info': {},
                    'categories': [{'id': kind} for kind in range(kinds)],
                    'annotations': [mark | {'id': at + 1, 'iscrowd': 0, 'area': mark['bbox'][2] * mark['bbox'][3]}
                                    for at, mark in enumerate(truths)]}
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(boxes), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  precision = evaluation.eval['precision'][:, :, :, 0, 2]
  if len(drawn) == len(set(drawn)):
    assert np.mean(precision[precision > -1]) == evaluation.stats[0]
  return precision


def average(precision):
  return np.mean(precision[precision > -1])
