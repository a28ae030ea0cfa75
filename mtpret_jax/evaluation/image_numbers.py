"""How many images of a split show each finding or class of boxes."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def count_images(about: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> dict[str, int]:
  """{class: number of images}, with 'no <finding>' for independent findings; {} for kinds of tasks with neither.

  Args:
    about: of the task.
    rows: as `metrics.scoring.score` takes them.
  """
  if 'present' in rows:
    known_NT, present_NT = np.asarray(rows['label_mask'], bool), np.asarray(rows['present']) > 0
    numbers = {name: int(number)
               for name, number in zip(about['findings'], (known_NT & present_NT).sum(0), strict=True)}
    if about['relation'] == 'independent':
      numbers |= {f'no {name}': int(number)
                  for name, number in zip(about['findings'], (known_NT & ~present_NT).sum(0), strict=True)}
    return numbers
  if 'truth_class_id' in rows:
    return {name: sum(class_id in image for image in rows['truth_class_id'])
            for class_id, name in enumerate(about['box_classes'])}
  return {}
