"""Saves and restores the train state. Only this module uses Orbax; `checkpoint_folder.py` lists and deletes steps.

Saving runs in the background. A checkpoint counts only after its checksums are written (`checksums.py`), and older ones
are deleted only after that. docs/reliability.md says what this guarantees.
"""

import contextlib
import dataclasses
import logging
import pathlib
import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from mtpret_jax.config import extension
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import backend, checksums, distributed, tensorstore_leak
from mtpret_jax.runtime.averaged_weights import use_average
from mtpret_jax.runtime.checkpoint_folder import (
  Damaged,
  delete_old,
  delete_step,
  find_latest,
  incomplete_mark,
  remove_interrupted,
)

log = logging.getLogger(__name__)

# Orbax logs a failed write three times, with its traceback. `wait_for_save` reports it once, in one line.
logging.getLogger('absl').addFilter(lambda record: '_SignalingThread' not in str(record.msg))
tensorstore_leak.stop_leaks()


class SaveFailed(RuntimeError):
  """A checkpoint could not be written, after all retries."""


@dataclasses.dataclass
class Checkpoints:
  """The checkpoints of a run.

  Attributes:
    folder: absolute path.
    keep: how many of the newest are kept; None keeps all.
    retries: how many times a failed save is retried.
    latest: the newest step that is saved and verified, or None.
    saving: (step, future) of the save in progress, or None.
    pool: a single thread that waits for Orbax's commit and then writes the checksums.
  """

  folder: pathlib.Path
  keep: int | None
  retries: int
  latest: int | None
  saving: tuple[int, futures.Future] | None = None
  pool: futures.Executor = dataclasses.field(default_factory=lambda: futures.ThreadPoolExecutor(1, 'checkpoint'))


@contextlib.contextmanager
def open_checkpoints(workdir: str | pathlib.Path, keep: int | None, folder: str = 'checkpoints',
                     retries: int = 0) -> Iterator[Checkpoints]:
  """The checkpoints in `workdir/folder`. On exit it waits for the save in progress.

  Raises:
    Damaged: every checkpoint failed verification.
    ConfigError: the folder cannot be created.
    SaveFailed: on exit, if the last save failed. An error raised inside takes precedence.
  """
  path = pathlib.Path(workdir, folder).absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f'{path} cannot be created as a folder ({error.strerror}): remove the file in its place, '
                      f'restore the run\'s folder, or choose another --config.workdir') from error
  if jax.process_index() == 0:
    remove_interrupted(path)
  checkpoints = Checkpoints(path, keep, retries, distributed.run_on_first(lambda: find_latest(path)))
  try:
    yield checkpoints
  except BaseException:
    if failure := wait_for_save(checkpoints, agree=False):  # the other processes may be gone
      log.error('the last save also failed: %s', failure)
    raise
  else:
    if failure := wait_for_save(checkpoints):
      raise SaveFailed(describe_failure(checkpoints, failure))
  finally:
    checkpoints.pool.shutdown()


def save(checkpoints: Checkpoints, state: Any, step: int, metadata: Mapping[str, Any], wait: bool = False) -> None:
  """Starts to save `state`, taken at `step`, together with `metadata`. With `wait`, returns only when it is saved.

  If the previous save failed (or, with `wait`, this one), the current state is saved again and waited for: up to
  `retries` attempts, after pauses of 1, 5, 25, ... seconds. Raises SaveFailed after that.
  """
  error = wait_for_save(checkpoints)
  if checkpoints.latest == step:
    return
  if error is None:
    start_save(checkpoints, state, step, metadata)
    error = wait_for_save(checkpoints) if wait else None
  for attempt in range(checkpoints.retries):
    if error is None:
      return
    log.warning('%s Retrying in %d s (attempt %d of %d).', describe_failure(checkpoints, error), 5 ** attempt,
                attempt + 1, checkpoints.retries)
    time.sleep(5 ** attempt)
    start_save(checkpoints, state, step, metadata)
    error = wait_for_save(checkpoints)
  if error is not None:
    raise SaveFailed(describe_failure(checkpoints, error))


def start_save(checkpoints: Checkpoints, state: Any, step: int, metadata: Mapping[str, Any]) -> None:
  folder = checkpoints.folder / str(step)
  try:
    if jax.process_index() == 0:
      delete_step(checkpoints.folder, step, keep_mark=True)  # there may be a damaged checkpoint of this step
    response = ocp.save_checkpointables_async(folder, {'state': state}, overwrite=True, custom_metadata=dict(metadata))
    future = checkpoints.pool.submit(finish_save, response, folder, checkpoints.keep, jax.process_index())
  except Exception as error:  # Orbax and the file system may raise anything; `wait_for_save` reports it
    future = futures.Future()
    future.set_exception(error)
  checkpoints.saving = step, future


def finish_save(response: Any, folder: pathlib.Path, keep: int | None, process: int) -> None:
  """Runs in the pool: waits for Orbax's commit, writes the checksums, and only then deletes old checkpoints."""
  response.result()
  if process == 0:
    checksums.write_manifest(folder)
    incomplete_mark(folder.parent, folder.name).unlink(missing_ok=True)
    if keep is not None:
      delete_old(folder.parent, int(folder.name), keep)
  backend.find('after_save', lambda: None)()


def wait_for_save(checkpoints: Checkpoints, agree: bool = True) -> BaseException | None:
  """Waits for the save in progress and returns its error, or None. With `agree`, all processes must call this, and
  all return an error if the save of one failed."""
  if checkpoints.saving is None:
    return None
  (step, future), checkpoints.saving = checkpoints.saving, None
  error = future.exception()
  if agree:
    try:
      distributed.run_on_all(future.result, (Exception,))
    except Exception as first:  # it may be another process's
      error = error or first
  if error is None:
    checkpoints.latest = step
  elif jax.process_index() == 0:
    with contextlib.suppress(OSError):
      delete_step(checkpoints.folder, step)  # frees the space for the next attempt
  return error


def save_has_failed(checkpoints: Checkpoints) -> bool:
  """Whether the save in progress has already failed; does not wait. Always False with several processes: they would
  notice a failure at different steps. They learn of it together at the next save instead."""
  return (checkpoints.saving is not None and not distributed.is_multiprocess() and checkpoints.saving[1].done()
          and checkpoints.saving[1].exception() is not None)


def describe_failure(checkpoints: Checkpoints, error: BaseException) -> str:
  reason = ' '.join(str(error).split()) or type(error).__name__
  return f'A checkpoint could not be saved ({reason}). {describe_latest(checkpoints)}'


def describe_latest(checkpoints: Checkpoints) -> str:
  """A sentence that says where the newest checkpoint is."""
  wait_for_save(checkpoints)
  if checkpoints.latest is None:
    return 'No checkpoint was saved yet.'
  return f'The last good checkpoint is step {checkpoints.latest} in {checkpoints.folder / str(checkpoints.latest)}.'


def restore(checkpoints: Checkpoints, state: Any, fingerprint: Mapping[str, Any], extend: bool = False) -> Any:
  """The newest saved state, with the shardings of `state`; `state` itself if nothing was saved.

  With `extend`, the run may have grown since (`config/extension.py`).

  Raises:
    ConfigError: the checkpoint has another fingerprint (`make_fingerprint`), so that run took other steps than this
      one would.
  """
  if checkpoints.latest is None:
    return state
  folder = checkpoints.folder / str(checkpoints.latest)
  saved = read_step_metadata(folder)
  differing = {field: f'{field} is {saved.get(field)!r} in the checkpoint and {fingerprint.get(field)!r} in this config'
               for field in sorted(saved | dict(fingerprint)) if saved.get(field) != fingerprint.get(field)}
  growth = extension.find_growth(saved, fingerprint)
  only_grown = differing.keys() <= growth.keys()
  if differing and not (extend and only_grown):
    longer = ' extend the run with --config.extend=True,' if only_grown else ''
    raise ConfigError(
      f'the checkpoint of step {checkpoints.latest} in {checkpoints.folder} is from a run with another config '
      f'({"; ".join(differing.values())}): use that config,{longer} or start a new run with another --config.workdir')
  if growth:
    log.info(extension.describe_growth(growth, checkpoints.latest))
  abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
  with explain_errors(folder):
    return ocp.load_checkpointables(folder, {'state': abstract})['state']


def read_state(workdir: str | pathlib.Path, folder: str = 'checkpoints') -> tuple[dict, dict]:
  """(state, metadata) of the newest intact checkpoint of a run; the state is a dict of NumPy arrays. Where the run
  averages its weights, the average is in their place, see `averaged_weights.py`.

  Needs no template of the state. Writes nothing: the run may be in progress. Raises FileNotFoundError if there is no
  checkpoint, and Damaged if every one failed verification.
  """
  path = pathlib.Path(workdir, folder).absolute()
  if not path.is_dir():
    raise FileNotFoundError(f'{workdir} is not the workdir of a run: {path} does not exist')
  step_folder = latest_folder(path)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with explain_errors(step_folder):
    saved = ocp.checkpointables_metadata(step_folder)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                            saved.metadata['state'])
    state = ocp.load_checkpointables(step_folder, {'state': abstract})['state']
  state = restore_list_indices(jax.device_get(state))
  if isinstance(state, dict) and 'average' in state.get('carry', {}):
    params, carry = use_average(state['params'], state['carry'])
    state |= {'params': params, 'carry': carry}
  return state, saved.custom_metadata or {}


def read_fingerprint(workdir: str | pathlib.Path) -> dict:
  """The fingerprint that the newest intact checkpoint of a run was saved with. Raises as `read_state`."""
  return read_step_metadata(latest_folder(pathlib.Path(workdir, 'checkpoints').absolute()))


def read_metadata(checkpoints: Checkpoints) -> dict | None:
  """What was saved beside the newest state; None if nothing was saved."""
  if checkpoints.latest is None:
    return None
  return read_step_metadata(checkpoints.folder / str(checkpoints.latest))


def latest_folder(path: pathlib.Path) -> pathlib.Path:
  """The folder of the newest intact step in `path`. Raises FileNotFoundError and Damaged."""
  latest = find_latest(path) if path.is_dir() else None
  if latest is None:
    raise FileNotFoundError(f'{path} holds no checkpoint')
  return path / str(latest)


def read_step_metadata(folder: pathlib.Path) -> dict:
  with explain_errors(folder):
    return ocp.checkpointables_metadata(folder).custom_metadata or {}


@contextlib.contextmanager
def explain_errors(folder: pathlib.Path) -> Iterator[None]:
  """Turns any error of Orbax into Damaged: the checksums match, but the folder is not a checkpoint of a run. An
  interrupt, which Orbax hides in an error of its own, stays one."""
  try:
    yield
  except Exception as error:
    cause: BaseException | None = error
    while cause is not None:
      if not isinstance(cause, Exception):
        raise cause from None
      cause = cause.__cause__
    raise Damaged(f'{folder} matches its checksums, but is not a checkpoint of a run ({type(error).__name__}): restore '
                  f'the files from a backup, or name another run') from error


def restore_list_indices(tree: Any) -> Any:
  """Orbax returns list indices as strings. Converted back to ints, the tree equals that of a fresh state, so that the
  step is not compiled a second time."""
  if not isinstance(tree, dict):
    return tree
  return {int(key) if key.isdecimal() else key: restore_list_indices(branch) for key, branch in tree.items()}
