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

LIBRARIES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy',
             'opencv-python-headless')


def save_config(workdir, config):
  """`config.json` in the workdir: what runs, with the versions it runs on."""
  path = pathlib.Path(workdir, 'config.json')
  path.write_text(json.dumps({'config': config.to_dict(), 'versions': list_versions()}, indent=2) + '\n')


def list_versions():
  devices = jax.devices()
  return {'python': platform.python_version(), 'devices': f'{len(devices)} x {devices[0].device_kind}',
          **{name: importlib.metadata.version(name) for name in LIBRARIES}}


@contextlib.contextmanager
def open_log(workdir, start, config):
  """Yields log(step, measures): the bar moves each step; every `log_every` steps the means since the last time are
  written. Only the first process shows and writes anything."""
  if jax.process_index():
    yield lambda step, measures: None
    return
  save_config(workdir, config)
  with contextlib.ExitStack() as stack:
    bar = stack.enter_context(tqdm(
      total=config.steps, initial=start, desc=config.name, unit='step', dynamic_ncols=True,
      mininterval=0.5 if sys.stderr.isatty() else 30))
    events = stack.enter_context(contextlib.closing(SummaryWriter(str(pathlib.Path(workdir, 'tensorboard')),
                                                                  purge_step=start)))
    lines = stack.enter_context(open(pathlib.Path(workdir, 'metrics.jsonl'), 'a'))
    window, began = [], time.perf_counter()

    def log(step, measures):
      nonlocal began
      bar.update()
      window.append(measures)
      done = step + 1
      if done % config.log_every and done != config.steps:
        return
      now = time.perf_counter()
      means = {name: sum(row[name] for row in window) / len(window) for name in measures}
      means['images_per_second'] = config.batch * len(window) / (now - began)
      means['waited'] *= len(window) / (now - began)  # from seconds a step to the share of the time
      for name, value in means.items():
        events.add_scalar(name, value, done)
      lines.write(json.dumps({'step': done} | means) + '\n')
      lines.flush()
      bar.set_postfix_str(f'loss {means["loss"]:.3f}, accuracy {means["accuracy"]:.2f}, '
                          f'{means["images_per_second"]:.0f} images/s')
      window.clear()
      began = now

    yield log
