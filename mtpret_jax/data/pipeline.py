"""Sources, mixed and shuffled -> a stream of (task, batch) that starts at any step.

Everything is a random-access `grain.MapDataset`: each source is shuffled and repeated for itself, the sources are
mixed, records are decoded and batched, and only then each process takes its share. So the batch of step n is a
function of n, a run needs to remember nothing but its step, and it resumes on any number of processes.
"""

import contextlib
import dataclasses
import functools

import grain
import numpy as np

from mtpret_jax.data import workers
from mtpret_jax.data.records import decode_image, read_labelled, read_text
from mtpret_jax.data.shuffle_bn import place_keys
from mtpret_jax.data.task_schedule import JOINT, Plan

# Fields that change nothing of what is learned.
INCIDENTAL = ('name', 'workdir', 'sharding', 'save_every', 'log_every', 'keep', 'probe', 'evaluate_every', 'resamples',
              'data.archives', 'data.dir', 'data.datasets', 'data.phantoms', 'data.threads', 'data.workers',
              'data.prefetch', 'on_nonfinite', 'max_skips', 'save_retries')


def weigh_sources(sources, weights):
  """'by_images': in proportion to the images each has; 'balanced': all equally; or '2,1,1', a number for each."""
  if weights == 'by_images':
    return [len(source) for source in sources]
  if weights == 'balanced':
    return [1] * len(sources)
  return [float(number) for number in weights.split(',')]


def mix_sources(sources, weights, seed):
  """An endless, shuffled MapDataset of (index of the source, record). No image of a source comes again before all
  its others have been seen."""
  parts = [
    grain.MapDataset.source(source.records).seed(seed + index).shuffle().repeat().map(functools.partial(tag, index))
    for index, source in enumerate(sources)]
  return grain.MapDataset.mix(parts, weigh_sources(sources, weights))


def tag(index, record):
  return index, record


def read_pair(size, tagged):
  index, record = tagged
  return {'image': decode_image(record['image'], size), 'source': np.int32(index)}


def make_moco_batches(sources, config, *, process=0, processes=1):
  """The batches of stage 1, all of task 'moco', one process's rows of each: `query` and `key` (B, size, size, 1)
  uint8, the same images in two orders (`shuffle.place_keys`), and `source` (B,) int32."""
  rows = config.batch // processes
  records = mix_sources(sources, config.data.weights, config.seed)
  batches = records.map(functools.partial(read_pair, config.data.size)).batch(rows)
  return batches[process::processes].map(functools.partial(split_views, config.moco))


def split_views(moco, batch):
  return 'moco', {
    'query': batch['image'],
    'key': place_keys(batch['image'], moco.group, moco.shuffle_groups),
    'source': batch['source']}


@dataclasses.dataclass(frozen=True)
class Visits:
  """(task, batch) of each step of a plan; `batches[task]` are the endless batches of each task."""

  plan: Plan
  batches: dict

  def __len__(self):
    return self.plan.steps

  def __getitem__(self, step):
    visit = self.plan.find(step)
    number = visit.seen + step - visit.start
    if visit.task != JOINT:
      return visit.task, self.batches[visit.task][number]
    return JOINT, {f'{task}/{field}': rows for task, batches in self.batches.items()
                   for field, rows in batches[number].items()}


def make_visit_batches(plan, sources, config, *, process=0, processes=1):
  """The batches of stages 2 and 3, one process's rows of each: `config.tasks[task]` of `sources[task]`, in the order of
  the plan; see `records.read_labelled`. Joint steps have every task's fields as 'task/field'."""
  batches = {}
  for index, (task, source) in enumerate(sources.items()):
    task_config = config.tasks[task]
    read = functools.partial(read_task, source.about, task_config)
    records = grain.MapDataset.source(source.records).seed(config.seed + index).shuffle().repeat().map(read)
    batches[task] = records.batch(task_config.batch // processes)[process::processes]
  return grain.MapDataset.source(Visits(plan, batches))


def read_task(about, task_config, record):
  """A record as the task of `task_config` wants it, see `records.read_labelled`, with only the findings asked for."""
  fields = read_labelled(task_config.kind, about, task_config, record)
  if task_config.findings:
    columns = [about['findings'].index(finding) for finding in task_config.findings]
    fields |= {field: fields[field][columns] for field in ('present', 'label_mask')}
  return fields


def choose_findings(about, task_config):
  """What a dataset says of itself, with only the findings that the task_config asks for, () being all."""
  absent = [finding for finding in task_config.findings if finding not in about['findings']]
  if absent:
    raise ValueError(f'{task_config.dataset} has no finding {absent[0]!r}; have {", ".join(about["findings"])}')
  return about | ({'findings': list(task_config.findings)} if task_config.findings else {})


def name_moco_images(sources, config, step):
  """[(dataset, image_id)] of the batch of a step of stage 1, of all processes: its order is drawn again, nothing is
  decoded."""
  order = mix_sources([dataclasses.replace(source, records=Places(len(source))) for source in sources],
                      config.data.weights, config.seed)
  drawn = [order[row] for row in range(step * config.batch, (step + 1) * config.batch)]
  return [name_image(sources[index], place) for index, place in drawn]


def name_visit_images(plan, sources, config, step):
  """[(dataset, image_id)] of the batch of a step of stages 2 and 3, of all processes and, where joint, of all tasks."""
  visit, names = plan.find(step), []
  number = visit.seen + step - visit.start
  for index, (task, source) in enumerate(sources.items()):
    if visit.task in (task, JOINT):
      rows = config.tasks[task].batch
      order = grain.MapDataset.source(Places(len(source))).seed(config.seed + index).shuffle().repeat()
      names += [name_image(source, order[row]) for row in range(number * rows, (number + 1) * rows)]
  return names


@dataclasses.dataclass(frozen=True)
class Places:
  """Stands for a source of so many records: record i is i."""

  count: int

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return index


def name_image(source, place):
  return source.name, read_text(source.records[int(place)]['image_id'])


@contextlib.contextmanager
def stream(batches, start, config):
  """Iterates (task, batch) from step `start` on, read ahead by `data.threads` threads, or by `data.workers` processes
  (each with its threads) on hosts with many cores. Neither changes the order."""
  options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=max(config.prefetch, config.threads))
  dataset = batches[start:].to_iter_dataset(options)
  if config.workers:
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers), workers.set_up)
  iterator = iter(dataset)
  try:
    yield iterator
  finally:
    iterator.close()


def fingerprint(sources, config):
  """What the state after each step depends on, flat: datasets and every config field but those that only say where
  things lie and how often they are shown. A run resumes only where it is unchanged."""
  datasets = {f'data.{source.name}': f'{source.version} {source.split} by {source.split_rule} {len(source)} images '
                                     f'{source.about.get("archive", {}).get("sha256", "")[:12]}'.strip()
              for source in sources}
  return datasets | {field: value for field, value in flatten(config.to_dict()).items()
                     if not field.startswith(INCIDENTAL)}


def flatten(fields, prefix=''):
  flat = {}
  for name, value in fields.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = to_lists(value)
  return flat


def to_lists(value):
  """Tuples as lists, inside each other too: as JSON gives them back."""
  return [to_lists(one) for one in value] if isinstance(value, tuple | list) else value
