"""The mesh and its two shardings: batches split over `data`, everything else on every device."""

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


def place_batch(batch, mesh):
  """This process's rows of each array -> the global, sharded array."""
  return {name: jax.make_array_from_process_local_data(by_batch(mesh), rows) for name, rows in batch.items()}


def replicate(rows):
  """Asks for all rows on every device, inside a step that is compiled for a mesh; elsewhere it does nothing."""
  return rows if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(rows, P())
