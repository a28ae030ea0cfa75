"""Save and resume; the only file that knows Orbax."""

import contextlib
import pathlib

import jax
from orbax.checkpoint import v1 as ocp

from mtpret_jax.check import ConfigError


@contextlib.contextmanager
def open_checkpoints(workdir, keep, folder='checkpoints'):
  """The run's checkpoints, the newest `keep` of them kept. Leaving waits for the last save; its failure is raised."""
  policies = ocp.training.preservation_policies
  checkpoints = ocp.training.Checkpointer(
    pathlib.Path(workdir, folder).absolute(),
    save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # the loop decides
    preservation_policy=policies.LatestN(keep),
    cleanup_tmp_directories=True)
  try:
    yield checkpoints
  finally:
    checkpoints.close()


def save(checkpoints, state, step, run):
  """Begins to save `state`, which is at `step`; `run` is the fingerprint of the run."""
  if latest_step(checkpoints) != step:
    checkpoints.save_checkpointables_async(step, {'state': state}, custom_metadata=run)


def resume(checkpoints, state, run):
  """The newest saved state, placed as `state` is, or `state` itself where nothing was saved. Raises ConfigError where
  the saved run has another fingerprint."""
  latest = checkpoints.latest
  if latest is None:
    return state
  saved = checkpoints.metadata(latest.step).custom_metadata or {}
  differing = [f'{field}: {saved.get(field)!r} there, {run.get(field)!r} here'
               for field in sorted(saved | run) if saved.get(field) != run.get(field)]
  if differing:
    raise ConfigError(
      f'the checkpoint of step {latest.step} in {checkpoints.directory} is of another run ({"; ".join(differing)}): '
      f'give the config that it has, or start anew with another --config.workdir')
  like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
  return checkpoints.load_checkpointables(latest.step, abstract_checkpointables={'state': like})['state']


def read_state(workdir, folder='checkpoints'):
  """(dict of the saved TrainState's fields as numpy arrays, metadata) of the newest checkpoint of a run, whatever its
  shape. Raises FileNotFoundError where there is none."""
  path = pathlib.Path(workdir, folder)
  if not path.is_dir():
    raise FileNotFoundError(f'no run in {workdir}: {path} is not there')
  with open_checkpoints(workdir, None, folder) as checkpoints:
    latest = checkpoints.latest
    if latest is None:
      raise FileNotFoundError(f'{path} holds no checkpoint')
    saved = checkpoints.metadata(latest.step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved.metadata)
    state = checkpoints.load_checkpointables(latest.step, abstract_checkpointables={'state': like})['state']
    return number_places(jax.device_get(state)), saved.custom_metadata or {}


def number_places(tree):
  """The places in lists, which Orbax gives back as text, as numbers: a state with other keys is compiled anew."""
  if not isinstance(tree, dict):
    return tree
  return {int(key) if key.isdecimal() else key: number_places(branch) for key, branch in tree.items()}


def read_metadata(checkpoints):
  """What was saved beside the newest state, or None."""
  latest = checkpoints.latest
  return None if latest is None else checkpoints.metadata(latest.step).custom_metadata


def latest_step(checkpoints):
  return None if checkpoints.latest is None else checkpoints.latest.step


def describe_latest(checkpoints):
  """Where the newest checkpoint lies, in words."""
  checkpoints.wait()
  latest = checkpoints.latest
  return 'none was saved yet' if latest is None else f'step {latest.step} in {latest.path}'
