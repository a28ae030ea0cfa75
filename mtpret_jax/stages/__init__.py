"""What each kind of config does, from the checks before a run to the report after it.

    config -> check_run -> prepare data -> make_run (objective, batches, schedule) -> train -> report

A config is a stage (objective 'moco' for stage 1, 'multitask' for stages 2 and 3), an evaluation of an earlier run,
a recipe, which is several stages one after another, or a table, which is many runs of stage 3 and their pretraining
(`table/`). `checks.py` finds the mistakes in a config of any kind.
"""

import contextlib
import functools
import logging
import pathlib
from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, name_stage
from mtpret_jax.config.validate import check_length, check_objective
from mtpret_jax.data import pipeline, task_schedule
from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation import test_scores, training_probe, validation
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.objectives.multitask import make_multitask
from mtpret_jax.report import costs, dry_run, multitask, pretrain, recipe
from mtpret_jax.report import table as report_table
from mtpret_jax.report.crops import describe_crops
from mtpret_jax.report.examples import draw_picture
from mtpret_jax.report.next_command import suggest_next
from mtpret_jax.report.schedule import describe_schedule
from mtpret_jax.report.views import draw_views
from mtpret_jax.runtime import distributed, image_counts, own_task, preemption, prepare_data, workdir_lock
from mtpret_jax.runtime.checkpoint_folder import announce_kept, delete_finished
from mtpret_jax.runtime.events import open_events
from mtpret_jax.runtime.logging import list_libraries
from mtpret_jax.stages.checks import check_run
from mtpret_jax.stages.table import run as table_run
from mtpret_jax.stages.table.plan import describe_table
from mtpret_jax.step import TrainState, make_schedule, make_visit_schedule
from mtpret_jax.tasks.dataset import make_reader, open_tasks
from mtpret_jax.tasks.fitted import fit_task
from mtpret_jax.tasks.imbalance import group_by_class, weigh_loss
from mtpret_jax.train import Run, train

log = logging.getLogger(__name__)


def run(config: ConfigDict) -> None:
  """Runs a config of any kind."""
  check_objective(config)
  plain = distributed.run_on_all(functools.partial(own_task.resolve, config), prepare_data.USER_ERRORS)
  with own_task.name_sections(config, plain):
    RUNNERS[plain.objective](plain)
  distributed.run_on_first(lambda: print_next(plain))


def print_next(config: ConfigDict) -> None:
  if command := suggest_next(config):
    print(f'Next: {command}')


def run_stage(config: ConfigDict) -> None:
  """Prepares the data of one stage, trains and reports."""
  check_on_all(config)
  with contextlib.ExitStack() as stack:
    distributed.run_on_first(lambda: stack.enter_context(workdir_lock.lock(config.workdir)))
    prepare_data.prepare_data(config)
    train_and_report(config)


def check_on_all(config: ConfigDict) -> None:
  """Checks the config on every process, and that all have the same config, libraries and workdir."""
  distributed.run_on_all(lambda: check_run(config), prepare_data.USER_ERRORS)
  distributed.check_same(flatten(config.to_dict()) | list_libraries())
  distributed.check_shared_folder(config.workdir, 'workdir')


def train_and_report(config: ConfigDict) -> None:
  """Trains a stage whose data is prepared and whose workdir is locked, and reports."""
  with open_events(config.workdir) if jax.process_index() == 0 else contextlib.nullcontext():
    announce_kept(config.keep, config.keep_finished)
    state = train_stage(config, config.workdir)
    with preemption.interruptible():
      if config.objective == 'moco':
        pretrain.finish(state, config)
      else:
        multitask.finish(config)
  distributed.run_on_first(lambda: delete_finished(config.workdir, config.keep_finished))


def run_evaluation(config: ConfigDict) -> None:
  """Rescores the checkpoints of an earlier run."""
  check_run(config)
  multitask.evaluate_run(config)


def run_recipe(config: ConfigDict) -> None:
  """Runs the stages in the order of the config. Stages that finished with the same config are skipped."""
  check_on_all(config)
  with contextlib.ExitStack() as stack:
    # Before any data is prepared: a second process with the same command would delete what this one is writing.
    distributed.run_on_first(lambda: stack.enter_context(workdir_lock.lock(config.workdir)))
    run_stages(config)


def run_table(config: ConfigDict) -> None:
  """Runs the cells of the papers' table, except those that are finished."""
  check_on_all(config)
  table_run.run(config, train_and_report, report_table.finish)


def run_stages(config: ConfigDict) -> None:
  """Prepares the data of all stages of a recipe, then trains one stage after the other and collects the scores."""
  distributed.run_on_first(lambda: check_extended(config))
  prepare_stages(config)
  for name, stage in config.stages.items():
    # Decided once: file systems may show a new file to one host later than to another.
    if distributed.run_on_first(functools.partial(test_scores.is_finished, stage)):
      log.info('stage %s is already finished; its results are in %s', name, stage.workdir)
    else:
      log.info('starting stage %s', name)
      try:
        run_stage(stage)
      except ConfigError as error:
        raise name_stage(name, error) from error
  distributed.run_on_first(lambda: recipe.finish(config))


def check_extended(config: ConfigDict) -> None:
  """Raises ConfigError if a stage is to be extended from which a later one has already started: that one would not be
  trained again, and its scores would belong to another trunk than the recipe says."""
  changed = {stage.workdir: name for name, stage in config.stages.items()
             if stage.extend and not test_scores.is_finished(stage)}  # workdir -> the stage that is extended
  for name, stage in config.stages.items():
    if stage.init_from in changed:
      changed[stage.workdir] = changed[stage.init_from]
      if pathlib.Path(stage.workdir, saved.FILE).exists():
        raise ConfigError(f'stage {name} has already started from the trunk of stage {changed[stage.workdir]}, which '
                          f'is to be extended: move {stage.workdir} away, and the recipe trains it again')


def prepare_stages(config: ConfigDict) -> None:
  """Prepares and checks the data of all stages that are not finished, before the first of them trains for days."""
  left = {name: stage.copy_and_resolve_references() for name, stage in config.stages.items()
          if not distributed.run_on_first(functools.partial(test_scores.is_finished, stage))}
  for stage in left.values():
    distributed.run_on_all(functools.partial(prepare_data.choose_datasets, stage), prepare_data.USER_ERRORS)
  distributed.run_on_first(lambda: prepare_data.check_archives(left.values()), prepare_data.USER_ERRORS)
  for name, stage in left.items():
    try:
      prepare_data.prepare_data(stage)
    except prepare_data.USER_ERRORS as error:
      raise name_stage(name, error) from error


def print_plan(config: ConfigDict, images_per_second: float | None = None) -> None:
  """What a run would do (`--dry_run`): checks the config, counts the images in the archives, and prints the schedule
  and the cost of each stage. Prepares and trains nothing. With None, the speed is that of an earlier run in the
  workdir."""
  if config.objective == 'evaluate':
    raise ConfigError('--dry_run is for a config that trains: leave it out')
  plain = own_task.resolve(config)
  with own_task.name_sections(config, plain):
    print_stages(plain, images_per_second)


def print_stages(config: ConfigDict, images_per_second: float | None = None) -> None:
  """`print_plan` of a plain config."""
  check_run(config)
  if config.objective == 'table':
    if images_per_second:
      raise ConfigError('a table has a speed for each stage: set --config.images_per_second.pretrain, .continual and '
                        '.finetune in place of --images_per_second')
    print('\n'.join(describe_table(config)), flush=True)
    return
  is_recipe = config.objective == 'recipe'
  stages = dict(config.stages.items()) if is_recipe else {config.name: config}
  for stage in stages.values():
    prepare_data.choose_datasets(stage)
  prepare_data.check_archives(stages.values())
  prepare_data.check_unchanged(stage for stage in stages.values() if not test_scores.is_finished(stage))
  for name, stage in stages.items():
    try:
      images = image_counts.count_images(stage)
      steps = count_steps(stage, {task: own.splits['train'] for task, own in images.items() if own.splits is not None})
      print('\n'.join(dry_run.describe_stage(name, stage, images)), flush=True)
      lines = dry_run.describe_cost(stage, costs.measure(stage), steps, images, images_per_second)
      print('\n'.join(f'  {line}' for line in lines), flush=True)
    except prepare_data.USER_ERRORS as error:
      if is_recipe:
        raise name_stage(name, error) from error
      raise


def count_steps(stage: ConfigDict, training: Mapping[str, int]) -> dict[str, int]:
  """{task: how many steps the stage takes on it}; {} if that is not known yet. `training`: the training images of the
  tasks, as far as they are known. Raises ConfigError if that makes too many steps."""
  if stage.objective == 'moco':
    return {'moco': stage.steps}
  known = all(name in training or task_config.steps for name, task_config in stage.tasks.items())
  return make_plan(stage, {name: training.get(name, 0) for name in stage.tasks}).count_left(0) if known else {}


RUNNERS = {'moco': run_stage, 'multitask': run_stage, 'evaluate': run_evaluation, 'recipe': run_recipe,
           'table': run_table}


def train_stage(config: ConfigDict, workdir: str | pathlib.Path) -> TrainState:
  """Trains a stage whose data is prepared; returns the last state."""
  run = make_run(config)
  names = config.data.datasets if config.objective == 'moco' else config.tasks
  for line in describe_schedule(config, {name: len(source) for name, source in zip(names, run.sources, strict=True)}):
    log.info(line)
  if config.objective == 'moco' and (line := describe_crops(config)):
    log.info(line)
  return train(run, config, workdir)


def make_run(config: ConfigDict) -> Run:
  """Everything that the training loop needs to know about a stage."""
  return {'moco': make_moco_run, 'multitask': make_multitask_run}[config.objective](config)


def make_moco_run(config: ConfigDict) -> Run:
  """Stage 1: the images of all datasets, mixed, without labels."""
  sources = [open_source(name, config.data.dir, config.data.stored_size, 'train', config.data.split, images_only=True,
                         whole=name in config.data.whole) for name in config.data.datasets]
  return Run(
    objective=make_moco(config),
    sources=sources,
    batches=pipeline.make_moco_batches(sources, config, **process_share()),
    schedule=make_schedule(config.optimiser, config.steps),
    steps=config.steps,
    name_images=functools.partial(pipeline.name_moco_images, sources, config),
    validation_steps=training_probe.list_probe_steps(config.steps, config.probe.every),
    make_validate=functools.partial(training_probe.make_validate, config),
    count_left=lambda step: {'moco': config.steps - step},
    draw_views=functools.partial(draw_views, config))


def make_multitask_run(config: ConfigDict) -> Run:
  """Stages 2 and 3: visits to one or more tasks."""
  sources = open_tasks(config, 'train', config.data.fraction)
  tasks = {name: fit_task(config, name, source) for name, source in sources.items()}
  readers = {name: make_reader(source, config.tasks[name]) for name, source in sources.items()}
  plan = make_plan(config, {name: len(source) for name, source in sources.items()})
  models = {name: weigh_loss(config, name, task.make_model()) for name, task in tasks.items()}
  groups = {name: group_by_class(config, name) for name in tasks}
  return Run(
    objective=make_multitask(config, models, plan.begins),
    sources=list(sources.values()),
    batches=pipeline.make_visit_batches(plan, sources, readers, config, groups=groups, **process_share()),
    schedule=make_visit_schedule(config, plan),
    steps=plan.steps,
    name_images=functools.partial(pipeline.name_visit_images, plan, sources, config, groups),
    validation_steps=plan.space_validations(config.validations),
    make_validate=functools.partial(validation.make_validate, config, draw=draw_picture),
    count_left=plan.count_left,
    draw_views=functools.partial(draw_views, config, mirrors={name: model.mirror for name, model in models.items()}),
    tasks=tasks)


def make_plan(config: ConfigDict, images: Mapping[str, int]) -> task_schedule.Plan:
  """The visits of a run; `images` says how many training images each task has. `count_visit_steps` sets the length of
  a visit. Raises ConfigError if that makes too many steps."""
  lengths = {name: task_schedule.count_visit_steps(task_config, images[name])
             for name, task_config in config.tasks.items()}
  check_length(config, lengths)
  return task_schedule.make_plan(lengths, config.rounds, config.order, config.seed)


def process_share() -> dict[str, int]:
  """Which part of each batch this process reads."""
  return {'process': jax.process_index(), 'processes': jax.process_count()}
