"""Stage 1 from files to steps beside lightly's transforms and the same step in PyTorch; how, says `sides.py`.

    python -m benchmarks.stage1 --model=resnet18 --size=128 --batch=32

Phantom radiographs are stored at 256 px; both sides read the same bytes.

  ours     ArrayRecord -> Grain, read ahead by threads -> the compiled step of stage 1, which makes the views
  lightly  PNG files -> Pillow, one channel -> lightly's MoCoV2Transform as it comes -> PyTorch's DataLoader with
           `--workers` processes -> the step of `tests/reference/moco_torch.py`, channels_last

lightly's own dataset would make three equal channels of a grey image; here it is spared that, and the colours of its
jitter have nothing to change. Torch, torchvision and lightly are not in requirements.txt: without them only our side
runs.
"""

import argparse
import importlib.util
import tempfile

from benchmarks import moco_step
from benchmarks.support import input_rivals, prepared, sides

AHEAD = 4   # batches that a side may have ready, or one for each thread or process where these are more
STEPS = 16  # in a measurement: many more than those, which are loaded while the other side works


def make_our_steps(options):
  import grain
  import jax

  from mtpret_jax.data import pipeline
  config = moco_step.make_config(options)
  batches = pipeline.make_moco_batches([prepared.open_prepared(options.folder)], config)
  ahead = grain.ReadOptions(num_threads=options.threads, prefetch_buffer_size=max(AHEAD, options.threads))
  feed = iter(batches.to_iter_dataset(ahead))
  train, description = moco_step.make_our_training(config)

  def take_steps(count):
    before = None
    for _ in range(count):
      _, batch = next(feed)
      measures = train(batch)
      jax.block_until_ready(before)  # as the loop does: the next batch is drawn while the device works
      before = measures
    jax.block_until_ready(before)
  return take_steps, description


def make_lightly_steps(options):
  import lightly
  import torch
  from lightly.transforms import MoCoV2Transform
  threads = torch.get_num_threads()
  view = MoCoV2Transform(options.size, normalize={'mean': [0.5], 'std': [0.25]})
  paths, ahead = prepared.list_files(options.folder), max(AHEAD // max(options.workers, 1), 1)
  batches = input_rivals.load_in_torch(paths, view, options.batch, workers=options.workers, ahead=ahead,
                                       pinned=torch.cuda.is_available())
  torch.set_num_threads(threads)
  train, place, description = moco_step.make_torch_training(options)

  def take_steps(count):
    before = None
    for _ in range(count):
      loss = train(*map(place, next(batches)))
      if before is not None:
        before.item()  # as on our side: the next batch is drawn while the device works
      before = loss
    before.item()
  return take_steps, f'{description}; lightly {lightly.__version__}, {options.workers} processes that load'


def main():
  parser = moco_step.make_parser(__doc__, STEPS)
  parser.add_argument('--images', type=int, default=400, help='phantoms to render')
  parser.add_argument('--threads', type=int, default=2, help='threads that read ahead on our side')
  parser.add_argument('--workers', type=int, default=2, help="processes of PyTorch's DataLoader")
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  options = parser.parse_args()
  makers = {'ours': make_our_steps}
  if all(map(importlib.util.find_spec, ('torch', 'torchvision', 'lightly'))):
    makers['lightly'] = make_lightly_steps
  with tempfile.TemporaryDirectory() as folder:
    if not options.folder:
      options.folder = folder
      prepared.prepare(folder, options.images)
    sides.run(makers, 'benchmarks.stage1', options, f'files to steps, {moco_step.describe(options)}',
              (f'stage1 {moco_step.name_run(options)}', {'lightly': 'lightly'}), [f'--folder={options.folder}'])


if __name__ == '__main__':
  main()
