"""A training step, or the inference, of one task of stages 2 and 3 beside torchvision's own model, compared as
`support/side_by_side.py` describes.

    python -m benchmarks.task_step --kind=segmentation --model=resnet18 --size=128 --batch=8
    python -m benchmarks.task_step --kind=detection --model=resnet50 --size=256 --batch=2 --inference

Timed after warming up:

  ours         the compiled step of stage 3 with the heads of `configs/tasks.py` at torchvision's values: takes uint8
               images and labels 1.15 times as large as the view, makes a random view of them, then forward pass, loss,
               backward pass, norm of the gradient and AdamW. With `--inference`: uint8 images to predictions, as in
               scoring
  torchvision  `resnet18/50`, `deeplabv3_resnet50` or `fasterrcnn_resnet50_fpn` (`support/torchvision_tasks.py`), with
               the same loss and fused AdamW. It gets finished views, float32 and standardised

So torchvision does less: no augmentation. Both sides have one grey channel, the same number of classes, anchors and
proposals, and random weights. Before inference, both take their batch-norm statistics from one batch, and a large
bias of the background leaves few boxes, as in a trained detector. Without PyTorch and torchvision
(benchmarks/requirements.txt) only our side runs.
"""

import argparse
import importlib.util
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks.support import side_by_side

NAME = 'benchmark'  # of the task
# What each kind of task predicts. Both sides have these classes.
CLASSES = {'classification': ('findings', tuple(f'finding {index}' for index in range(14))),
           'segmentation': ('mask', ('background', 'left lung', 'right lung')),
           'detection': ('box_classes', ('active tuberculosis', 'latent tuberculosis'))}
LEARNING_RATE, WEIGHT_DECAY, MOMENTUM = 1e-3, 1e-4, 0.9
BACKGROUND_BIAS = 4.0


def make_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kind', choices=tuple(CLASSES), default='classification')
  parser.add_argument('--model', choices=('resnet18', 'resnet50'), default='resnet18', help='the trunk')
  parser.add_argument('--size', type=int, default=128, help='px, side of a view')
  parser.add_argument('--batch', type=int, default=8, help='images')
  parser.add_argument('--boxes', type=int, default=3, help='true boxes of an image (detection)')
  parser.add_argument('--inference', action='store_true', help='predict instead of training')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32',
                      help='of the activations; bfloat16 is autocast in PyTorch')
  parser.add_argument('--torch_compile', action='store_true',
                      help='PyTorch compiles its model; of a detector only the trunk with its pyramid')
  parser.add_argument('--layout', choices=('channels_last', 'contiguous'), default='channels_last', help="PyTorch's")
  parser.add_argument('--threads', type=int, default=0, help="PyTorch's threads; 0: its own choice")
  side_by_side.add_options(parser)
  side_by_side.add_profile(parser)
  return parser


def make_config(options: argparse.Namespace) -> ConfigDict:
  """The config of a stage-3 run whose task is `NAME`; its dataset is never opened."""
  from configs import common, finetune, tasks
  example = {'classification': 'abnormality', 'segmentation': 'lung', 'detection': 'tuberculosis'}[options.kind]
  config = finetune.base(example)
  config.update(trunk=options.model, dtype=options.dtype)
  config.tasks = ConfigDict({NAME: tasks.make_task_config(
    example, small=options.size, large=options.size, batch=options.batch, deeplab=common.deeplab_v3(),
    detector=common.faster_rcnn(options.size), objects=32)})
  config.optimiser.update(kind='adamw', momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
  return config


def make_batch(options: argparse.Namespace, task_config: ConfigDict) -> dict[str, np.ndarray]:
  """Random images and labels, as `tasks/dataset.py:read_row` reads them; without labels for inference."""
  rng, size, batch = np.random.default_rng(0), task_config.size, options.batch
  images = {'image': rng.integers(0, 256, (batch, size, size, 1)).astype(np.uint8)}
  return images if options.inference else images | make_labels(options, size, task_config.objects, rng)


def make_labels(options: argparse.Namespace, size: int, objects: int,
                rng: np.random.Generator) -> dict[str, np.ndarray]:
  """The labels' fields of a batch.

  Args:
    size: px, side of the masks.
    objects: slots for boxes."""
  batch, classes = options.batch, len(CLASSES[options.kind][1])
  if options.kind == 'classification':
    return {'present': rng.integers(0, 2, (batch, classes)).astype(np.float32),
            'label_mask': np.ones((batch, classes), bool)}
  if options.kind == 'segmentation':
    patches = rng.integers(0, classes, (batch, 4, 4)).repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)
    return {'mask': patches[:, :size, :size].astype(np.int8)}
  corner = rng.uniform(0.05, 0.45, (batch, options.boxes, 2))
  boxes = np.concatenate([corner, corner + rng.uniform(0.15, 0.5, corner.shape)], axis=-1).astype(np.float32)
  class_id = rng.integers(0, classes, (batch, options.boxes)).astype(np.int32)
  empty = (0, objects - options.boxes)
  return {'boxes': np.pad(boxes, ((0, 0), empty, (0, 0))),
          'class_id': np.pad(class_id, ((0, 0), empty), constant_values=-1)}


def make_our_steps(options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  from mtpret_jax.runtime import backend
  backend.skip_libtpu()
  import jax

  from mtpret_jax.objectives.multitask import make_multitask
  from mtpret_jax.runtime.sharding import make_mesh, place_batch
  from mtpret_jax.step import init_state, make_optimiser
  from mtpret_jax.tasks import find_kind
  if backend.is_cpu():
    from mtpret_jax import cpu
    cpu.install()  # one device: a task has one batch-norm group
  config, mesh = make_config(options), make_mesh(jax.devices()[:1])  # PyTorch uses one GPU too
  field, classes = CLASSES[options.kind]
  about = {field: list(classes), 'relation': 'independent'}
  task_config = config.tasks[NAME]
  model = find_kind(options.kind).make_model(about, task_config.head)
  objective, optimiser = make_multitask(config, {NAME: model}, np.zeros(1, bool)), make_optimiser(config.optimiser)
  state = init_state(objective, optimiser, mesh, config.seed)
  batch = make_batch(options, task_config)
  prepare = prepare_inference if options.inference else prepare_training
  take, memory = prepare(config, model, objective, optimiser, state, mesh, place_batch(batch, mesh))

  def take_steps(count: int) -> None:
    for _ in range(count):
      jax.block_until_ready(take(place_batch(batch, mesh)))
  return take_steps, f'jax {jax.__version__} on {jax.devices()[0].platform}; {describe_memory(memory)}'


def prepare_training(config: ConfigDict, model: Any, objective: Any, optimiser: Any, state: Any, mesh: Any,
                     batch: Any) -> tuple[Any, Any]:
  """(take(batch) -> measures, the compiler's analysis of the memory)."""
  import jax.numpy as jnp

  from mtpret_jax.runtime.loss_guard import make_guard
  from mtpret_jax.step import compile_step
  step = compile_step(objective, optimiser, lambda step: jnp.float32(LEARNING_RATE), NAME, mesh, seed=config.seed,
                      guard=make_guard(config), clip=config.optimiser.clip)
  compiled = step.lower(state, batch).compile()

  def take(batch: Any) -> Any:
    nonlocal state
    state, measures = compiled(state, batch, *step.constants)
    return measures
  return take, compiled.memory_analysis()


def prepare_inference(config: ConfigDict, model: Any, objective: Any, optimiser: Any, state: Any, mesh: Any,
                      batch: Any) -> tuple[Any, Any]:
  """(take(batch) -> predictions, the compiler's analysis of the memory)."""
  from mtpret_jax.evaluation.predict import compile_predict
  params, stats = state.params, measure_statistics(config, objective, state, batch)
  if config.tasks[NAME].kind == 'detection':
    predictor = params[NAME]['roi_head']['cls_score']
    predictor['bias'] = predictor['bias'].at[0].add(BACKGROUND_BIAS)
  program: Any = compile_predict(config, NAME, model, mesh)
  compiled = program.lower(params, stats, batch).compile()
  return lambda batch: compiled(params, stats, batch), compiled.memory_analysis()


def measure_statistics(config: ConfigDict, objective: Any, state: Any, batch: Any) -> Any:
  """The running statistics as if batch norm had a momentum of 1: those of one batch. Random weights with the initial
  statistics would give huge activations, and a detector whose proposals all look alike."""
  import jax
  task_config = config.tasks[NAME]
  options = argparse.Namespace(kind=task_config.kind, batch=len(batch['image']), boxes=1)
  labels = make_labels(options, task_config.size, task_config.objects, np.random.default_rng(0))
  old = state.carry['stats']

  def average(params: Any, carry: Any, batch: Any) -> Any:
    return objective.loss(NAME, params, carry, batch, state.step, jax.random.key(0))[1][0]['stats']
  new = jax.jit(average)(state.params, state.carry, {**batch, **labels})
  return jax.tree.map(lambda before, after: before + (after - before) / 0.1, old, new)


def describe_memory(memory: Any) -> str:
  """The compiler's count of bytes; '' on a backend that does not count."""
  if memory is None:
    return 'no analysis of its memory'
  return (f'compiled for {memory.argument_size_in_bytes / 2 ** 20:.0f} MB of arguments and '
          f'{memory.temp_size_in_bytes / 2 ** 20:.0f} MB of temporary memory')


def make_torch_steps(options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  from benchmarks.support import torchvision_tasks
  from configs import common
  labels = make_labels(options, options.size, options.boxes, np.random.default_rng(0))
  return torchvision_tasks.make_steps(
    options, len(CLASSES[options.kind][1]), common.faster_rcnn(options.size), labels,
    dict(lr=LEARNING_RATE, betas=(MOMENTUM, 0.999), weight_decay=WEIGHT_DECAY), BACKGROUND_BIAS)


def describe(options: argparse.Namespace) -> str:
  return (f'{options.kind}, {options.model}, {options.size} px, batch {options.batch}, {options.dtype}, '
          f'{"inference" if options.inference else "training"}')


if __name__ == '__main__':
  options = make_parser().parse_args()
  makers = {'ours': make_our_steps}
  if all(map(importlib.util.find_spec, ('torch', 'torchvision'))):
    makers['torchvision'] = make_torch_steps
  side_by_side.run(makers, 'benchmarks.task_step', options, describe(options),
                   f'task_step {options.kind} {options.model} {options.size}{" inference" * options.inference}',
                   {'torchvision': f'torchvision {options.layout}{" compiled" * options.torch_compile}'})
