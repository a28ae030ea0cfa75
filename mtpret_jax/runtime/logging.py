"""What a run shows while it works: its config, a progress bar, TensorBoard events and `metrics.jsonl`."""

import contextlib
import importlib.metadata
import json
import pathlib
import platform
import sys
import time

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mtpret_jax.data.task_schedule import JOINT
from mtpret_jax.runtime.atomic_io import read_json_lines, write_atomically

METRICS = 'metrics.jsonl'
LIBRARIES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy',
             'opencv-python-headless')


def save_config(workdir, config):
  """`config.json` in the workdir: what runs, with the versions it runs on."""
  text = json.dumps({'config': config.to_dict(), 'versions': list_versions()}, indent=2)
  write_atomically(pathlib.Path(workdir, 'config.json'), f'{text}\n')


def list_versions():
  devices = jax.devices()
  return {'devices': f'{len(devices)} x {devices[0].device_kind}', **list_libraries()}


def list_libraries():
  return {'python': platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


@contextlib.contextmanager
def open_log(workdir, start, steps, config):
  """Yields log(step, measures, task): the bar moves each step; every `log_every` steps the means of each task since the
  last time are written, of its steps that count: `measures` is None for others. What an earlier run wrote of steps that
  are taken again is dropped. Only the first process shows and writes anything."""
  if jax.process_index():
    yield lambda step, measures, task: None
    return
  save_config(workdir, config)
  drop_later_lines(pathlib.Path(workdir, METRICS), start)
  with contextlib.ExitStack() as stack:
    bar = stack.enter_context(tqdm(
      total=steps, initial=start, desc=config.name, unit='step', dynamic_ncols=True,
      mininterval=0.5 if sys.stderr.isatty() else 30))
    events = stack.enter_context(contextlib.closing(SummaryWriter(str(pathlib.Path(workdir, 'tensorboard')),
                                                                  purge_step=start + 1)))
    lines = stack.enter_context(open(pathlib.Path(workdir, METRICS), 'a'))
    windows, began, drawn, shown = {}, time.perf_counter(), 0, ''

    def log(step, measures, task):
      nonlocal began, drawn, shown
      bar.update()
      if measures is not None:
        windows.setdefault(task, []).append(measures)
        shown = f'{task} loss {measures["loss"]:.3f}'
      drawn += batch_size(config, task)
      done = step + 1
      if done % config.log_every and done != steps:
        return
      now = time.perf_counter()
      shared = {'images_per_second': drawn / (now - began),
                'waited': sum(row['waited'] for rows in windows.values() for row in rows) / (now - began)}
      for name, rows in windows.items():
        means = {measure: sum(row[measure] for row in rows) / len(rows) for measure in rows[0]} | shared
        for measure, value in means.items():
          events.add_scalar(measure if name == 'moco' else f'{name}/{measure}', value, done)
        lines.write(json.dumps({'step': done, 'task': name} | means) + '\n')
      lines.flush()
      bar.set_postfix_str(f'{shown}, {shared["images_per_second"]:.0f} images/s')
      windows.clear()
      began, drawn = now, 0

    yield log


def drop_later_lines(path, start):
  """Leaves the lines of the first `start` steps."""
  lines = read_json_lines(path)
  if lines or path.exists():
    write_atomically(path, ''.join(json.dumps(line) + '\n' for line in lines if line['step'] <= start))


def batch_size(config, task):
  """Images in a step on `task`."""
  if config.objective == 'moco':
    return config.batch
  return sum(task_config.batch for name, task_config in config.tasks.items() if task in (name, JOINT))
