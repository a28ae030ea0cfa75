"""The schedule of a run in words: its numbers are those that the run uses."""

from configs import continual, finetune, pretrain
from mtpret_jax.report.schedule import describe_schedule


def test_stage_1_has_a_line_with_all_datasets():
  assert describe_schedule(pretrain.get_config('muscle9'), {'mura': 100_000, 'tbx11k': 69_257}) == [
    'pretrain: 169,257 training images of 2 datasets, batch 256, 132,000 steps (990 of warm-up), 199.6 epochs, '
    'learning rate 0.03 to 0']


def test_stage_2_has_a_line_for_each_task():
  config = continual.get_config('muscle4')
  config.tasks.lung.learning_rates = (0.02, 0.001)
  images = {'pneumonia': 4686, 'abnormality': 32_013, 'lung': 564, 'tuberculosis': 640}
  lines = describe_schedule(config, images)
  assert lines[:3] == [
    'pneumonia: 4,686 training images, batch 32, 10 visits of 146 steps (18 of warm-up), 10.0 epochs in all, learning '
    'rate 0.01 to 0',
    'abnormality: 32,013 training images, batch 32, 10 visits of 1,000 steps (125 of warm-up), 10.0 epochs in all, '
    'learning rate 0.01 to 0',
    'lung: 564 training images, batch 32, 10 visits of 20 steps (2 of warm-up), at least min_steps=20 (epochs=1 has '
    '17), 11.3 epochs in all, learning rate 0.02 to 0.001']
  config.order = 'sequential'
  assert '1 visit of 1,460 steps (182 of warm-up), 10.0 epochs in all' in describe_schedule(config, images)[0]
  config.order = 'joint'
  assert ('10 visits of 296 steps (37 of warm-up) shared by all tasks, 167.9 epochs in all, learning rate 0.01 to 0'
          in describe_schedule(config, images)[2])


def test_stage_3_says_when_it_ends_early():
  assert describe_schedule(finetune.get_config('real,jaw'), {'jaw': 93}) == [
    'jaw: 93 training images, batch 32, 1 visit of 500 steps (10 of warm-up), at least min_steps=500 (epochs=50 has '
    '145), 172.0 epochs in all, learning rate 0.01 to 0; up to 50 validations, ends after 20 in a row '
    'without a better score']


def test_the_most_steps_of_a_visit_are_named_where_they_count():
  config = finetune.get_config('real,lung')
  config.tasks.lung.max_steps = 600
  assert '1 visit of 600 steps (12 of warm-up), at most max_steps=600 (epochs=50 has 881), 34.0' in describe_schedule(
    config, {'lung': 564})[0]
  config.tasks.lung.steps = 40
  assert '1 visit of 40 steps (1 of warm-up), 2.3 epochs' in describe_schedule(config, {'lung': 564})[0]
