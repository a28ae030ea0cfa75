"""The loop: an interrupted run resumes bit-for-bit, and an error says what to do."""

import json
import logging
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax import stages, train
from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import training_probe
from mtpret_jax.runtime import checkpoint
from mtpret_jax.runtime.loss_guard import Diverged
from mtpret_jax.runtime.preemption import Stopped
from tests.support import small_runs
from tests.support.changed import change
from tests.support.compare_runs import read_losses
from tests.support.interrupted import listen, signal_at, stop_at


@pytest.fixture(scope='module')
def config(prepared, one_block):
  """Stage 1 in eight steps on a trunk of one block, on eight devices."""
  config = small_runs.make_pretrain()
  config.save_every = 2
  config.data.dir = str(prepared)
  return config.lock()


@pytest.fixture(scope='module')
def without_probes(config):
  """Ends in the same bits, and takes less time."""
  return change(config, **{'probe.every': 0})


@pytest.fixture(scope='module')
def undisturbed(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  return workdir, jax.device_get(stages.train_stage(config, workdir))


def list_losses(workdir):
  return list(read_losses(workdir).items())  # a list: also the order of the lines must be the same


@pytest.mark.parametrize('step, every', [(1, 0), (5, 4)])
def test_a_run_stopped_at_any_step_ends_in_the_same_bits_with_and_without_probes(
    step, every, config, undisturbed, tmp_path, monkeypatch):
  workdir, whole = undisturbed
  config = change(config, **{'probe.every': every})
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stop_at(patch, step)
    stages.train_stage(config, tmp_path)
  again = jax.device_get(stages.train_stage(config, tmp_path))
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert list_losses(tmp_path) == list_losses(workdir), 'the same batches were drawn, no line is lost or doubled'
  probes = training_probe.read(workdir)
  assert [line['step'] for line in probes] == [0, 4, 8]
  assert training_probe.read(tmp_path) == (probes if every else []), 'the same scores, no line is lost or doubled'


def test_a_run_that_gets_sigterm_saves_the_step_in_flight_and_ends_in_the_same_bits(
    without_probes, undisturbed, tmp_path, monkeypatch):
  workdir, whole = undisturbed
  told = 'stopped by SIGTERM at step 4 of 8, which is saved'
  with listen(), monkeypatch.context() as patch, pytest.raises(Stopped, match=told):
    signal_at(patch, 3)
    stages.train_stage(without_probes, tmp_path)
  assert int(checkpoint.read_state(tmp_path)[0]['step']) == 4
  again = jax.device_get(stages.train_stage(without_probes, tmp_path))
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert list_losses(tmp_path) == list_losses(workdir)


def test_a_run_that_gets_sigterm_before_its_first_step_has_nothing_to_save(without_probes, tmp_path, monkeypatch):
  with listen(), pytest.raises(Stopped, match='stopped by SIGTERM'):
    signal_at(monkeypatch, 0)
    stages.train_stage(without_probes, tmp_path)
  assert not list((tmp_path / 'checkpoints').iterdir())


def test_a_finished_run_has_nothing_left_to_do(config, undisturbed, caplog):
  workdir, whole = undisturbed
  caplog.set_level(logging.INFO, 'mtpret_jax')
  before = [(workdir / name).read_text() for name in ('metrics.jsonl', 'probes.jsonl')]
  again = jax.device_get(stages.train_stage(config, workdir))
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert [(workdir / name).read_text() for name in ('metrics.jsonl', 'probes.jsonl')] == before
  assert f'trained 8 steps; the checkpoint is in {workdir / "checkpoints" / "8"}' in caplog.messages
  assert 'resumed from step 8 of 8' in caplog.messages and 'trunk: random weights' not in caplog.messages


@pytest.mark.parametrize('field, value, said', [
  ('data.weights', 'balanced', "data.weights is 'by_images' in the checkpoint and 'balanced' in this config"),
  ('optimiser.learning_rate', 0.5, 'optimiser.learning_rate is 0.0048 in the checkpoint and 0.5 in this config')])
def test_another_run_is_refused_with_the_differing_fields(field, value, said, config, undisturbed):
  workdir, _ = undisturbed
  before = (workdir / 'config.json').read_text()
  with pytest.raises(ConfigError, match=f'{re.escape(said)}.*--config.workdir'):
    stages.train_stage(change(config, **{field: value}), workdir)
  assert (workdir / 'config.json').read_text() == before


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_last_good_checkpoint(
    without_probes, tmp_path, monkeypatch):
  compile_step, taken = train.compile_step, iter(range(100))

  def compile_poisoned(*args):
    step = compile_step(*args)

    def run(state, batch):
      state, measures = step(state, batch)
      return state, measures | {'loss': measures['loss'] * (float('nan') if next(taken) == 2 else 1.0)}
    run.lower = step.lower
    return run
  monkeypatch.setattr(train, 'compile_step', compile_poisoned)
  told = r'step 2 .moco. gave loss nan.*bad_batches.jsonl.*last good checkpoint is step 2 in .*/2\. Try a lower'
  with pytest.raises(Diverged, match=told):
    stages.train_stage(without_probes, tmp_path)
  with checkpoint.open_checkpoints(tmp_path, 2) as checkpoints:
    assert checkpoints.latest == 2


def compile_nothing(*args):
  """A step that only counts."""
  def run(state, batch):
    names = ('loss', 'gradient', 'accuracy', 'accuracy_batch')
    return state.replace(step=state.step + 1), {name: jnp.zeros(()) for name in names}
  run.lower = lambda state, batch: types.SimpleNamespace(compile=lambda: None)
  return run


def test_a_run_gets_longer_only_if_its_config_says_so(config, undisturbed, tmp_path, monkeypatch, caplog):
  workdir = shutil.copytree(undisturbed[0], tmp_path / 'run')
  with pytest.raises(ConfigError, match='steps is 8 .* and 12 in .*extend the run with --config.extend=True'):
    stages.train_stage(change(config, steps=12), workdir)
  for other in (dict(steps=4), dict(steps=12, seed=1)):  # shorter; another run
    with pytest.raises(ConfigError, match='is from a run with another config .*: use that config, or start'):
      stages.train_stage(change(config, extend=True, **other), workdir)
  monkeypatch.setattr(train, 'compile_step', compile_nothing)
  longer = change(config, steps=12, extend=True)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), caplog.at_level(logging.INFO):
    stop_at(patch, 1)  # its config is saved, and a checkpoint with that config is not
    stages.train_stage(longer, workdir)
  assert ('the run is extended: steps from 8 to 12. From step 8 on, the learning rate follows the schedule of the new '
          'length, so the result is not that of a run of this length from the start') in caplog.text
  saved.check_unchanged(saved.read_config(workdir), checkpoint.read_fingerprint(workdir), workdir)
  assert int(stages.train_stage(longer, workdir).step) == 12
  assert [step for step, _ in read_losses(workdir)] == list(range(1, 13))
  assert int(stages.train_stage(change(longer, extend=False), workdir).step) == 12, 'it has this length now'


def test_metrics_hold_what_a_person_watches(undisturbed):
  workdir, _ = undisturbed
  line = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])
  assert {'loss', 'accuracy', 'learning_rate', 'spread', 'images_per_second', 'waited'} <= set(line)
  assert list((workdir / 'tensorboard').glob('events*'))


def test_time_to_fetch_a_batch_costs_nothing_while_the_device_is_busy():
  class Loss:
    def __init__(self, ready):
      self.is_ready = lambda: ready
  assert train.is_busy((3, 'moco', {'loss': Loss(False)}))
  assert not train.is_busy((3, 'moco', {'loss': Loss(True)})) and not train.is_busy(None)
