"""Runs the table: all pretraining runs and cells that are not finished, each under the lock of its own workdir.

Several processes, on one machine or many, may run the same command in the same workdir. Each takes the first run whose
pretraining is finished and whose lock is free. The kernel releases the lock of a process that is killed, and the next
process resumes its run.
"""

import contextlib
import datetime
import functools
import gc
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from mtpret_jax.evaluation import test_scores, validation
from mtpret_jax.runtime import distributed, loss_guard, preemption, prepare_data, workdir_lock
from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.stages.table import counts
from mtpret_jax.stages.table.cells import Cell, Labels, copy_stage, make_cells, make_pretraining, resolve
from mtpret_jax.stages.table.jobs import Job, check_finished, is_lost_if_run, make_jobs, record_start
from tfds_builders.common import locks

log = logging.getLogger(__name__)

FAILED = 'failed.txt'  # in the workdir of a run that failed: when and why
POLL = 2.0  # s between two checks of what other processes have finished
# Bytes that memory may grow by before compiled steps are dropped. Each run compiles its own, and jax keeps them. After
# each run would be too often: small functions that all runs share would be compiled again.
MAX_GROWTH = 2 * 10**9
FAILURES = (*prepare_data.USER_ERRORS, loss_guard.Diverged)  # of one run; the others can go on


class CellsFailed(RuntimeError):
  """Some runs of the table failed, and the cells that need them could not run."""


def run(config: ConfigDict, train_stage: Callable[[ConfigDict], None],
        finish: Callable[[ConfigDict, list[Cell]], None]) -> None:
  """Runs all cells, then the report.

  Args:
    train_stage: trains and scores one stage, whose data is prepared and whose lock is held.
    finish: writes the report of the cells that are finished.

  Raises:
    CellsFailed: a run failed; the others are finished and reported.
  """
  config = resolve(config)
  prepare(config)
  too_few = {(task, fraction) for task, fraction in distributed.run_on_first(lambda: list_too_few(config))}
  cells = make_cells(config, too_few)
  jobs = make_jobs(cells, make_pretraining(config, too_few))
  distributed.run_on_first(lambda: check_finished(jobs), prepare_data.USER_ERRORS)
  queue = Queue(jobs, config.keep_checkpoints)
  run_jobs(queue, train_stage)
  with preemption.interruptible():
    distributed.run_on_first(lambda: finish(config, cells))
  if queue.failed:
    raise CellsFailed(queue.describe_failures())


def prepare(config: ConfigDict) -> None:
  """Prepares and checks the data of all runs. One process does, and the others wait for it."""
  with contextlib.ExitStack() as stack:
    distributed.run_on_first(lambda: stack.enter_context(workdir_lock.lock(config.data.dir, wait=True)))
    stages = list_prepared(config)
    for stage in stages:
      distributed.run_on_all(functools.partial(prepare_data.choose_datasets, stage), prepare_data.USER_ERRORS)
    distributed.run_on_first(lambda: prepare_data.check_archives(stages), prepare_data.USER_ERRORS)
    for stage in stages:
      prepare_data.prepare_data(stage)


def list_prepared(config: ConfigDict) -> list[ConfigDict]:
  """A config for each set of data that the table uses, with all labels."""
  stages = {}
  for stage in (*make_pretraining(config).values(), *(config.stages.finetune[task] for task in config.tasks)):
    key = stage.objective, *(stage.data.datasets if stage.objective == 'moco' else stage.tasks)
    stages[key] = copy_stage(stage)
    if stage.objective == 'multitask':
      stages[key].data.fraction = 1.0
  return list(stages.values())


def list_too_few(config: ConfigDict) -> list[Labels]:
  """The shares of labels that have no cell, each with a line in the log."""
  reasons = counts.find_too_few(counts.count_kept(config), config.min_images)
  for line in counts.describe_left_out(config, reasons):
    log.info(line)
  return list(reasons)


class Queue:
  """What is left to do. Only the first of several processes of one run uses it."""

  def __init__(self, jobs: Mapping[str, Job], keep_checkpoints: bool) -> None:
    self.jobs, self.keep_checkpoints = jobs, keep_checkpoints
    self.done: set[str] = set()
    self.failed: dict[str, str] = {}  # name -> why
    self.held: dict[str, str] = {}  # name -> who runs it, as `take` found last
    # Failures of earlier commands: these runs are tried again.
    self.stale = {name: text for name, job in jobs.items() if (text := read_failure(job))}

  def take(self, stack: contextlib.ExitStack) -> str | None:
    """The name of a run to start; `stack` then holds its lock. '' if every unfinished run is locked by another process
    or needs one that is; None if all have ended."""
    is_left = False
    self.held.clear()
    for name, job in self.jobs.items():
      if name in self.done or name in self.failed or self.has_ended(name, job):
        continue
      is_left = True
      if self.done.issuperset(job.needs) and self.lock(name, job, stack):
        return name
    return '' if is_left else None

  def has_ended(self, name: str, job: Job) -> bool:
    """Whether a run is finished or has failed, here or in another process."""
    if test_scores.is_finished(job.config):
      self.done.add(name)
      self.drop_leftovers(job)
      return True
    lost = next((need for need in job.needs if need in self.failed), None)
    if lost is not None:
      self.failed[name] = f'needs {self.jobs[lost].title}, which failed'
    elif (failure := read_failure(job)) and failure != self.stale.get(name):
      self.failed[name] = failure
    return name in self.failed

  def lock(self, name: str, job: Job, stack: contextlib.ExitStack) -> bool:
    """Whether `stack` now holds the lock of an unfinished run."""
    with contextlib.ExitStack() as own:
      try:
        own.enter_context(workdir_lock.lock(job.config.workdir))
      except workdir_lock.InUse:
        self.held[name] = locks.describe_holder(pathlib.Path(job.config.workdir, workdir_lock.FILE))
        return False
      if self.has_ended(name, job):  # since it was looked at
        return False
      if is_lost_if_run(job):
        self.failed[name] = ('another process has finished it with another config since this one started: give them '
                             'the same flags and the same version')
        return False
      pathlib.Path(job.config.workdir, FAILED).unlink(missing_ok=True)
      stack.push(own.pop_all())
    return True

  def finish(self, name: str, failure: str) -> None:
    """Records that a run has ended, while its lock is held."""
    job = self.jobs[name]
    if failure:
      self.failed[name] = failure
      log.error('%s failed: %s', job.title, failure)
      now = datetime.datetime.now().isoformat(timespec='seconds')
      write_atomically(pathlib.Path(job.config.workdir, FAILED), f'{now}: {failure}\n')
      return
    self.done.add(name)
    log.info('finished %s', job.title)
    self.drop_checkpoints(job)

  def drop_checkpoints(self, job: Job) -> None:
    """Deletes the checkpoints of a finished cell. Its scores and predictions stay."""
    if job.is_cell and not self.keep_checkpoints:
      for folder in list_checkpoint_folders(job):
        shutil.rmtree(folder, ignore_errors=True)

  def drop_leftovers(self, job: Job) -> None:
    """Deletes the checkpoints of a cell that another process finished, if that was killed before it did. While it holds
    the lock, it still writes its report, and the checkpoints are its own."""
    if any(folder.exists() for folder in list_checkpoint_folders(job)):
      with contextlib.suppress(workdir_lock.InUse), workdir_lock.lock(job.config.workdir):
        self.drop_checkpoints(job)

  def describe_failures(self) -> str:
    lines = [f'{self.jobs[name].title}: {" ".join(why.split())}' for name, why in self.failed.items()]
    return '\n'.join([f'{len(lines)} of {len(self.jobs)} runs failed; the same command tries them again:', *lines])

  def describe_held(self) -> str:
    """What other processes run, and which ones."""
    return '; '.join(f'{self.jobs[name].title} ({holder})' for name, holder in self.held.items())

  def count_cells(self) -> int:
    """How many cells have ended."""
    return sum(job.is_cell for name, job in self.jobs.items() if name in self.done or name in self.failed)


def list_checkpoint_folders(job: Job) -> list[pathlib.Path]:
  return [pathlib.Path(job.config.workdir, folder) for folder in ('checkpoints', validation.BEST)]


def read_failure(job: Job) -> str:
  """Why a run failed; '' if it has not."""
  path = pathlib.Path(job.config.workdir, FAILED)
  try:
    return path.read_text(encoding='utf-8')
  except FileNotFoundError:
    return ''


def run_jobs(queue: Queue, train_stage: Callable[[ConfigDict], None]) -> None:
  """Runs what is left until nothing is, and waits for what other processes run."""
  awaited, memory = '', 0
  total = sum(job.is_cell for job in queue.jobs.values())
  with tqdm(total=total, desc='table', unit='cell', dynamic_ncols=True, mininterval=0.5, disable=None) as bar:
    while True:
      with contextlib.ExitStack() as stack:
        name = distributed.run_on_first(functools.partial(queue.take, stack), prepare_data.USER_ERRORS)
        bar.update(queue.count_cells() - bar.n)
        if name is None:
          return
        if name:
          bar.set_postfix_str(queue.jobs[name].title)  # the bar counts cells, and stands still during pretraining
          run_job(queue, name, train_stage)
          awaited, memory = '', limit_memory(memory)
          continue
      if queue.held and queue.describe_held() != awaited:
        awaited = queue.describe_held()
        log.info('nothing else can run now: waiting for %s', awaited)
        bar.set_postfix_str('waiting for other processes')
      time.sleep(POLL)


def limit_memory(before: int) -> int:
  """Drops compiled steps if memory has grown much since it was `before` bytes (0: not known). Returns what it is to be
  compared with from now on."""
  now = read_memory()
  if not before or now - before < MAX_GROWTH:
    return before or now
  jax.clear_caches()
  gc.collect()
  return max(before, read_memory())  # what the allocator keeps is no reason to drop the steps after each run


def read_memory() -> int:
  """The resident memory of this process in bytes; 0 where the system does not say."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  except (OSError, ValueError):
    return 0
  return pages * os.sysconf('SC_PAGE_SIZE')


def run_job(queue: Queue, name: str, train_stage: Callable[[ConfigDict], None]) -> None:
  """Runs one job, whose lock is held."""
  job, failure = queue.jobs[name], ''
  log.info('%s', job.title)
  try:
    prepare_data.choose_datasets(job.config)
    distributed.run_on_first(lambda: record_start(job, queue.jobs))
    train_stage(job.config)
  except FAILURES as error:
    failure = str(error) or type(error).__name__
  distributed.run_on_first(lambda: queue.finish(name, failure))
