"""The chest while it is drawn: its scene, lungs and masks.

The patient's right is on the left of the image, at negative x; its side is -1.
"""

from typing import Any

import numpy as np

from tfds_builders.phantoms.scene import MARGIN, Scene

FIELD = 32.0  # width and height of the image in cm, of an adult
SIDES = {'right': -1, 'left': 1}


class Chest:
  """A chest while it is drawn, with what the findings need to know about it.

  Attributes:
    body: the patient's anatomy, from `chest.sample_chest`.
    scene: tissue thickness. The lungs' air is added to it last.
    masks: {name: bool array}, `lung_left`, `lung_right` and `heart`.
    lung: {'left' | 'right': thickness of air in cm}, from which findings take.
    full: the air before vessels and findings took any.
  """

  def __init__(self, body: dict[str, Any], scale: float) -> None:
    self.body = body
    self.scene = Scene(FIELD * MARGIN, FIELD * MARGIN, scale, (0, 0.6))
    self.masks: dict[str, np.ndarray] = {}
    self.lung: dict[str, np.ndarray] = {}
    self.full: dict[str, np.ndarray] = {}

  @property
  def scale(self) -> float:
    return self.scene.scale

  def edges(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Medial and lateral border of a lung per row, in cm, and the position along it, from 0 (apex) to 1 (sulcus)."""
    body, index = self.body, 0 if side < 0 else 1
    apex, sulcus = body['apex'][index], body['dome'][index] + 4.2
    t = (self.scene.y_H - apex) / (sulcus - apex)
    sway = np.array(body['sway'][index * 4 : index * 4 + 4])
    lateral = np.array([0.30, 0.45, 0.57, 0.74, 0.88, 0.97, 1.0, 0.985]) * body['half']
    lateral[3:7] += sway
    medial = np.array([0.27, 0.18, 0.17, 0.16, 0.16, 0.17, 0.19, 0.22]) * body['half']
    knots = [0, 0.03, 0.1, 0.25, 0.45, 0.7, 0.9, 1]
    return side * np.interp(t, knots, medial), side * np.interp(t, knots, lateral), t

  def dome(self, side: int) -> np.ndarray:
    """y of the diaphragm's upper surface per column, in cm."""
    body, index = self.body, 0 if side < 0 else 1
    u = (self.scene.x_W * side - 0.42 * body['half']) / body['half']
    fall = np.where(u > 0, 11 * u * u + 12 * np.maximum(u - 0.38, 0) ** 2, 6 * u * u)
    return (body['dome'][index] + body['bulge'] * fall).astype(np.float32)

  def spine_x(self, y: np.ndarray | float) -> np.ndarray:
    """x of the spine at height y, in cm."""
    return self.body['curve'] * np.sin(np.asarray(y) / 9) + self.body['twist']
