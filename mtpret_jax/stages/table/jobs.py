"""The runs of the table in the order in which they run, and whether those that are finished belong to it."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.evaluation import test_scores
from mtpret_jax.report.words import say_count
from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.runtime.checkpoint_folder import is_committed, list_steps
from mtpret_jax.runtime.checksums import manifest_path
from mtpret_jax.stages.table.cells import Cell

START = 'started_from.txt'  # in the workdir of a run: the digest of the checkpoint that it started from
MOVE_AWAY = 'move them away, and the same command makes them again, or give another --config.workdir'


@dataclasses.dataclass(frozen=True)
class Job:
  """One run: of stage 1, stage 2, or a cell. `needs`: the names of the runs that must be finished first."""

  title: str
  config: ConfigDict
  needs: tuple[str, ...]
  is_cell: bool


def make_jobs(cells: Sequence[Cell], pretraining: Mapping[str, ConfigDict]) -> dict[str, Job]:
  """{name: job}, in the order in which they run: a pretraining run comes right before the first cell that needs it."""
  jobs: dict[str, Job] = {}
  for number, cell in enumerate(cells, 1):
    for index, name in enumerate(cell.needs):
      jobs.setdefault(name, Job(f'pretraining {name}', pretraining[name], cell.needs[:index], False))
    jobs[cell.config.workdir] = Job(f'cell {number} of {len(cells)}: {cell.name}', cell.config, cell.needs, True)
  return jobs


def check_finished(jobs: Mapping[str, Job]) -> None:
  """Raises ConfigError if this config would mix runs that do not belong together, or lose results.

  A cell whose checkpoints are gone would be trained again if its config changed, and its scores would be overwritten.
  A run that started from a pretraining run which is not there any more, or is to be made again or extended, does not
  belong to what the table says.
  """
  changed = [job.config for job in jobs.values() if is_lost_if_run(job)]
  if changed:
    differing = [f'{field} was {show(before)} and is {show(now)}'
                 for field, (before, now) in test_scores.find_changes(changed[0]).items()]
    raise ConfigError(f'{say_count(len(changed), "cell")} finished with another config would be trained again, such as '
                      f'{changed[0].workdir} ({", ".join(differing[:3])}{" ..." * (len(differing) > 3)}): use that '
                      f'config, give another --config.workdir, or move them away')
  finished = {name for name, job in jobs.items() if test_scores.is_finished(job.config)}
  stale = [(jobs[name].config.workdir, jobs[need].config.workdir) for name in finished for need in jobs[name].needs
           # Looked at again: another process may have finished both since.
           if need not in finished and not test_scores.is_finished(jobs[need].config)]
  if stale:
    run, start = min(stale)
    raise ConfigError(f'{say_count(len({run for run, _ in stale}), "finished run")} started from pretraining that is '
                      f'not finished with this config, such as {run} from {start}: {MOVE_AWAY}')
  older = [(job.config.workdir, jobs[job.needs[-1]].config.workdir) for name, job in jobs.items()
           if name in finished and job.needs and has_older_start(job, jobs)]
  if older:
    run, start = older[0]
    raise ConfigError(f'{say_count(len(older), "finished run")} started from pretraining that was trained again or '
                      f'extended since, such as {run} from {start}: {MOVE_AWAY}')


def record_start(job: Job, jobs: Mapping[str, Job]) -> None:
  """Writes from which checkpoint a run starts, before it does. A run that resumes keeps what it started from."""
  folder = pathlib.Path(job.config.workdir)
  if job.needs and not ((folder / START).exists() and (folder / 'checkpoints').exists()):
    write_atomically(folder / START, find_digest(jobs[job.needs[-1]].config.workdir))


def has_older_start(job: Job, jobs: Mapping[str, Job]) -> bool:
  """Whether the pretraining of a run has another checkpoint now. False where one of the two is not known: the run is of
  an earlier version, or the checkpoint was deleted."""
  path = pathlib.Path(job.config.workdir, START)
  digest = find_digest(jobs[job.needs[-1]].config.workdir)
  return bool(digest) and path.is_file() and path.read_text(encoding='utf-8') not in ('', digest)


def find_digest(workdir: str) -> str:
  """SHA-256 of the checksums of the newest checkpoint of a run; '' where there is none."""
  folder = pathlib.Path(workdir, 'checkpoints')
  steps = [step for step in list_steps(folder) if is_committed(folder, step)] if folder.is_dir() else []
  return hashlib.sha256(manifest_path(folder / str(steps[0])).read_bytes()).hexdigest() if steps else ''


def is_lost_if_run(job: Job) -> bool:
  """Whether a cell is finished with another config, and has no checkpoint from which it could go on."""
  if not job.is_cell or not test_scores.has_results(job.config):
    return False
  if pathlib.Path(job.config.workdir, 'checkpoints').is_dir():
    return False
  try:
    return bool(test_scores.find_changes(job.config))
  except ConfigError:  # its config.json is damaged, so nobody knows what the scores are of
    return False
