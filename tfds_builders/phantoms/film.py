"""The film: a plane of tissue thickness in cm, and the solids that add to it.

Every solid returns a patch `(window, array)` on its own bounding box, since most structures are small beside the
film; `film.add` lays it down. Lengths are cm, x to the right, y down.
"""

import cv2
import numpy as np

TISSUES = ('soft', 'lung', 'gas', 'bone', 'metal')


class Film:
  """Thickness of each tissue over an area of width × height cm, in square pixels of 1 / scale cm, about `centre`."""

  def __init__(self, width, height, scale, centre=(0.0, 0.0)):
    self.scale = scale
    self.shape = (round(height * scale), round(width * scale))
    rows, columns = self.shape
    self.corner = np.array([centre[0] - columns / 2 / scale, centre[1] - rows / 2 / scale])
    self.x_W = (self.corner[0] + (np.arange(columns) + 0.5) / scale).astype(np.float32)
    self.y_H = (self.corner[1] + (np.arange(rows) + 0.5) / scale).astype(np.float32)
    self.thick = {tissue: np.zeros(self.shape, np.float32) for tissue in TISSUES}

  def __getitem__(self, tissue):
    return self.thick[tissue]

  def __setitem__(self, tissue, thickness):
    self.thick[tissue] = thickness

  def window(self, x0, x1, y0, y1):
    """The pixels that cover a box in cm, clipped to the film; may be empty."""
    rows, columns = self.shape
    left, top = self.corner
    row = [min(max(int((y - top) * self.scale), 0), rows) for y in (y0, y1 + 1 / self.scale)]
    column = [min(max(int((x - left) * self.scale), 0), columns) for x in (x0, x1 + 1 / self.scale)]
    return slice(*row), slice(*column)

  def add(self, tissue, patch, factor=1.0):
    window, thickness = patch
    self.thick[tissue][window] += np.float32(factor) * thickness

  def spread(self, patch):
    """A patch on the whole film."""
    full = np.zeros(self.shape, np.float32)
    full[patch[0]] = patch[1]
    return full

  def pixels(self, points):
    """Points in cm as fixed-point pixel coordinates (4 binary places), as OpenCV draws them."""
    return np.round(((np.asarray(points) - self.corner) * self.scale - 0.5) * 16).astype(np.int32)

  def strands(self, segments_N4, width_N):
    """Thickness of many fine cylinders at once: vessels, septa, trabeculae. The thickest lie on top."""
    canvas, order, top = np.zeros(self.shape, np.uint8), np.argsort(width_N), float(width_N.max())
    ends = self.pixels(segments_N4.reshape(-1, 2, 2))[order].tolist()
    greys = np.maximum(255 * width_N[order] / top, 1).astype(int).tolist()
    broad = np.maximum(np.round(width_N[order] * self.scale * 0.8), 1).astype(int).tolist()
    for (a, b), grey, wide in zip(ends, greys, broad, strict=True):
      cv2.line(canvas, a, b, grey, wide, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) * np.float32(top / 255)


def ellipsoid(film, x, y, a, b, c, turn=0.0):
  """Chord lengths through an ellipsoid: half axes a, b in the plane, turned by `turn` radians, and c along the ray."""
  cos, sin = np.cos(turn), np.sin(turn)
  reach_x, reach_y = np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos)
  window = film.window(x - reach_x, x + reach_x, y - reach_y, y + reach_y)
  dx, dy = film.x_W[window[1]][None] - x, film.y_H[window[0]][:, None] - y
  u, v = (dx * (cos / a) + dy * (sin / a)), (dy * (cos / b) - dx * (sin / b))
  return window, (2 * c * np.sqrt(np.maximum(1 - u * u - v * v, 0))).astype(np.float32)


def tube(film, path_S2, radius_S):
  """Depth below the surface, in cm, inside a tube of varying radius along a polyline; negative outside.

  Long paths are done in short runs, each on its own
  bounding box, because the cost is pixels × segments.
  """
  path, radius = np.asarray(path_S2, np.float32), np.broadcast_to(np.float32(radius_S), len(path_S2))
  most = radius.max()
  low, high = path.min(0) - most, path.max(0) + most
  whole = film.window(low[0], high[0], low[1], high[1])
  depth = np.full((whole[0].stop - whole[0].start, whole[1].stop - whole[1].start), -9, np.float32)
  run = 4 if depth.size > 1500 else len(path)
  for start in range(0, len(path) - 1, run):
    some = slice(start, start + run + 1)
    a, b, ra, rb = path[some][:-1], path[some][1:], radius[some][:-1], radius[some][1:]
    low, high = np.minimum(a, b).min(0) - most, np.maximum(a, b).max(0) + most
    window = film.window(low[0], high[0], low[1], high[1])
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
      continue
    length = np.maximum(np.linalg.norm(b - a, axis=1), 1e-4)
    (ux, uy), (ax, ay) = ((b - a) / length[:, None]).T[..., None, None], a.T[..., None, None]
    dx, dy = film.x_W[window[1]] - ax, film.y_H[window[0]][:, None] - ay
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


def blade(film, outlines):
  """Depth below the rim, in cm, inside a flat outline, or inside several that do not overlap."""
  outlines = [np.asarray(o) for o in outlines] if np.ndim(outlines[0]) == 2 else [np.asarray(outlines)]
  (x0, y0), (x1, y1) = np.min([o.min(0) for o in outlines], 0), np.max([o.max(0) for o in outlines], 0)
  margin = 2 / film.scale
  window = film.window(x0 - margin, x1 + margin, y0 - margin, y1 + margin)
  rows, columns = window[0].stop - window[0].start, window[1].stop - window[1].start
  if rows <= 0 or columns <= 0:
    return window, np.zeros((max(rows, 0), max(columns, 0)), np.float32)
  canvas = np.zeros((rows, columns), np.uint8)
  shift = np.array([window[1].start, window[0].start], np.int32) * 16
  for outline in outlines:
    cv2.fillPoly(canvas, [film.pixels(outline) - shift], 255, cv2.LINE_AA, 4)
  edge = cv2.distanceTransform(cv2.threshold(canvas, 127, 1, cv2.THRESH_BINARY)[1], cv2.DIST_L2, 3)
  part = canvas.astype(np.float32) * np.float32(1 / 255)  # of a rim pixel; puts the rim between pixels
  depth = cv2.GaussianBlur(edge - np.float32(.5) + (part - 1) * (edge < 1.5), (3, 3), 0.7)
  return window, depth * np.float32(1 / film.scale)


def ribbon(path_S2, radius_S):
  """The outline of a tube; leading axes are kept, so that many tubes are outlined at once."""
  path, radius = np.asarray(path_S2), np.asarray(radius_S)[..., None]
  way = np.concatenate([path[..., 1:2, :] - path[..., :1, :], path[..., 2:, :] - path[..., :-2, :],
                        path[..., -1:, :] - path[..., -2:-1, :]], -2)
  across = np.stack([-way[..., 1], way[..., 0]], -1) / np.hypot(way[..., :1], way[..., 1:]) * radius
  return np.concatenate([path + across, (path - across)[..., ::-1, :]], -2)


def solid(patch, radius):
  """Chord lengths of a rod of this radius whose depth below the surface is given."""
  window, depth = patch
  depth = np.clip(depth, 0, radius)
  return window, 2 * np.sqrt(depth * (2 * radius - depth))


def hollow(patch, radius, cortex, fill):
  """Bone of a shaft: a dense shell of thickness `cortex`, and spongy bone of density `fill` within."""
  window, depth = patch
  outer = solid((window, depth), radius)[1]
  inner = solid((window, depth - cortex), max(radius - cortex, 1e-3))[1]
  return window, outer - np.float32(1 - fill) * inner


def clouds(rng, shape, cells, octaves=3):
  """Smooth random field, about -1 to 1, with `cells` bumps across and finer, fainter ones on them."""
  total = np.zeros((1, 1), np.float32)
  for octave in range(octaves):  # grown from coarse to fine, so that the full size is reached only once
    grid = rng.standard_normal((cells * 2**octave + 2,) * 2, dtype=np.float32)
    total = cv2.resize(total, grid.shape, interpolation=cv2.INTER_CUBIC) + grid * np.float32(0.6 * 0.5**octave)
  return cv2.resize(total, shape[::-1], interpolation=cv2.INTER_CUBIC)


def smooth(outline, rounds=2):
  """Cut the corners of a closed outline (Chaikin)."""
  for _ in range(rounds):
    after = np.roll(outline, -1, 0)
    outline = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], 1).reshape(-1, 2)
  return outline


def oval(x, y, a, b):
  angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
  return np.stack([x + a * np.cos(angle), y + b * np.sin(angle) * (1 + 0.12 * np.sin(angle))], 1)
