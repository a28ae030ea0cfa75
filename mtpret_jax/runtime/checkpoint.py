"""Save and resume; the only file that knows Orbax.

    checkpoints/400/             what Orbax wrote
    checkpoints/400.sha256       its manifest, written once the save is committed: without it a folder is not trusted
    checkpoints/400.incomplete   being saved, or being deleted; what is left of that is removed when the run goes on

An older checkpoint is deleted only after a newer one has its manifest. docs/reliability.md says what follows from that.
"""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
import time
from concurrent import futures

import jax
from orbax.checkpoint import v1 as ocp

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.cpu import malloc, tensorstore_leak
from mtpret_jax.runtime import checksums, distributed

log = logging.getLogger(__name__)

# Orbax logs a write that fails three times, with its traceback; `collect` hands it on to be told once.
logging.getLogger('absl').addFilter(lambda record: '_SignalingThread' not in str(record.msg))
tensorstore_leak.stop_leaks()


class Damaged(ConfigError):
  """There are checkpoints, but none is what was saved."""


class SaveFailed(RuntimeError):
  """A checkpoint could not be written, after all retries."""


@dataclasses.dataclass
class Checkpoints:
  """Attributes:
    folder: they lie in, absolute.
    keep: the newest so many are kept; None keeps all.
    retries: of a save that failed.
    latest: the newest step that is saved and whole, or None.
    saving: (step, future) of the save under way, or None.
    pool: its one thread waits for Orbax's commit and writes the manifest.
  """

  folder: pathlib.Path
  keep: int | None
  retries: int
  latest: int | None
  saving: tuple | None = None
  pool: futures.Executor = dataclasses.field(default_factory=lambda: futures.ThreadPoolExecutor(1, 'checkpoint'))


@contextlib.contextmanager
def open_checkpoints(workdir, keep, folder='checkpoints', retries=0):
  """The run's checkpoints. Leaving waits for the last save; its failure is raised, unless another error is.

  Raises Damaged where there are checkpoints, but none is whole, and ConfigError where the folder cannot be made."""
  folder = pathlib.Path(workdir, folder).absolute()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ConfigError(f'{folder} is no folder and cannot be made one ({error.strerror}): remove what is there, put '
                      f'back what the run wrote, or give another --config.workdir') from error
  if jax.process_index() == 0:
    remove_interrupted(folder)
  checkpoints = Checkpoints(folder, keep, retries, distributed.run_on_first(lambda: find_latest(folder)))
  try:
    yield checkpoints
  except BaseException:
    if error := wait_for_save(checkpoints, agree=False):  # others may not be here, or not any more
      log.error('the last save failed, too: %s', error)
    raise
  else:
    if error := wait_for_save(checkpoints):
      raise SaveFailed(describe_failure(checkpoints, error))
  finally:
    checkpoints.pool.shutdown()


def remove_interrupted(folder):
  """Removes what is left of saves and deletions that were interrupted: nothing of it is a checkpoint."""
  for debris in folder.glob('*.orbax-checkpoint-tmp*'):
    shutil.rmtree(debris, ignore_errors=True)
  for mark in folder.glob('*.incomplete'):
    if not mark.stem.isdecimal() or not mark.is_file():  # none of ours
      continue
    if checksums.manifest_path(folder / mark.stem).exists():  # whole: the mark was not yet taken away, or just set
      mark.unlink()
    else:
      delete_step(folder, int(mark.stem))


def list_steps(folder):
  """The steps that have a folder, the newest first."""
  return sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()), reverse=True)


def find_latest(folder):
  """The newest step whose files are those that were saved, or None where nothing was saved. What is damaged is told and
  passed by; raises Damaged where nothing else is there."""
  told, latest = [], None
  for step in list_steps(folder):
    if (folder / f'{step}.incomplete').exists() and not checksums.manifest_path(folder / str(step)).exists():
      continue  # never was a checkpoint
    damage = checksums.find_damage(folder / str(step))
    if not damage:
      latest = step
      break
    told.append(f'the checkpoint of step {step} is damaged: {damage}')
  if told and latest is None:
    raise Damaged(f'no checkpoint in {folder} is whole ({"; ".join(told)}): put back what was saved, or start anew '
                  f'with another --config.workdir; for files that are known to be good, python -m '
                  f'mtpret_jax.runtime.checksums <folder of the step> writes a new manifest')
  if told:
    log.warning('%s, in %s. The one of step %d is used.', '; '.join(told), folder, latest)
  return latest


def save(checkpoints, state, step, run, wait=False):
  """Begins to save `state`, which is at `step`; `run` is what is kept beside it, the fingerprint of the run. With
  `wait` returns once it is saved.

  Where this save (with `wait`), or the one before, failed, the state of now is saved while everything waits,
  `retries` times, after 1, 5, 25, ... seconds. Raises SaveFailed after that.
  """
  error = wait_for_save(checkpoints)
  if checkpoints.latest == step:
    return
  if error is None:
    start_save(checkpoints, state, step, run)
    error = wait_for_save(checkpoints) if wait else None
  for attempt in range(checkpoints.retries):
    if error is None:
      return
    log.warning('%s Trying again in %d s, %d of %d.', describe_failure(checkpoints, error), 5 ** attempt, attempt + 1,
                checkpoints.retries)
    time.sleep(5 ** attempt)
    start_save(checkpoints, state, step, run)
    error = wait_for_save(checkpoints)
  if error is not None:
    raise SaveFailed(describe_failure(checkpoints, error))


def start_save(checkpoints, state, step, run):
  folder = checkpoints.folder / str(step)
  try:
    if jax.process_index() == 0:
      delete_step(checkpoints.folder, step, keep_mark=True)  # one that was damaged
    response = ocp.save_checkpointables_async(folder, {'state': state}, overwrite=True, custom_metadata=run)
    future = checkpoints.pool.submit(finish_save, response, folder, checkpoints.keep, jax.process_index())
  except Exception as error:  # whatever the disk and Orbax make of it
    future = futures.Future()
    future.set_exception(error)
  checkpoints.saving = step, future


def finish_save(response, folder, keep, process):
  """Waits for the commit, writes the manifest, and only then deletes what is not kept. The memory that was freed since
  the last save goes back to the kernel."""
  response.result()
  if process == 0:
    checksums.write_manifest(folder)
    (folder.parent / f'{folder.name}.incomplete').unlink(missing_ok=True)
    if keep is not None:
      delete_old(folder.parent, int(folder.name), keep)
  malloc.give_back()


def delete_old(folder, newest, keep):
  """Deletes all but the `keep` newest checkpoints; those after `newest` are damaged ones that it replaces."""
  steps = list_steps(folder)
  kept = [step for step in steps if step <= newest and checksums.manifest_path(folder / str(step)).exists()][:keep]
  for step in steps:
    if step not in kept:
      try:
        delete_step(folder, step)
      except OSError as error:  # the new one is whole all the same
        log.warning('the checkpoint of step %d in %s could not be deleted: %s', step, folder, error)


def delete_step(folder, step, keep_mark=False):
  """Deletes a step. The mark comes first: a deletion that is interrupted is seen as one, not as damage."""
  mark = folder / f'{step}.incomplete'
  mark.touch()
  checksums.manifest_path(folder / str(step)).unlink(missing_ok=True)
  for path in list(folder.iterdir()):  # no glob: Python keeps every pattern
    if path.name == str(step) or path.name.startswith(f'{step}.orbax-checkpoint-tmp'):
      shutil.rmtree(path)
  if not keep_mark:
    mark.unlink()


def wait_for_save(checkpoints, agree=True):
  """Waits for the save under way. Returns its error, or None; on several processes that of any of them, if they `agree`
  by calling this all."""
  if checkpoints.saving is None:
    return None
  (step, future), checkpoints.saving = checkpoints.saving, None
  error = future.exception()
  if agree:
    try:
      distributed.run_on_all(future.result, (Exception,))
    except Exception as told:  # another process's
      error = error or told
  if error is None:
    checkpoints.latest = step
  elif jax.process_index() == 0:
    with contextlib.suppress(OSError):
      delete_step(checkpoints.folder, step)  # half of it takes room that the next attempt needs
  return error


def save_has_failed(checkpoints):
  """Whether the save under way has ended in an error, without waiting. Several processes may not learn it at the same
  step, so they learn it at the next save."""
  return (checkpoints.saving is not None and not distributed.is_multiprocess() and checkpoints.saving[1].done()
          and checkpoints.saving[1].exception() is not None)


def describe_failure(checkpoints, error):
  return (f'A checkpoint could not be saved ({" ".join(str(error).split()) or type(error).__name__}). The last good '
          f'one is {describe_latest(checkpoints)}.')


def restore(checkpoints, state, run):
  """The newest saved state, placed as `state` is, or `state` itself where nothing was saved. Raises ConfigError where
  the saved run has another fingerprint."""
  if checkpoints.latest is None:
    return state
  folder = checkpoints.folder / str(checkpoints.latest)
  saved = read_metadata(checkpoints)
  differing = [f'{field}: {saved.get(field)!r} there, {run.get(field)!r} here'
               for field in sorted(saved | run) if saved.get(field) != run.get(field)]
  if differing:
    raise ConfigError(
      f'the checkpoint of step {checkpoints.latest} in {checkpoints.folder} is of another run '
      f'({"; ".join(differing)}): give the config that it has, or start anew with another --config.workdir')
  like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
  with explain_errors(folder):
    return ocp.load_checkpointables(folder, {'state': like})['state']


def read_state(workdir, folder='checkpoints'):
  """(dict of the saved TrainState's fields as numpy arrays, metadata) of the newest whole checkpoint of a run, whatever
  its shape. Writes nothing: the run may be going on. Raises FileNotFoundError where there is none, and Damaged."""
  path = pathlib.Path(workdir, folder).absolute()
  if not path.is_dir():
    raise FileNotFoundError(f'no run in {workdir}: {path} is not there')
  latest = find_latest(path)
  if latest is None:
    raise FileNotFoundError(f'{path} holds no checkpoint')
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with explain_errors(path / str(latest)):
    saved = ocp.checkpointables_metadata(path / str(latest))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
                        saved.metadata['state'])
    state = ocp.load_checkpointables(path / str(latest), {'state': like})['state']
  return restore_list_indices(jax.device_get(state)), saved.custom_metadata or {}


@contextlib.contextmanager
def explain_errors(folder):
  """Whatever Orbax makes of a folder with a manifest that no run has saved is Damaged."""
  try:
    yield
  except Exception as error:
    raise Damaged(f'{folder} is whole by its manifest, but no checkpoint of a run ({type(error).__name__}): put back '
                  f'what was saved, or name another run') from error


def read_fingerprint(workdir):
  """What was saved beside the newest whole state of a run. Raises FileNotFoundError and Damaged as `read_state`."""
  path = pathlib.Path(workdir, 'checkpoints').absolute()
  latest = find_latest(path) if path.is_dir() else None
  if latest is None:
    raise FileNotFoundError(f'{path} holds no checkpoint')
  return read_folder_metadata(path / str(latest))


def restore_list_indices(tree):
  """The places in lists, which Orbax gives back as text, as numbers: a state with other keys is compiled anew."""
  if not isinstance(tree, dict):
    return tree
  return {int(key) if key.isdecimal() else key: restore_list_indices(branch) for key, branch in tree.items()}


def read_metadata(checkpoints):
  """What was saved beside the newest state, or None."""
  if checkpoints.latest is None:
    return None
  return read_folder_metadata(checkpoints.folder / str(checkpoints.latest))


def read_folder_metadata(folder):
  with explain_errors(folder):
    return ocp.checkpointables_metadata(folder).custom_metadata or {}


def describe_latest(checkpoints):
  """Where the newest checkpoint lies, in words."""
  wait_for_save(checkpoints)
  if checkpoints.latest is None:
    return 'none was saved yet'
  return f'step {checkpoints.latest} in {checkpoints.folder / str(checkpoints.latest)}'
