"""Bones, airways and the belly of the chest: spine, ribs, clavicles, shoulder blades, trachea, stomach bubble."""

import numpy as np

from tfds_builders.phantoms.film import blade, ellipsoid, hollow, ribbon, solid, tube

SCAPULA = np.array([(-5.2, 1.6), (-.2, 1.4), (.9, 2.2), (.2, 4.5), (-2.4, 9.5), (-3.3, 12.6), (-4.2, 11.8), (-5, 6)])
VERTEBRA = np.array([(-1, 0), (-.84, .5), (-1, 1), (1, 1), (.84, .5), (1, 0)])


def draw_spine(chest):
  """Vertebrae grow downwards; each has a body, two pedicles seen end on, side processes and a spine."""
  film, body = chest.film, chest.body
  bodies, processes, widths = [], [], []
  y, tall = -20.0, 1.4
  while y < 21:
    x = float(chest.spine_x(y))
    wide = np.interp(y, [-18, 0, 18], [1.25, 1.5, 2.1])
    bodies.append(VERTEBRA * (wide, tall) + (x, y))
    for side in (-1, 1):
      pedicle = x + side * .62 * wide
      processes += [(pedicle, y + .25 * tall, pedicle, y + .5 * tall),
                    (x + side * wide * .8, y + .35 * tall, x + side * (wide + 1.1), y + .2 * tall)]
      widths += [.5, .6 if y < 17 else .3]
    processes.append((x, y + .6 * tall, x + .1, y + 1.3 * tall))
    widths.append(.42)
    y += tall + .32
    tall = np.interp(y, [-18, 0, 18], [1.4, 1.95, 2.5])
  film.add('bone', hollow(blade(film, bodies), 1.0, .13, .2), body['bone'])
  film['bone'] += np.float32(.8 * body['bone']) * film.strands(np.array(processes, np.float32), np.array(widths))


def draw_ribs(chest, rng):
  """Each rib is a tilted hoop from the spine (behind) round the side to its cartilage (in front)."""
  film, body = chest.film, chest.body
  count = body['ribs']
  i = np.arange(count)
  behind, before = [], []
  for side in (-1, 1):
    lateral = np.abs(chest.edges(side)[1])
    root = body['apex'][0] - .6 + body['rib_gap'] * i * (.78 + .03 * i) + rng.normal(0, .08, count) + .1 * side
    drop = body['rib_drop'] * np.interp(i, [0, 3, 10], [.35, .9, 1.15])
    reach = .35 + np.interp(root + .35 * drop, film.y_H, lateral)
    end = np.deg2rad(np.minimum(100 + 6 * i, 142) - 8 * np.maximum(i - 7, 0))
    for part, (start, stop) in ((behind, (.06 + 0 * i, np.minimum(1.72, end))), (before, (1.55 + 0 * i, end))):
      theta = start[:, None] + (stop - start)[:, None] * np.linspace(0, 1, 12)
      x = 1.4 + (reach[:, None] - 1.4) * np.sin(theta) ** .85
      y = root[:, None] + drop[:, None] * (1 - np.cos(theta)) / 2 - .7 * np.sin(2 * theta) * (theta < np.pi / 2)
      width = body['rib_width'] * np.interp(i, [0, 4, 10], [.85, 1, .9])[:, None]
      width = width * np.interp(theta, [0, .8, 1.6, 2.5], [.8, 1, .95, 1.12])
      part += list(ribbon(np.stack([side * x + chest.spine_x(root)[:, None], y], -1), width))
  thick = body['rib_width']
  film.add('bone', hollow(blade(film, behind), thick, .14, .36), body['bone'] * 1.3)
  film.add('bone', hollow(blade(film, before), thick * .9, .11, .3), body['bone'] * .95)


def draw_girdle(chest):
  """Clavicles, shoulder blades and the heads of the upper arms."""
  film, body = chest.film, chest.body
  wide, dense = body['half'], body['bone']
  for side in (-1, 1):
    lift = body['clavicle'] + .7 * side * body['twist']
    clavicle = np.array([(1.6, -9.6 - .7 * lift), (.36 * wide, -10.6), (.68 * wide, -12), (wide, -12.8)]) + (0, lift)
    film.add('bone', hollow(tube(film, clavicle * (side, 1), [.75, .52, .5, .62]), .6, .16, .25), dense)
    top = -13.2 - .5 * body['shoulder'] + .4 * side * body['clavicle']
    outer = wide * (1.03 + .05 * body['arms'])
    shift = np.array([outer, top])
    film.add('bone', hollow(blade(film, (SCAPULA + shift) * (side, 1)), .34, .12, .15), dense)
    spine = (np.array([(-4.6, 3.4), (0, .4), (1.8, .2)]) + shift) * (side, 1)
    film.add('bone', hollow(tube(film, spine, [.3, .45, .7]), .6, .13, .25), dense)
    head, elbow = np.array([outer + 2.6, top + 2.9]), np.array([outer + 4.4 + 6 * body['arms'], 14 - 17 * body['arms']])
    arm = np.stack([head, .8 * head + .2 * elbow, elbow]) * (side, 1)
    film.add('bone', hollow(tube(film, arm, [2.1, 1.15, 1.05]), 1.3, .28, .25), dense)


def draw_airways(chest):
  film = chest.film
  x = float(chest.spine_x(-6))
  trachea = [(x - .1, -21), (x + .1, -12), (x - .25, -4.2)]
  film.add('gas', solid(tube(film, trachea, .85), .85), .9)
  for end in ((x - 2.6, -1.2), (x + 3.2, -1.6)):
    film.add('gas', solid(tube(film, [trachea[-1], end], [.7, .5]), .6), .8)


def draw_belly(chest, rng):
  """Gas in the stomach and the left bend of the colon; the liver on the right is plain soft tissue."""
  film, body = chest.film, chest.body
  top = body['dome'][1] + 1.6
  for _ in range(1 + int(rng.integers(3))):
    x, y, a, b = rng.uniform(4, 9), top + rng.uniform(.6, 3.5), rng.uniform(1, 2.4), rng.uniform(.6, 1.5)
    film.add('gas', ellipsoid(film, x, y, a, b, 2.5 * body['bubble'] * rng.uniform(.3, 1), rng.normal(0, .4)))


def draw_wires(film, rng):
  """Leads of a monitor that lie on the skin, each with its electrode."""
  for _ in range(int(rng.integers(1, 4))):
    spot, out = rng.uniform(-9, 9, 2), np.array([rng.choice([-19, 19]), rng.uniform(-14, 16)])
    bend = (spot + out) / 2 + rng.uniform(-4, 4, 2)
    t = np.linspace(0, 1, 14)[:, None]
    curve = (1 - t) ** 2 * spot + 2 * t * (1 - t) * bend + t * t * out
    pieces = np.concatenate([curve[:-1], curve[1:]], 1).astype(np.float32)
    film['metal'] += 0.3 * film.strands(pieces, np.full(13, 0.14, np.float32))
    film.add('metal', ellipsoid(film, *spot, 0.45, 0.45, 0.05))
