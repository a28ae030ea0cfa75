"""What a run would do, in text: the images of each dataset and task, the schedule that follows from them, and what it
costs: arithmetic, memory, disk and time."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mtpret_jax.data.sources import SPLITS
from mtpret_jax.report.costs import Cost
from mtpret_jax.report.schedule import describe_schedule
from mtpret_jax.report.tables import align
from mtpret_jax.runtime.atomic_io import read_json_lines
from mtpret_jax.runtime.image_counts import Images
from mtpret_jax.runtime.logging import METRICS, batch_size
from mtpret_jax.runtime.progress import describe_seconds
from tfds_builders import build

STORED_BYTES = {'256': 40_000, '512': 150_000, 'original': 2_000_000}  # of a prepared image, roughly
PHANTOM_BYTES = 2  # of a pixel of a prepared phantom and its label, roughly


def describe_stage(name: str, config: ConfigDict, images: Mapping[str, Images]) -> list[str]:
  """The lines on one stage. `images` has those of each dataset in stage 1, and of each task in stages 2 and 3."""
  start = f'from {config.init} {config.init_from}'.strip()
  lines = [f'{name}: {config.trunk} {start}, in {config.workdir}; images by the split rule {config.data.split!r}:',
           *(f'  {line}' for line in align(tabulate(config, images)))]
  training = {part: own.splits['train'] for part, own in images.items() if own.splits is not None}
  if len(training) < len(images):
    return [*lines, '  The phantoms are rendered when the run starts; the steps per epoch are known then.']
  return lines + [f'  {line}' for line in describe_schedule(config, training)]


def tabulate(config: ConfigDict, images: Mapping[str, Images]) -> list[Sequence[str]]:
  """A row for each dataset or task; in stage 1 also one for all datasets together."""
  tasks = config.get('tasks', {})
  table: list[Sequence[str]] = [('task' if tasks else 'dataset', *SPLITS, '')]
  table += [(name, *format_counts(own), describe_images(own, tasks[name].dataset if tasks else ''))
            for name, own in images.items()]
  counted = [own.splits for own in images.values() if own.splits is not None]
  if not tasks and len(counted) > 1:
    table.append(('all', *(f'{sum(splits[split] for splits in counted):,}' for split in SPLITS), ''))
  return table


def format_counts(images: Images) -> list[str]:
  """A cell for each split; '?' where nothing is known yet."""
  return ['?'] * len(SPLITS) if images.splits is None else [f'{images.splits[split]:,}' for split in SPLITS]


def describe_images(images: Images, dataset: str) -> str:
  """'of tbx11k; without a usable label: 1 train'."""
  left_out = ', '.join(f'{number:,} {split}' for split, number in images.left_out.items() if number)
  return '; '.join(filter(None, [
    f'of {dataset}' if dataset else '', 'every image, because no task uses it' if images.whole else '',
    f'without a usable label: {left_out}' if left_out else '']))


def describe_cost(config: ConfigDict, cost: Cost, steps: Mapping[str, int], images: Mapping[str, Images],
                  speed: float | None) -> list[str]:
  """The lines on parameters, arithmetic, memory, disk and time.

  Args:
    steps: {task: how many steps the run takes on it}; {} if that is not known yet.
    images: as in `describe_stage`.
    speed: images/s to count with; None takes those of an earlier run in the workdir.
  """
  lines = ['parameters: ' + ', '.join(f'{number:,} {part}' for part, number in sorted(
    cost.parameters.items(), key=lambda item: -item[1]))]
  lines += [f'a step of {task}: batch {batch_size(config, task)}, {step.flops / 1e9:,.3g} GFLOP'
            for task, step in cost.steps.items()]
  activations = max(step.activations for step in cost.steps.values())
  return lines + [
    f'memory, roughly: {describe_bytes(cost.state)} of weights and optimiser, {describe_bytes(cost.gradients)} of '
    f'gradients, up to {describe_bytes(activations)} of activations, of which the compiler saves a part',
    describe_disk(config, cost, images), describe_time(config, steps, speed)]


def describe_disk(config: ConfigDict, cost: Cost, images: Mapping[str, Images]) -> str:
  best = cost.best if config.objective == 'multitask' and len(config.tasks) == 1 else 0
  while_running = cost.state * (config.keep + 1) + best  # a new checkpoint is whole before an old one is deleted
  finished = cost.state * config.keep_finished + best
  return (f'disk, roughly: {describe_bytes(while_running)} of checkpoints while it trains, {describe_bytes(finished)} '
          f'when it is finished; {describe_bytes(count_prepared_bytes(config, images))} of images to prepare')


def count_prepared_bytes(config: ConfigDict, images: Mapping[str, Images]) -> float:
  """Of the datasets that are not prepared yet."""
  data, total = config.data, 0.0
  of_dataset = {config.tasks[name].dataset if config.objective == 'multitask' else name: own
                for name, own in images.items()}
  for name, own in of_dataset.items():
    if build.is_prepared(build.locate(name, data.dir, data.stored_size)):
      continue
    if own.splits is None:
      total += data.phantoms.images * data.phantoms.size ** 2 * PHANTOM_BYTES
    else:
      total += (sum(own.splits.values()) + sum(own.left_out.values())) * STORED_BYTES[data.stored_size]
  return total


def describe_time(config: ConfigDict, steps: Mapping[str, int], speed: float | None) -> str:
  if not steps:
    return 'time: the steps are known when the phantoms are rendered'
  images = {task: number * batch_size(config, task) for task, number in steps.items()}
  seen = f'{sum(steps.values()):,} steps with {sum(images.values()):,} images'
  speeds = {task: speed or find_speed(config.workdir, task) for task in steps}
  if not all(speeds.values()):
    return (f'time: {seen}; give --images_per_second=N to count the hours (docs/performance.md has measured speeds)')
  seconds = sum(number / speed for number, speed in zip(images.values(), speeds.values(), strict=True) if speed)
  source = 'as given' if speed else f'measured in {config.workdir}'
  return (f'time: {seen}; {describe_seconds(seconds)} of training at '
          f'{", ".join(f"{value:.3g}" for value in dict.fromkeys(speeds.values()))} images/s ({source}); compiling and '
          f'validation come on top')


def find_speed(workdir: str, task: str) -> float | None:
  """The median images/s in the log of an earlier run; None if there is none."""
  path = pathlib.Path(workdir, METRICS)
  lines = read_json_lines(path) if path.exists() else []
  speeds = [line['images_per_second'] for line in lines if line['task'] == task]
  return statistics.median(speeds) if speeds else None


def describe_bytes(number: float) -> str:
  return f'{number / 1e9:.2g} GB' if number >= 1e9 else f'{number / 1e6:.0f} MB'
