"""Stage 1 from files to steps, beside lightly's transforms with the same step in PyTorch.

The comparison is described in `support/side_by_side.py`.

    python -m benchmarks.stage1 --model=resnet18 --size=128 --batch=32

Phantom radiographs are stored at 256 px. Both sides read the same bytes.

  ours     ArrayRecord -> Grain, prefetched by threads -> the compiled step of stage 1, which makes the views
  lightly  PNG files -> Pillow, one channel -> lightly's MoCoV2Transform, unchanged -> PyTorch's DataLoader with
           `--workers` processes -> the step of `tests/reference/moco_torch.py`, channels_last

lightly's own dataset would turn a grey image into three equal channels. That work is left out here, and its jitter has
no colours to change. Without PyTorch, torchvision and lightly (benchmarks/requirements.txt) only our side runs.
"""

import argparse
import importlib.util
import tempfile

from benchmarks import moco_step
from benchmarks.support import baseline_inputs, phantom_data, side_by_side

PREFETCH = 4  # batches that a side may have ready; one per thread or process if there are more of these
STEPS = 16    # in a measurement; many more than PREFETCH batches, which are loaded while the other side works


def make_our_steps(options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  import grain
  import jax

  from mtpret_jax.data import pipeline
  config = moco_step.make_config(options)
  batches = pipeline.make_moco_batches([phantom_data.open_prepared(options.folder)], config)
  reading = grain.ReadOptions(num_threads=options.threads, prefetch_buffer_size=max(PREFETCH, options.threads))
  feed = iter(batches.to_iter_dataset(reading))
  train, description = moco_step.make_our_training(config)

  def take_steps(count):
    previous = None
    for _ in range(count):
      _, batch = next(feed)
      measures = train(batch)
      jax.block_until_ready(previous)  # as the loop does: the next batch is read while the device works
      previous = measures
    jax.block_until_ready(previous)
  return take_steps, description


def make_lightly_steps(options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  import lightly
  import torch
  from lightly.transforms import MoCoV2Transform
  threads = torch.get_num_threads()
  view = MoCoV2Transform(options.size, normalize={'mean': [0.5], 'std': [0.25]})
  paths, prefetch = phantom_data.list_files(options.folder), max(PREFETCH // max(options.workers, 1), 1)
  batches = baseline_inputs.load_in_torch(paths, view, options.batch, workers=options.workers, prefetch=prefetch,
                                          pinned=torch.cuda.is_available())
  torch.set_num_threads(threads)
  train, place, description = moco_step.make_torch_training(options)

  def take_steps(count):
    previous = None
    for _ in range(count):
      loss = train(*map(place, next(batches)))
      if previous is not None:
        previous.item()  # as on our side: the next batch is read while the device works
      previous = loss
    previous.item()
  return take_steps, f'{description}; lightly {lightly.__version__}, {options.workers} loading processes'


def main() -> None:
  parser = moco_step.make_parser(__doc__, STEPS)
  parser.add_argument('--images', type=int, default=400, help='phantoms to render')
  parser.add_argument('--threads', type=int, default=2, help='threads that prefetch on our side')
  parser.add_argument('--workers', type=int, default=2, help="processes of PyTorch's DataLoader")
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  options = parser.parse_args()
  makers = {'ours': make_our_steps}
  if all(map(importlib.util.find_spec, ('torch', 'torchvision', 'lightly'))):
    makers['lightly'] = make_lightly_steps
  with tempfile.TemporaryDirectory() as folder:
    if not options.folder:
      options.folder = folder
      phantom_data.prepare(folder, options.images)
    side_by_side.run(makers, 'benchmarks.stage1', options, f'files to steps, {moco_step.describe(options)}',
                     f'stage1 {moco_step.name_run(options)}', {'lightly': 'lightly'}, [f'--folder={options.folder}'])


if __name__ == '__main__':
  main()
