"""Boxes that the authors' weighted boxes fusion gives. `python -m tests.reference.fusion_record` records them in
fusion.npz. Needs ensemble-boxes."""

import numpy as np
from ensemble_boxes.ensemble_boxes_wbf import weighted_boxes_fusion

from tests.reference import fusion_setting as s


def record():
  kept = {}
  for image in range(2):
    boxes, score, classes = weighted_boxes_fusion(*zip(*[(found, score, classes) for found, classes, score
                                                         in s.make_case(image)], strict=True))
    kept |= {f'boxes {image}': boxes, f'score {image}': score, f'class_id {image}': classes}
  return kept


if __name__ == '__main__':
  np.savez_compressed(s.FIXTURE, **record())
