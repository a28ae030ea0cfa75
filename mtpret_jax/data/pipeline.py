"""Sources -> a stream of (task, batch) that can start at any step.

Everything is a random-access `grain.MapDataset`: each source is shuffled and repeated, the sources are mixed
(`sampling.py`), records are decoded and batched, and finally each process takes its share of the batches. So the batch
of step n is a function of n. A run needs to remember only its step, and it resumes on any number of processes.

A batch of stage 1 has `query` and `key` (B, size, size, 1) uint8, `source` (B,) int32, and for positives of the same
patient `patient` (B,) int32; see `make_moco_batches`.
A batch of stages 2 and 3 has `image` (B, size, size, 1) uint8 and the label's fields; see `tasks/dataset.py:read_row`.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import grain
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.data import workers
from mtpret_jax.data.records import decode_image, read_text
from mtpret_jax.data.sampling import Groups, Indices, mix_sources, shuffle_task
from mtpret_jax.data.shuffle_bn import shuffle_keys
from mtpret_jax.data.sources import Records, Source
from mtpret_jax.data.task_schedule import JOINT, Plan
from tfds_builders.common import build_command

Batch = dict[str, np.ndarray]
Reader = Callable[[Mapping[str, Any]], Batch]  # record -> one row of a batch


@dataclasses.dataclass(frozen=True)
class Pair:
  """A query and its key. Attributes:
    source: the index of their dataset.
    query, key: record numbers in this source; the same number for two views of one image.
    patient: the index of their patient over all datasets; -1 if keys are not drawn by patient.
  """

  source: int
  query: int
  key: int
  patient: int = -1


@dataclasses.dataclass(frozen=True)
class PatientRecords:
  """The records of each patient of a source. Attributes:
    first: the index of the first patient over all datasets.
    patients: (N,) the patient of each record, from 0.
    records: (N,) record numbers, sorted by patient.
    begins: (patients + 1,) where the records of each patient begin in `records`.
  """

  first: int
  patients: np.ndarray
  records: np.ndarray
  begins: np.ndarray

  def draw(self, source: int, query: int, rng: np.random.Generator) -> Pair:
    """A random record of the query's patient as its key; it may be the query itself."""
    patient = int(self.patients[query])
    own = self.records[self.begins[patient]:self.begins[patient + 1]]
    return Pair(source, query, int(own[rng.integers(len(own))]), self.first + patient)


def group_by_patient(sources: Sequence[Source], names: Collection[str]) -> list[PatientRecords]:
  """The records of each patient, for each source. A patient belongs to one dataset: the same name in two datasets is
  two patients. In datasets that are not among `names`, each image counts as a patient of its own."""
  groups: list[PatientRecords] = []
  first = 0
  for source in sources:
    patients = np.arange(len(source))
    if source.name in names:
      if source.read_patients is None:
        raise ValueError(f'the patients of {source.name} are not known')
      patients = np.unique(source.read_patients(), return_inverse=True)[1]
    if len(patients) != len(source):
      folder = source.folder or f'DATA_DIR/{source.name}/SIZE/{source.version}'
      raise ValueError(f'index.csv of {source.name} has {len(patients):,} images, and its split has {len(source):,}: '
                       f'prepare the dataset again with {build_command.show(folder, overwrite=True)}')
    begins = np.concatenate([[0], np.cumsum(np.bincount(patients))])
    groups.append(PatientRecords(first, patients, np.argsort(patients, kind='stable'), begins))
    first += len(begins) - 1
  return groups


def draw_pairs(sources: Sequence[Source], config: ConfigDict) -> grain.MapDataset:
  """The endless sequence of `Pair`s. A step takes the next `batch` of them. Reads no image."""
  order = mix_sources([dataclasses.replace(source, records=Indices(len(source))) for source in sources],
                      config.data.weights, config.seed)
  if not config.data.patient_positives:
    return order.map(pair_with_itself)
  # Grain makes the generator of a row from the seed and the number of the row, so that the draw is a function of both.
  groups = group_by_patient(sources, config.data.patient_positives)
  return order.random_map(functools.partial(pair_by_patient, groups), seed=config.seed)


def pair_with_itself(indexed: tuple[int, int]) -> Pair:
  source, record = indexed
  return Pair(source, record, record)


def pair_by_patient(groups: Sequence[PatientRecords], indexed: tuple[int, int], rng: np.random.Generator) -> Pair:
  source, record = indexed
  return groups[source].draw(source, record, rng)


def read_pair(records: Sequence[Records], size: int, pair: Pair) -> dict[str, Any]:
  """The row of a batch: `image` and `source`, and for keys that are drawn by patient `key` and `patient`."""
  own = records[pair.source]
  row: dict[str, Any] = {'image': decode_image(own[pair.query]['image'], size), 'source': np.int32(pair.source)}
  if pair.patient >= 0:
    key = row['image'] if pair.key == pair.query else decode_image(own[pair.key]['image'], size)
    row |= {'key': key, 'patient': np.int32(pair.patient)}
  return row


def make_moco_batches(sources: Sequence[Source], config: ConfigDict, *, process: int = 0,
                      processes: int = 1) -> grain.MapDataset:
  """The batches of stage 1 as ('moco', batch), one per step, each with only the rows of this process.

  A batch has `query` and `key` (B, size, size, 1) uint8 in two orders (ShuffleBN, `shuffle_bn.shuffle_keys`), and
  `source` (B,) int32, the index of each query's dataset.

  A key is the image of its query (He et al. 2020). In the datasets that `config.data.patient_positives` names, it is a
  random image of its query's patient (MICLe, Azizi et al. 2021; MedAug, Vu et al. 2021), which may be the query's own.
  If it names any, the batch also has `patient` (B,) int32, the index of each query's patient.
  """
  rows = config.batch // processes
  # Every process cuts the same sequence into parts of `rows` and takes every `processes`-th part. Together, the parts
  # of a step are the batch that a single process would read.
  pairs = draw_pairs(sources, config)
  # Lazy: an image is decoded only when its batch is read, and only by the process that reads the batch.
  read = functools.partial(read_pair, [source.records for source in sources], config.data.size)
  batches = pairs.map(read).batch(rows)
  return batches[process::processes].map(functools.partial(pair_views, config.moco))


def pair_views(moco: ConfigDict, batch: Batch) -> tuple[str, Batch]:
  """The stored images of queries and keys: the random views are drawn on the device."""
  # Both go to the device as uint8, a quarter of the bytes of f32.
  return 'moco', {
    'query': batch['image'],
    'key': shuffle_keys(batch.get('key', batch['image']), moco.group, moco.shuffle_groups),
    **{field: batch[field] for field in ('source', 'patient') if field in batch}}


@dataclasses.dataclass(frozen=True)
class VisitBatches:
  """(task, batch) of each step of a plan. `batches[task]` are the endless batches of each task."""

  plan: Plan
  batches: Mapping[str, Any]

  def __len__(self) -> int:
    return self.plan.steps

  def __getitem__(self, step: int) -> tuple[str, Batch]:
    # Random access, without a counter that moves along: a run that resumes reads no batch of an earlier step.
    visit = self.plan.find(step)
    number = visit.seen + step - visit.start  # a task continues where its last visit stopped
    if visit.task != JOINT:
      return visit.task, self.batches[visit.task][number]
    return JOINT, {f'{task}/{field}': rows for task, batches in self.batches.items()
                   for field, rows in batches[number].items()}


def make_visit_batches(plan: Plan, sources: Mapping[str, Source], readers: Mapping[str, Reader], config: ConfigDict, *,
                       groups: Mapping[str, Groups] = MappingProxyType({}), process: int = 0,
                       processes: int = 1) -> grain.MapDataset:
  """The batches of stages 2 and 3 as (task, batch), one per step of the plan, each with only the rows of this process.

  `readers[task]` makes a row of a batch from a record of `sources[task]`. A batch of a joint step has every task's
  fields as 'task/field'. `groups[task]` are the groups of a balanced sampler, see `shuffle_task`.
  """
  batches = {}
  for index, (task, source) in enumerate(sources.items()):
    # `name_visit_images` repeats this order; change both together.
    records = shuffle_task(source.records, groups.get(task, ()), config.seed + index).map(readers[task])
    batches[task] = records.batch(config.tasks[task].batch // processes)[process::processes]
  return grain.MapDataset.source(VisitBatches(plan, batches))


def name_moco_images(sources: Sequence[Source], config: ConfigDict, step: int) -> list[tuple[str, str]]:
  """[(dataset, image_id)] of the batch of a step of stage 1, of all processes: the queries, then the keys if these are
  other images. No image is decoded."""
  order = draw_pairs(sources, config)
  # All processes' rows: the parts of a step follow each other in the common sequence.
  pairs = [order[row] for row in range(step * config.batch, (step + 1) * config.batch)]
  names = [name_image(sources[pair.source], pair.query) for pair in pairs]
  if config.data.patient_positives:
    names += [name_image(sources[pair.source], pair.key) for pair in pairs]
  return names


def name_visit_images(plan: Plan, sources: Mapping[str, Source], config: ConfigDict, groups: Mapping[str, Groups],
                      step: int) -> list[tuple[str, str]]:
  """[(dataset, image_id)] of the batch of a step of stages 2 and 3, of all processes; of all tasks if it is joint.
  `groups` are those of `make_visit_batches`."""
  visit, names = plan.find(step), []
  number = visit.seen + step - visit.start
  for index, (task, source) in enumerate(sources.items()):
    if visit.task in (task, JOINT):
      rows = config.tasks[task].batch
      order = shuffle_task(Indices(len(source)), groups.get(task, ()), config.seed + index)
      names += [name_image(source, order[row]) for row in range(number * rows, (number + 1) * rows)]
  return names


def name_image(source: Source, index: int) -> tuple[str, str]:
  return source.name, read_text(source.records[int(index)]['image_id'])


@contextlib.contextmanager
def stream(batches: grain.MapDataset, start: int, config: ConfigDict) -> Iterator[Iterator[tuple[str, Batch]]]:
  """Iterates over (task, batch) from step `start`, reading ahead. `config` is `config.data`.

  `threads` threads read ahead, or `workers` processes with as many threads each, on hosts with many cores. Neither
  changes the order.
  """
  # A buffer smaller than the number of threads would leave some of them without work.
  options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=max(config.prefetch, config.threads))
  dataset = batches[start:].to_iter_dataset(options)  # a slice: the batches before `start` are not read
  if config.workers:
    # Each worker has its own threads and buffer, so host memory grows with their number.
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers), workers.set_up)
  iterator = iter(dataset)
  try:
    yield iterator
  finally:
    iterator.close()  # also after an error: it ends the reading threads and workers
