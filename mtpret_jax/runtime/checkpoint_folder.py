"""Which steps a checkpoint folder holds, which of them are intact, and how they are deleted. No Orbax here.

    checkpoints/400/             what Orbax wrote
    checkpoints/400.sha256       the checksums, written after the save is committed; without them a step does not count
    checkpoints/400.incomplete   a save or deletion is in progress; the next start removes what is left of it

A deletion first sets the `.incomplete` mark: if it is interrupted it is recognised as a deletion, not as damage.
"""

import contextlib
import logging
import pathlib
import shutil

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import checksums

log = logging.getLogger(__name__)


class Damaged(ConfigError):
  """Every checkpoint failed verification."""


def list_steps(folder: pathlib.Path) -> list[int]:
  """The steps that have a folder, newest first."""
  return sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()), reverse=True)


def incomplete_mark(folder: pathlib.Path, step: int | str) -> pathlib.Path:
  return folder / f'{step}.incomplete'


def is_committed(folder: pathlib.Path, step: int | str) -> bool:
  """Whether the save of a step got as far as its checksums. This does not verify them."""
  return checksums.manifest_path(folder / str(step)).exists()


def find_latest(folder: pathlib.Path) -> int | None:
  """The newest step whose checksums are right; None if nothing was saved.

  Damaged steps are skipped with a warning. If all steps are damaged this raises Damaged, because starting from
  scratch would overwrite what might still be rescued.
  """
  damaged, latest = [], None
  for step in list_steps(folder):
    if incomplete_mark(folder, step).exists() and not is_committed(folder, step):
      continue  # an interrupted save or deletion
    damage = checksums.find_damage(folder / str(step))
    if not damage:
      latest = step
      break
    damaged.append(f'the checkpoint of step {step} is damaged: {damage}')
  if damaged and latest is None:
    raise Damaged(f'no checkpoint in {folder} is intact ({"; ".join(damaged)}): restore the files from a backup, start '
                  f'a new run with another --config.workdir, or, if you know that the files are good, write new '
                  f'checksums with python -m mtpret_jax.runtime.checksums <folder of the step>')
  if damaged:
    log.warning('%s, in %s. Using step %d instead.', '; '.join(damaged), folder, latest)
  return latest


def remove_interrupted(folder: pathlib.Path) -> None:
  """Deletes what interrupted saves and deletions left behind."""
  for path in folder.glob('*.orbax-checkpoint-tmp*'):
    shutil.rmtree(path, ignore_errors=True)
  for mark in folder.glob('*.incomplete'):
    if not mark.stem.isdecimal() or not mark.is_file():  # not written by us
      continue
    if is_committed(folder, mark.stem):  # interrupted just before the mark was removed, or just after it was set
      mark.unlink()
    else:
      delete_step(folder, int(mark.stem))


def delete_old(folder: pathlib.Path, newest: int, keep: int) -> None:
  """Deletes all but the `keep` newest committed checkpoints up to `newest`. Steps after `newest` are damaged, because
  the run resumed from an earlier step."""
  steps = list_steps(folder)
  kept = [step for step in steps if step <= newest and is_committed(folder, step)][:keep]
  for step in steps:
    if step not in kept:
      try:
        delete_step(folder, step)
      except FileNotFoundError:  # another process removes it
        continue
      except OSError as error:  # the new checkpoint is good all the same
        log.warning('the checkpoint of step %d in %s could not be deleted: %s', step, folder, error)


def announce_kept(keep: int, keep_finished: int) -> None:
  """Says before a run that `delete_finished` will delete a part of its history. One more than what stays is no history,
  but there in case the newest is damaged."""
  if keep > keep_finished + 1:
    log.info('when the run is finished, its newest checkpoints stay: %d of %d (--config.keep_finished=%d keeps all)',
             keep_finished, keep, keep)


def delete_finished(workdir: str | pathlib.Path, keep: int) -> None:
  """Deletes all but the `keep` newest checkpoints of a run that is finished. The newest one is what later stages,
  evaluation and an extended run start from."""
  folder = pathlib.Path(workdir, 'checkpoints').absolute()
  with contextlib.suppress(FileNotFoundError):  # there is none, or another process removes it
    latest = find_latest(folder)
    if latest is not None:
      delete_old(folder, latest, keep)


def delete_step(folder: pathlib.Path, step: int, keep_mark: bool = False) -> None:
  """Deletes a step; with `keep_mark` the mark stays, for a save of the same step that follows."""
  mark = incomplete_mark(folder, step)
  mark.touch()
  checksums.manifest_path(folder / str(step)).unlink(missing_ok=True)
  for path in list(folder.iterdir()):  # no glob: Python caches every pattern, and there is one for each step
    if path.name == str(step) or path.name.startswith(f'{step}.orbax-checkpoint-tmp'):
      shutil.rmtree(path)
  if not keep_mark:
    mark.unlink()
