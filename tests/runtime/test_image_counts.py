"""How many images a dry run counts where there are no archives."""

from configs import pretrain
from mtpret_jax.data.sources import open_source
from mtpret_jax.runtime import image_counts
from mtpret_jax.tasks.dataset import open_task
from tests.support.changed import change


def test_phantoms_are_counted_once_they_are_prepared(two_tasks, tmp_path):
  config = change(pretrain.get_config('smoke'), **{'data.dir': two_tasks.data.dir})
  counts = image_counts.count_images(config)
  assert counts['mura'].splits == {split: len(open_source('mura', two_tasks.data.dir, '256', split))
                                   for split in ('train', 'validation', 'test')}
  counts = image_counts.count_images(two_tasks)
  assert {name: own.splits['train'] for name, own in counts.items()} == {
    name: len(open_task(two_tasks, name, 'train')) for name in two_tasks.tasks}
  unknown = image_counts.count_images(change(two_tasks, **{'data.dir': str(tmp_path)}))
  assert [own.splits for own in unknown.values()] == [None] * 2
