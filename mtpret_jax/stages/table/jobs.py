"""The runs of the table in the order in which they run, and whether those that are finished belong to it."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.evaluation import test_scores
from mtpret_jax.report.words import say_count
from mtpret_jax.stages.table.cells import Cell


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
                      f'not finished with this config, such as {run} from {start}: move them away, and the same '
                      f'command makes them again, or give another --config.workdir')


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
