"""Long bones, and what breaks, mends or eats them. Shared by the hand and the arm."""

import numpy as np

from tfds_builders.phantoms.film import blade, clouds, ellipsoid, hollow, solid, tube

KNOTS = np.array([0, .06, .16, .32, .5, .68, .84, .94, 1])


def lay(film, a, b, shaft, ends, bow=0.0):
  """The axis and radius of a long bone from a to b: flared ends, a slight bow."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  along = b - a
  across = np.array([-along[1], along[0]])
  path = a + KNOTS[:, None] * along + (np.sin(np.pi * KNOTS) * bow)[:, None] * across
  flare = np.array([.9, 1, .72, .22, 0, .22, .72, 1, .9])
  end = np.where(KNOTS < .5, ends[0], ends[1])
  return path, shaft * (1 + (end - 1) * flare)


def long_bone(film, a, b, shaft, ends=(1.5, 1.5), bow=0.0, cortex=0.3, fill=0.25, dense=1.0, cuts=()):
  """Adds a long bone. cortex: parts of the shaft's radius, thinner towards the ends, where the spongy bone is denser.

  cuts: (x, y, normal x, normal y, roughness) half planes that end the bone; it lies where the normal points.
  Returns the patch of its depth.
  """
  path, radius = lay(film, a, b, shaft, ends, bow)
  ends_off = shaft * 0.25 * (path[-1] - path[0]) / max(np.linalg.norm(path[-1] - path[0]), 1e-6)
  path[0] += ends_off
  path[-1] -= ends_off
  window, depth = tube(film, path, radius)
  for x, y, nx, ny, rough in cuts:
    dx, dy = film.x_W[window[1]][None] - np.float32(x), film.y_H[window[0]][:, None] - np.float32(y)
    jag = rough * np.sin(7 * (dx * ny - dy * nx) / max(shaft, .1)) if rough else 0
    depth = np.minimum(depth, dx * nx + dy * ny + jag).astype(np.float32)
  thick = hollow((window, depth), shaft * 1.15, cortex * shaft, fill)
  film.add('bone', thick, dense)
  return window, depth


def break_bone(film, a, b, shaft, ends, site, severity, span=(0, 1), **more):
  """A fracture: the far part is shifted and tilted, and a dark line runs across.

  span: the part of the bone that is in view.  Returns the region, as a patch, and the new end.
  """
  a, b = np.asarray(a, float), np.asarray(b, float)
  along = (b - a) / np.linalg.norm(b - a)
  across = np.array([-along[1], along[0]])
  place = a + (b - a) * (span[0] + (span[1] - span[0]) * site.uniform(.3, .75))
  lean = site.uniform(-.6, .6)
  normal = along * np.cos(lean) + across * np.sin(lean)
  shift = across * shaft * (.35 + .8 * severity) * site.choice([-1, 1]) + along * shaft * .22
  tilt = np.deg2rad(site.choice([-1, 1]) * (4 + 18 * severity))
  turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
  moved = lambda p: place + shift + turn @ (p - place)  # noqa: E731
  long_bone(film, a, b, shaft, ends, cuts=[(*place, *(-normal), .06 * shaft)], **more)
  start = moved(place)
  long_bone(film, moved(a), moved(b), shaft, ends, cuts=[(*start, *(turn @ normal), .06 * shaft)], **more)
  reach = 2.4 * shaft
  return ellipsoid(film, *(place + shift / 2), reach, reach, 1), moved(b)


def screw_plate(film, a, b, shaft, site):
  """A metal plate along the bone with screws across it. Returns the region, as a patch."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  long = np.linalg.norm(b - a)
  along = (b - a) / long
  across = np.array([-along[1], along[0]]) * site.choice([-1, 1])
  middle, half = site.uniform(.35, .6), site.uniform(.17, .3) * long
  rim = a + (b - a) * middle + across * shaft * .95
  ends = [rim - along * half, rim + along * half]
  film.add('metal', solid(tube(film, ends, .3 * shaft), .3 * shaft), .9)
  screws = int(np.clip(round(2 * half / (shaft * 1.3)), 3, 8))
  for t in np.linspace(-.86, .86, screws):
    head = rim + along * half * t
    film.add('metal', solid(tube(film, [head, head - across * shaft * 2.0], [.2 * shaft, .14 * shaft]), .2 * shaft), .9)
  return tube(film, [ends[0] - across * shaft, ends[1] - across * shaft], 1.2 * shaft)


def eat_bone(film, a, b, shaft, site, severity):
  """A lytic lesion: a hole in the spongy bone with a fine dense rim, and a swelling. Returns the region, as a patch."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  x, y = a + (b - a) * site.choice([site.uniform(.1, .25), site.uniform(.75, .9)])
  long, wide = shaft * (1.3 + .9 * severity), shaft * (1.0 + .5 * severity)
  turn = np.arctan2(*(b - a)[::-1])
  window, chord = ellipsoid(film, x, y, long, wide, 1, turn)
  depth = chord / 2
  film['bone'][window] *= 1 - .85 * np.clip(depth * 2.5, 0, 1)
  outer, bubble = ellipsoid(film, x, y, long * 1.12, wide * 1.12, shaft * 1.1, turn)
  inner = film.spread(ellipsoid(film, x, y, long, wide, shaft * .98, turn))[outer]
  film['bone'][outer] += .55 * np.maximum(bubble - inner, 0)
  return window, chord


def roughen(film, rng, strength=0.16):
  """Trabeculae: fine grain in everything that is bone."""
  film['bone'] *= 1 + np.float32(strength) * clouds(rng, film.shape, 48, 2)


def pebble(film, x, y, a, b, rng, dense=1.0):
  """A small rounded irregular bone, as of the wrist."""
  angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
  radius = 1 + .09 * np.sin(2 * angle + rng.uniform(0, 6)) + .06 * np.sin(3 * angle + rng.uniform(0, 6))
  outline = np.stack([x + a * radius * np.cos(angle), y + b * radius * np.sin(angle)], 1)
  film.add('bone', hollow(blade(film, outline), max(min(a, b), .12), .09, .42), dense)
