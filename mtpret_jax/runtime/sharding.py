"""The device mesh, and how batches and the state are placed on it.

The mesh has one axis, `data`. Batches are split along it; the state is replicated on every device or, with
`sharding='fsdp'`, sharded over all of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of the given devices, or of all devices of all processes.

  The devices of a process are neighbours in the mesh, so that a process reads neighbouring rows of the batch. The order
  of device ids does not guarantee that on a pod, hence the sort."""
  devices = sorted(jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id))
  return Mesh(np.array(devices), ('data',), axis_types=(AxisType.Auto,))


def by_batch(mesh: Mesh) -> NamedSharding:
  """Split along the first axis."""
  return NamedSharding(mesh, P('data'))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """A full copy on every device."""
  return NamedSharding(mesh, P())


STATES = ('replicated', 'fsdp')  # values of the config's `sharding`
SHARDED = {'params', 'opt', 'key_encoder', 'anchor'}  # parts of the state that have the shapes of the weights
MIN_SIZE = 2 ** 14  # elements of an array; gathering a smaller one would cost more time than its memory is worth


def fsdp_shardings(shapes: Any, mesh: Mesh) -> Any:
  """The sharding of each array of a state with these `shapes`, a tree like the state.

  Weights, the optimiser's state, key encoder and anchor are split along their longest side that the number of devices
  divides (ZeRO-3, Rajbhandari et al. 2020); everything else is replicated."""
  def place(path: tuple, array: jax.ShapeDtypeStruct) -> NamedSharding:
    parts = {getattr(key, 'name', getattr(key, 'key', None)) for key in path}
    sides = [side if side % mesh.size == 0 else 0 for side in array.shape]
    if not parts & SHARDED or math.prod(array.shape) < MIN_SIZE or not max(sides):
      return replicated(mesh)
    return NamedSharding(mesh, P(*[None] * sides.index(max(sides)), 'data'))
  return jax.tree_util.tree_map_with_path(place, shapes)


def all_gather(tree: Any, placement: Any) -> Any:
  """Inside a step: the whole of each sharded array on every device. Its gradient is reduced and sharded again, as
  `placement` says.

  Without this, XLA may choose to keep the weights sharded and split the channels of the images instead. `placement` has
  the shardings of `tree`; one sharding may stand for a whole branch."""
  def gather(sharding: NamedSharding, array: jax.Array) -> jax.Array:
    if sharding.is_fully_replicated:
      return array
    whole = jax.custom_vjp(lambda array: jax.lax.with_sharding_constraint(array, replicated(sharding.mesh)))
    whole.defvjp(lambda array: (whole(array), None),
                 lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, sharding),))
    return whole(array)
  return jax.tree.map(gather, placement, tree)


def gather_state(state: Any) -> Any:
  """The state with a full copy on every device; the same object if it already is."""
  if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state)):
    return state
  mesh = next(leaf.sharding.mesh for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated)
  return jax.jit(lambda state: state, out_shardings=replicated(mesh))(state)


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Makes global arrays, split over the devices, from the rows that this process has read."""
  return {name: jax.make_array_from_process_local_data(by_batch(mesh), rows) for name, rows in batch.items()}


def replicate(rows: jax.Array) -> jax.Array:
  """Inside a step with a mesh: all rows on every device. Does nothing without a mesh."""
  return rows if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(rows, P())
