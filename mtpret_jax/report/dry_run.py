"""What a run would do, in text: the images of each dataset and task, and the schedule that follows from them."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mtpret_jax.data.sources import SPLITS
from mtpret_jax.report.schedule import describe_schedule
from mtpret_jax.report.tables import align
from mtpret_jax.runtime.image_counts import Images


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
