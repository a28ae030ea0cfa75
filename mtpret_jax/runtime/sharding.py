"""The mesh and what lies where on it: batches split over `data`, the state on every device or cut over all of them."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def make_mesh(devices=None):
  """One axis, `data`, over all devices of all processes (or those given), each process's side by side: a process reads
  neighbouring rows of the batch. On a pod the numbers of devices alone do not give that."""
  devices = sorted(jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id))
  return Mesh(np.array(devices), ('data',), axis_types=(AxisType.Auto,))


def by_batch(mesh):
  return NamedSharding(mesh, P('data'))


def replicated(mesh):
  return NamedSharding(mesh, P())


STATES = ('replicated', 'fsdp')  # the config's `sharding`
CUT = {'params', 'opt', 'key_encoder', 'anchor'}  # parts of the state with the shapes of the weights
WORTH_CUTTING = 2 ** 14  # numbers; below that a message costs more than the memory


def fsdp_shardings(shapes, mesh):
  """The sharding of each array of a state of `shapes`, of which each device keeps a piece: weights, momentum and slow
  weights are cut along the longest side that the devices divide (Rajbhandari et al. 2020, ZeRO-3)."""
  def place(path, array):
    parts = {getattr(key, 'name', getattr(key, 'key', None)) for key in path}
    sides = [side if side % mesh.size == 0 else 0 for side in array.shape]
    if not parts & CUT or math.prod(array.shape) < WORTH_CUTTING or not max(sides):
      return replicated(mesh)
    return NamedSharding(mesh, P(*[None] * sides.index(max(sides)), 'data'))
  return jax.tree_util.tree_map_with_path(place, shapes)


def all_gather(tree, placement):
  """Inside a step: all of each array on every device, and of its gradient the piece that `placement` gives a device.
  Left to itself, XLA may cut the channels of the images instead. `placement` may have one sharding for a branch."""
  def bring(place, array):
    if place.is_fully_replicated:
      return array
    whole = jax.custom_vjp(lambda array: jax.lax.with_sharding_constraint(array, replicated(place.mesh)))
    whole.defvjp(lambda array: (whole(array), None), lambda _, slope: (
      jax.lax.with_sharding_constraint(slope, place),))
    return whole(array)
  return jax.tree.map(bring, placement, tree)


def gather_state(state):
  """The state with all of it on every device: itself, where it is so already."""
  if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state)):
    return state
  mesh = next(leaf.sharding.mesh for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated)
  return jax.jit(lambda state: state, out_shardings=replicated(mesh))(state)


def place_batch(batch, mesh):
  """This process's rows of each array -> the global, sharded array."""
  return {name: jax.make_array_from_process_local_data(by_batch(mesh), rows) for name, rows in batch.items()}


def replicate(rows):
  """Asks for all rows on every device, inside a step that is compiled for a mesh; elsewhere it does nothing."""
  return rows if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(rows, P())
