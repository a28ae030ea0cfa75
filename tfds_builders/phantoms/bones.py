"""Long bones and their abnormalities: fracture, hardware, lesion. Shared by the hand and the arm."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfds_builders.phantoms.scene import Patch, Point, Scene, clouds, ellipsoid, hollow, slab, solid, tube

KNOTS = np.array([0, .06, .16, .32, .5, .68, .84, .94, 1])


def bone_axis(
    a: Point, b: Point, shaft: float, ends: tuple[float, float], bow: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
  """Axis (9, 2) and radius (9,) of a long bone from a to b, with flared ends and a slight bow."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  along = b - a
  across = np.array([-along[1], along[0]])
  path = a + KNOTS[:, None] * along + (np.sin(np.pi * KNOTS) * bow)[:, None] * across
  flare = np.array([.9, 1, .72, .22, 0, .22, .72, 1, .9])
  end = np.where(KNOTS < .5, ends[0], ends[1])
  return path, shaft * (1 + (end - 1) * flare)


def long_bone(
    scene: Scene, a: Point, b: Point, shaft: float, ends: tuple[float, float] = (1.5, 1.5), bow: float = 0.0,
    cortex: float = 0.3, fill: float = 0.25, dense: float = 1.0, cuts: Sequence[tuple] = ()) -> Patch:
  """Draws a long bone.

  Args:
    scene: drawn into.
    a, b: ends in cm.
    shaft: radius in cm.
    ends: radius at both ends, relative to the shaft.
    bow: sideways deflection of the axis, as a fraction of the length.
    cortex: thickness of the dense shell, as a fraction of the shaft's radius.
    fill: density of the spongy bone inside.
    dense: factor on the bone's density.
    cuts: (x, y, normal x, normal y, roughness) of half planes that end the bone; it lies where the normal points.

  Returns:
    Patch of the depth below its surface.
  """
  path, radius = bone_axis(a, b, shaft, ends, bow)
  ends_off = shaft * 0.25 * (path[-1] - path[0]) / max(np.linalg.norm(path[-1] - path[0]), 1e-6)
  path[0] += ends_off
  path[-1] -= ends_off
  window, depth = tube(scene, path, radius)
  for x, y, nx, ny, rough in cuts:
    dx, dy = scene.x_W[window[1]][None] - np.float32(x), scene.y_H[window[0]][:, None] - np.float32(y)
    jag = rough * np.sin(7 * (dx * ny - dy * nx) / max(shaft, .1)) if rough else 0
    depth = np.minimum(depth, dx * nx + dy * ny + jag).astype(np.float32)
  thick = hollow((window, depth), shaft * 1.15, cortex * shaft, fill)
  scene.add('bone', thick, dense)
  return window, depth


def draw_fracture(
    scene: Scene, a: Point, b: Point, shaft: float, ends: tuple[float, float], rng: np.random.Generator,
    severity: float, span: tuple[float, float] = (0, 1), **more: Any) -> tuple[Patch, np.ndarray]:
  """Draws a fractured long bone: the distal part is shifted and tilted, and a dark line runs across.

  span: visible part of the bone, as two fractions of its length.  Returns the region, as a patch, and the moved end.
  """
  a, b = np.asarray(a, float), np.asarray(b, float)
  along = (b - a) / np.linalg.norm(b - a)
  across = np.array([-along[1], along[0]])
  place = a + (b - a) * (span[0] + (span[1] - span[0]) * rng.uniform(.3, .75))
  lean = rng.uniform(-.6, .6)
  normal = along * np.cos(lean) + across * np.sin(lean)
  shift = across * shaft * (.35 + .8 * severity) * rng.choice([-1, 1]) + along * shaft * .22
  tilt = np.deg2rad(rng.choice([-1, 1]) * (4 + 18 * severity))
  rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
  moved = lambda p: place + shift + rotation @ (p - place)  # noqa: E731
  long_bone(scene, a, b, shaft, ends, cuts=[(*place, *(-normal), .06 * shaft)], **more)
  start = moved(place)
  long_bone(scene, moved(a), moved(b), shaft, ends, cuts=[(*start, *(rotation @ normal), .06 * shaft)], **more)
  reach, (x, y) = 2.4 * shaft, place + shift / 2
  return ellipsoid(scene, x, y, reach, reach, 1), moved(b)


def draw_hardware(scene: Scene, a: Point, b: Point, shaft: float, rng: np.random.Generator) -> Patch:
  """Draws a metal plate along the bone, with screws across; returns the region as a patch."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  long = np.linalg.norm(b - a)
  along = (b - a) / long
  across = np.array([-along[1], along[0]]) * rng.choice([-1, 1])
  middle, half = rng.uniform(.35, .6), rng.uniform(.17, .3) * long
  rim = a + (b - a) * middle + across * shaft * .95
  ends = [rim - along * half, rim + along * half]
  scene.add('metal', solid(tube(scene, ends, .3 * shaft), .3 * shaft), .9)
  screws = int(np.clip(round(2 * half / (shaft * 1.3)), 3, 8))
  for t in np.linspace(-.86, .86, screws):
    head = rim + along * half * t
    screw = tube(scene, [head, head - across * shaft * 2.0], [.2 * shaft, .14 * shaft])
    scene.add('metal', solid(screw, .2 * shaft), .9)
  return tube(scene, [ends[0] - across * shaft, ends[1] - across * shaft], 1.2 * shaft)


def draw_lesion(scene: Scene, a: Point, b: Point, shaft: float, rng: np.random.Generator, severity: float) -> Patch:
  """Draws a lytic lesion: a hole in the spongy bone with a thin dense rim; returns the region as a patch."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  x, y = a + (b - a) * rng.choice([rng.uniform(.1, .25), rng.uniform(.75, .9)])
  long, wide = shaft * (1.3 + .9 * severity), shaft * (1.0 + .5 * severity)
  rotation = np.arctan2(*(b - a)[::-1])
  window, chord = ellipsoid(scene, x, y, long, wide, 1, rotation)
  depth = chord / 2
  scene['bone'][window] *= 1 - .85 * np.clip(depth * 2.5, 0, 1)
  outer, bubble = ellipsoid(scene, x, y, long * 1.12, wide * 1.12, shaft * 1.1, rotation)
  inner = scene.to_full(ellipsoid(scene, x, y, long, wide, shaft * .98, rotation))[outer]
  scene['bone'][outer] += .55 * np.maximum(bubble - inner, 0)
  return window, chord


def roughen(scene: Scene, rng: np.random.Generator, strength: float = 0.16) -> None:
  """Adds trabeculae: fine grain in all bone."""
  scene['bone'] *= 1 + np.float32(strength) * clouds(rng, scene.shape, 48, 2)


def draw_small_bone(
    scene: Scene, x: float, y: float, a: float, b: float, rng: np.random.Generator, dense: float = 1.0) -> None:
  """Draws a small, rounded, irregular bone, as in the wrist."""
  angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
  radius = 1 + .09 * np.sin(2 * angle + rng.uniform(0, 6)) + .06 * np.sin(3 * angle + rng.uniform(0, 6))
  outline = np.stack([x + a * radius * np.cos(angle), y + b * radius * np.sin(angle)], 1)
  scene.add('bone', hollow(slab(scene, outline), max(min(a, b), .12), .09, .42), dense)
