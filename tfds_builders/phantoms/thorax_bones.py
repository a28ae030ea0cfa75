"""Parts of the chest: spine, ribs, clavicles, shoulder blades, airways, abdominal gas and monitor leads."""

import numpy as np

from tfds_builders.phantoms.scene import Scene, ellipsoid, hollow, slab, solid, tube, tube_outline
from tfds_builders.phantoms.thorax import Chest

SCAPULA = np.array([(-5.2, 1.6), (-.2, 1.4), (.9, 2.2), (.2, 4.5), (-2.4, 9.5), (-3.3, 12.6), (-4.2, 11.8), (-5, 6)])
VERTEBRA = np.array([(-1, 0), (-.84, .5), (-1, 1), (1, 1), (.84, .5), (1, 0)])


def draw_spine(chest: Chest) -> None:
  """Draws the vertebrae, larger downwards, each with a body, two pedicles seen end on, and its processes."""
  scene, body = chest.scene, chest.body
  bodies, processes, widths = [], [], []
  y, tall = -20.0, 1.4
  while y < 21:
    x = float(chest.spine_x(y))
    wide = float(np.interp(y, [-18, 0, 18], [1.25, 1.5, 2.1]))
    bodies.append(VERTEBRA * (wide, tall) + (x, y))
    for side in (-1, 1):
      pedicle = x + side * .62 * wide
      processes += [(pedicle, y + .25 * tall, pedicle, y + .5 * tall),
                    (x + side * wide * .8, y + .35 * tall, x + side * (wide + 1.1), y + .2 * tall)]
      widths += [.5, .6 if y < 17 else .3]
    processes.append((x, y + .6 * tall, x + .1, y + 1.3 * tall))
    widths.append(.42)
    y += tall + .32
    tall = float(np.interp(y, [-18, 0, 18], [1.4, 1.95, 2.5]))
  scene.add('bone', hollow(slab(scene, bodies), 1.0, .13, .2), body['bone'])
  scene['bone'] += np.float32(.8 * body['bone']) * scene.strands(np.array(processes, np.float32), np.array(widths))


def draw_ribs(chest: Chest, rng: np.random.Generator) -> None:
  """Draws each rib as a tilted hoop from the spine (posterior) around the side to its cartilage (anterior)."""
  scene, body = chest.scene, chest.body
  count = body['ribs']
  i = np.arange(count)
  behind: list[np.ndarray] = []
  before: list[np.ndarray] = []
  for side in (-1, 1):
    lateral = np.abs(chest.edges(side)[1])
    root = body['apex'][0] - .6 + body['rib_gap'] * i * (.78 + .03 * i) + rng.normal(0, .08, count) + .1 * side
    drop = body['rib_drop'] * np.interp(i, [0, 3, 10], [.35, .9, 1.15])
    reach = .35 + np.interp(root + .35 * drop, scene.y_H, lateral)
    end = np.deg2rad(np.minimum(100 + 6 * i, 142) - 8 * np.maximum(i - 7, 0))
    for part, (start, stop) in ((behind, (.06 + 0 * i, np.minimum(1.72, end))), (before, (1.55 + 0 * i, end))):
      theta = start[:, None] + (stop - start)[:, None] * np.linspace(0, 1, 12)
      x = 1.4 + (reach[:, None] - 1.4) * np.sin(theta) ** .85
      y = root[:, None] + drop[:, None] * (1 - np.cos(theta)) / 2 - .7 * np.sin(2 * theta) * (theta < np.pi / 2)
      width = body['rib_width'] * np.interp(i, [0, 4, 10], [.85, 1, .9])[:, None]
      width = width * np.interp(theta, [0, .8, 1.6, 2.5], [.8, 1, .95, 1.12])
      part += list(tube_outline(np.stack([side * x + chest.spine_x(root)[:, None], y], -1), width))
  thick = body['rib_width']
  scene.add('bone', hollow(slab(scene, behind), thick, .14, .36), body['bone'] * 1.3)
  scene.add('bone', hollow(slab(scene, before), thick * .9, .11, .3), body['bone'] * .95)


def draw_girdle(chest: Chest) -> None:
  """Draws clavicles, shoulder blades and the upper arms."""
  scene, body = chest.scene, chest.body
  wide, dense = body['half'], body['bone']
  for side in (-1, 1):
    lift = body['clavicle'] + .7 * side * body['twist']
    clavicle = np.array([(1.6, -9.6 - .7 * lift), (.36 * wide, -10.6), (.68 * wide, -12), (wide, -12.8)]) + (0, lift)
    scene.add('bone', hollow(tube(scene, clavicle * (side, 1), [.75, .52, .5, .62]), .6, .16, .25), dense)
    top = -13.2 - .5 * body['shoulder'] + .4 * side * body['clavicle']
    outer = wide * (1.03 + .05 * body['arms'])
    shift = np.array([outer, top])
    scene.add('bone', hollow(slab(scene, (SCAPULA + shift) * (side, 1)), .34, .12, .15), dense)
    spine = (np.array([(-4.6, 3.4), (0, .4), (1.8, .2)]) + shift) * (side, 1)
    scene.add('bone', hollow(tube(scene, spine, [.3, .45, .7]), .6, .13, .25), dense)
    head, elbow = np.array([outer + 2.6, top + 2.9]), np.array([outer + 4.4 + 6 * body['arms'], 14 - 17 * body['arms']])
    arm = np.stack([head, .8 * head + .2 * elbow, elbow]) * (side, 1)
    scene.add('bone', hollow(tube(scene, arm, [2.1, 1.15, 1.05]), 1.3, .28, .25), dense)


def draw_airways(chest: Chest) -> None:
  """Draws the trachea and the main bronchi."""
  scene = chest.scene
  x = float(chest.spine_x(-6))
  trachea = [(x - .1, -21), (x + .1, -12), (x - .25, -4.2)]
  scene.add('gas', solid(tube(scene, trachea, .85), .85), .9)
  for end in ((x - 2.6, -1.2), (x + 3.2, -1.6)):
    scene.add('gas', solid(tube(scene, [trachea[-1], end], [.7, .5]), .6), .8)


def draw_belly(chest: Chest, rng: np.random.Generator) -> None:
  """Draws gas in the stomach and the left colic flexure. The liver on the right is plain soft tissue."""
  scene, body = chest.scene, chest.body
  top = body['dome'][1] + 1.6
  for _ in range(1 + int(rng.integers(3))):
    x, y, a, b = rng.uniform(4, 9), top + rng.uniform(.6, 3.5), rng.uniform(1, 2.4), rng.uniform(.6, 1.5)
    scene.add('gas', ellipsoid(scene, x, y, a, b, 2.5 * body['bubble'] * rng.uniform(.3, 1), rng.normal(0, .4)))


def draw_wires(scene: Scene, rng: np.random.Generator) -> None:
  """Draws monitor leads on the skin, each with its electrode."""
  for _ in range(int(rng.integers(1, 4))):
    spot, out = rng.uniform(-9, 9, 2), np.array([rng.choice([-19, 19]), rng.uniform(-14, 16)])
    bend = (spot + out) / 2 + rng.uniform(-4, 4, 2)
    t = np.linspace(0, 1, 14)[:, None]
    curve = (1 - t) ** 2 * spot + 2 * t * (1 - t) * bend + t * t * out
    pieces = np.concatenate([curve[:-1], curve[1:]], 1).astype(np.float32)
    scene['metal'] += 0.3 * scene.strands(pieces, np.full(13, 0.14, np.float32))
    scene.add('metal', ellipsoid(scene, spot[0], spot[1], 0.45, 0.45, 0.05))
