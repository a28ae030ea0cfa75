"""Builder folders as TFDS expects them, and its own command on them."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_metadata

from tests.support.archives import read_all
from tests.support.paths import ROOT
from tfds_builders import build

TASK_OF = {'present': 'image-classification', 'mask': 'semantic-segmentation', 'objects': 'object-detection'}


@pytest.mark.parametrize('name', build.NAMES)
def test_tags_are_tfds_s_and_name_the_tasks_of_the_annotations(name, prepared):
  folder = ROOT / 'tfds_builders' / name
  tags = set(dataset_metadata.load(folder).tags)
  assert tags <= set(dataset_metadata.valid_tags())
  features = tfds.builder_from_directory(build.locate(name, prepared)).info.features
  tasks = {f'ml.task.{task}' for field, task in TASK_OF.items() if field in features}
  assert tags == {'content.data-type.image', 'content.subject.health'} | tasks


@pytest.mark.parametrize('name', build.NAMES)
def test_prepared_datasets_carry_description_and_citation(name, prepared):
  info = tfds.builder_from_directory(build.locate(name, prepared)).info
  assert all(part in info.description for part in ('## Download', '**Licence**', '## Layout', '## Records'))
  for entry in re.split(r'\n(?=@)', info.citation.strip()):
    assert re.match(r'@\w+\{[^,\s]+,\n', entry) and entry.count('{') == entry.count('}')
    assert {'title', 'author', 'year'} <= set(re.findall(r'^ *(\w+) = ', entry, re.MULTILINE))


@pytest.mark.beam
@pytest.mark.parametrize('name', ['mura', 'vinbigdata_cxr'])
def test_tfds_build_prepares_the_same_records(name, archives, prepared, tmp_path):
  absent = [module for module in ('tensorflow', 'apache_beam', 'mlcroissant') if not importlib.util.find_spec(module)]
  if absent:
    pytest.skip(f'the command tfds does not start without {", ".join(absent)}')
  subprocess.run([sys.executable, '-m', 'tensorflow_datasets.scripts.cli.main', 'build', f'tfds_builders/{name}',
                  '--config=256', '--file_format=array_record', f'--manual_dir={archives}', f'--data_dir={tmp_path}'],
                 check=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH': '.'})
  theirs, ours = read_all(build.locate(name, tmp_path)), read_all(build.locate(name, prepared))
  assert theirs.keys() == ours.keys()
  for image_id, record in theirs.items():
    np.testing.assert_equal(record, ours[image_id])
