"""Save and resume; the only file that knows Orbax."""

import contextlib
import pathlib

import jax
from orbax.checkpoint import v1 as ocp

from mtpret_jax.check import ConfigError


@contextlib.contextmanager
def open_checkpoints(workdir, keep):
  """The run's checkpoints, the newest `keep` of them kept. Leaving waits for the last save; its failure is raised."""
  policies = ocp.training.preservation_policies
  checkpoints = ocp.training.Checkpointer(
    pathlib.Path(workdir, 'checkpoints').absolute(),
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


def latest_step(checkpoints):
  return None if checkpoints.latest is None else checkpoints.latest.step


def describe_latest(checkpoints):
  """Where the newest checkpoint lies, in words."""
  checkpoints.wait()
  latest = checkpoints.latest
  return 'none was saved yet' if latest is None else f'step {latest.step} in {latest.path}'
