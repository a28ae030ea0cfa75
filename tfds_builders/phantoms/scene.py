"""The scene: maps of tissue thickness along the ray, in cm, and the solids that add to them.

A solid is a patch `(window, array)` on its own bounding box, since most structures are much smaller than the scene;
`scene.add` adds it. Lengths are in cm, x to the right, y down.
"""

from collections.abc import Sequence

import cv2
import numpy as np

MARGIN = 1.16  # size of the scene over that of the image, so that a rotated patient still fills the image
TISSUES = ('soft', 'lung', 'gas', 'bone', 'metal')

Window = tuple[slice, slice]  # rows, columns
Patch = tuple[Window, np.ndarray]
Point = np.ndarray | Sequence[float]  # (x, y) in cm
View = tuple[tuple[float, float], float]  # centre (x, y) and side of a visible square, in cm


class Scene:
  """Thickness of each tissue in cm.

  Attributes:
    scale: pixels per cm.
    shape: (H, W) in pixels.
    x_W, y_H: coordinates of the pixel centres in cm.
    thickness: {tissue: (H, W) float32}; `scene[tissue]` is short for it.
  """

  def __init__(
      self, width: float, height: float, scale: float, centre: tuple[float, float] = (0.0, 0.0)) -> None:
    self.scale = scale
    self.shape = (round(height * scale), round(width * scale))
    rows, columns = self.shape
    self.corner = np.array([centre[0] - columns / 2 / scale, centre[1] - rows / 2 / scale])
    self.x_W = (self.corner[0] + (np.arange(columns) + 0.5) / scale).astype(np.float32)
    self.y_H = (self.corner[1] + (np.arange(rows) + 0.5) / scale).astype(np.float32)
    self.thickness = {tissue: np.zeros(self.shape, np.float32) for tissue in TISSUES}

  def __getitem__(self, tissue: str) -> np.ndarray:
    return self.thickness[tissue]

  def __setitem__(self, tissue: str, thickness: np.ndarray) -> None:
    self.thickness[tissue] = thickness

  def window(self, x0: float, x1: float, y0: float, y1: float) -> Window:
    """The pixels that cover a box in cm, clipped to the scene; may be empty."""
    rows, columns = self.shape
    left, top = self.corner
    row = [min(max(int((y - top) * self.scale), 0), rows) for y in (y0, y1 + 1 / self.scale)]
    column = [min(max(int((x - left) * self.scale), 0), columns) for x in (x0, x1 + 1 / self.scale)]
    return slice(*row), slice(*column)

  def add(self, tissue: str, patch: Patch, factor: float = 1.0) -> None:
    window, thickness = patch
    self.thickness[tissue][window] += np.float32(factor) * thickness

  def to_full(self, patch: Patch) -> np.ndarray:
    """A patch as an array of the scene's shape, zero elsewhere."""
    full = np.zeros(self.shape, np.float32)
    full[patch[0]] = patch[1]
    return full

  def pixels(self, points: np.ndarray | Sequence) -> np.ndarray:
    """Points in cm to pixel coordinates in fixed point with 4 fractional bits, as OpenCV draws them."""
    return np.round(((np.asarray(points) - self.corner) * self.scale - 0.5) * 16).astype(np.int32)

  def strands(self, segments_N4: np.ndarray, width_N: np.ndarray) -> np.ndarray:
    """Thickness of many fine cylinders, such as vessels; where they overlap, the thickest counts.

    Args:
      segments_N4: (x0, y0, x1, y1) of each, in cm.
      width_N: diameters in cm.
    """
    canvas, order, top = np.zeros(self.shape, np.uint8), np.argsort(width_N), float(width_N.max())
    ends = self.pixels(segments_N4.reshape(-1, 2, 2))[order].tolist()
    greys = np.maximum(255 * width_N[order] / top, 1).astype(int).tolist()
    broad = np.maximum(np.round(width_N[order] * self.scale * 0.8), 1).astype(int).tolist()
    for (a, b), grey, wide in zip(ends, greys, broad, strict=True):
      cv2.line(canvas, a, b, grey, wide, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(top / 255)


def ellipsoid(
    scene: Scene, x: float, y: float, a: float, b: float, c: float, rotation: float = 0.0) -> Patch:
  """Chord lengths through an ellipsoid with semi-axes a and b in the plane, rotated by `rotation` radians, and c along
  the ray."""
  cos, sin = np.cos(rotation), np.sin(rotation)
  reach_x, reach_y = np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos)
  window = scene.window(x - reach_x, x + reach_x, y - reach_y, y + reach_y)
  dx, dy = scene.x_W[window[1]][None] - x, scene.y_H[window[0]][:, None] - y
  u, v = (dx * (cos / a) + dy * (sin / a)), (dy * (cos / b) - dx * (sin / b))
  return window, (2 * c * np.sqrt(np.maximum(1 - u * u - v * v, 0))).astype(np.float32)


def tube(scene: Scene, path_S2: np.ndarray | Sequence, radius_S: np.ndarray | Sequence | float) -> Patch:
  """Depth below the surface, in cm, inside a tube of varying radius along a polyline; negative outside.

  The cost is pixels x segments, so a long path is drawn in short runs, each on its own bounding box.
  """
  path, radius = np.asarray(path_S2, np.float32), np.broadcast_to(np.asarray(radius_S, np.float32), len(path_S2))
  most = radius.max()
  low, high = path.min(0) - most, path.max(0) + most
  whole = scene.window(low[0], high[0], low[1], high[1])
  depth = np.full((whole[0].stop - whole[0].start, whole[1].stop - whole[1].start), -9, np.float32)
  run = 4 if depth.size > 1500 else len(path)
  for start in range(0, len(path) - 1, run):
    some = slice(start, start + run + 1)
    a, b, ra, rb = path[some][:-1], path[some][1:], radius[some][:-1], radius[some][1:]
    low, high = np.minimum(a, b).min(0) - most, np.maximum(a, b).max(0) + most
    window = scene.window(low[0], high[0], low[1], high[1])
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
      continue
    length = np.maximum(np.linalg.norm(b - a, axis=1), 1e-4)
    (ux, uy), (ax, ay) = ((b - a) / length[:, None]).T[..., None, None], a.T[..., None, None]
    dx, dy = scene.x_W[window[1]] - ax, scene.y_H[window[0]][:, None] - ay
    along = dx * ux + dy * uy
    held = np.clip(along, 0, length[:, None, None])
    across = dx * uy - dy * ux
    beyond = along - held
    distance = np.sqrt(across * across + beyond * beyond)
    slope = ((rb - ra) / length)[:, None, None]
    inside = (ra[:, None, None] + held * slope - distance).max(0)
    rows, columns = (slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, whole, strict=True))
    np.maximum(depth[rows, columns], inside, out=depth[rows, columns])
  return whole, depth


def slab(scene: Scene, outlines: np.ndarray | Sequence) -> Patch:
  """Distance to the rim, in cm, inside a flat outline, or inside several that do not overlap."""
  outlines = [np.asarray(o) for o in outlines] if np.ndim(outlines[0]) == 2 else [np.asarray(outlines)]
  (x0, y0), (x1, y1) = np.min([o.min(0) for o in outlines], 0), np.max([o.max(0) for o in outlines], 0)
  margin = 2 / scene.scale
  window = scene.window(x0 - margin, x1 + margin, y0 - margin, y1 + margin)
  rows, columns = window[0].stop - window[0].start, window[1].stop - window[1].start
  if rows <= 0 or columns <= 0:
    return window, np.zeros((max(rows, 0), max(columns, 0)), np.float32)
  canvas = np.zeros((rows, columns), np.uint8)
  shift = np.array([window[1].start, window[0].start], np.int32) * 16
  for outline in outlines:
    cv2.fillPoly(canvas, [scene.pixels(outline) - shift], 255, cv2.LINE_AA, 4)
  edge = cv2.distanceTransform(cv2.threshold(canvas, 127, 1, cv2.THRESH_BINARY)[1], cv2.DIST_L2, 3)
  part = canvas.astype(np.float32) * np.float32(1 / 255)  # coverage of a rim pixel; places the rim between pixels
  depth = cv2.GaussianBlur(edge - np.float32(.5) + (part - 1) * (edge < 1.5), (3, 3), 0.7)
  return window, depth * np.float32(1 / scene.scale)


def tube_outline(path_S2: np.ndarray, radius_S: np.ndarray) -> np.ndarray:
  """The outline of a tube along a path; leading axes hold several tubes."""
  path, radius = np.asarray(path_S2), np.asarray(radius_S)[..., None]
  way = np.concatenate([path[..., 1:2, :] - path[..., :1, :], path[..., 2:, :] - path[..., :-2, :],
                        path[..., -1:, :] - path[..., -2:-1, :]], -2)
  across = np.stack([-way[..., 1], way[..., 0]], -1) / np.hypot(way[..., :1], way[..., 1:]) * radius
  return np.concatenate([path + across, (path - across)[..., ::-1, :]], -2)


def solid(patch: Patch, radius: float) -> Patch:
  """Depth below the surface to chord lengths through a rod of this radius."""
  window, depth = patch
  depth = np.clip(depth, 0, radius)
  return window, 2 * np.sqrt(depth * (2 * radius - depth))


def hollow(patch: Patch, radius: float, cortex: float, fill: float) -> Patch:
  """Depth below the surface to bone thickness: a dense shell of `cortex` cm, inside it bone of density `fill`."""
  window, depth = patch
  outer = solid((window, depth), radius)[1]
  inner = solid((window, depth - cortex), max(radius - cortex, 1e-3))[1]
  return window, outer - np.float32(1 - fill) * inner


def clouds(rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 3) -> np.ndarray:
  """Smooth random field, about -1 to 1, with `cells` bumps across; each octave adds finer and fainter ones."""
  total = np.zeros((1, 1), np.float32)
  for octave in range(octaves):  # from coarse to fine, so that only the last resize is to full size
    grid = rng.standard_normal((cells * 2**octave + 2,) * 2, dtype=np.float32)
    total = cv2.resize(total, grid.shape, interpolation=cv2.INTER_CUBIC) + grid * np.float32(0.6 * 0.5**octave)
  return cv2.resize(total, shape[::-1], interpolation=cv2.INTER_CUBIC)


def smooth(outline: np.ndarray, rounds: int = 2) -> np.ndarray:
  """Cuts the corners of a closed outline (Chaikin's algorithm)."""
  for _ in range(rounds):
    after = np.roll(outline, -1, 0)
    outline = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], 1).reshape(-1, 2)
  return outline


def oval(x: float, y: float, a: float, b: float) -> np.ndarray:
  """Outline of an egg shape with semi-axes a and b."""
  angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
  return np.stack([x + a * np.cos(angle), y + b * np.sin(angle) * (1 + 0.12 * np.sin(angle))], 1)
