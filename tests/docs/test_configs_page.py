"""docs/configs.md is current and complete: every field of every config, with its meaning and its choices."""

import functools

import pytest
from ml_collections import ConfigDict

from configs import continual, finetune, pretrain
from docs import make_configs
from mtpret_jax.config import schema
from mtpret_jax.tasks import KINDS

SECTIONS = make_configs.list_sections()
COMPOSED = {  # fields that sections of their own list
  'augment', 'data.phantoms', 'tasks', 'head', 'heads', 'stages'}


def list_fields(config, prefix=''):
  for name, value in config.items():
    if isinstance(value, ConfigDict) and f'{prefix}{name}' not in COMPOSED:
      yield from list_fields(value, f'{prefix}{name}.')
    elif not isinstance(value, ConfigDict):
      yield f'{prefix}{name}'


def test_the_page_is_what_the_generator_writes():
  assert make_configs.PAGE.read_text() == make_configs.make_page(), (
    'docs/configs.md is not current: run `python -m docs.make_configs`')


@pytest.mark.parametrize('section', SECTIONS, ids=[section.title for section in SECTIONS])
def test_every_field_has_a_meaning(section):
  config = make_configs.get_value(section.small, section.prefix[:-1]) if section.prefix else section.small
  meanings = make_configs.read_comments(section.function)
  assert set(list_fields(config)) <= set(meanings)
  assert all(len(meaning.split()) > 1 for meaning in meanings.values())


@pytest.mark.parametrize('function, rules', [
  (pretrain.base, schema.MOCO), (continual.base, schema.MULTITASK)] + [
  (section.function, KINDS[kind].head_schema) for section, kind in zip(SECTIONS[5:7], ('segmentation', 'detection'),
                                                                       strict=True)])
def test_a_meaning_names_every_choice(function, rules):
  for field, meaning in make_configs.read_comments(function).items():
    rule = functools.reduce(lambda rule, part: rule.get(part, {}), field.split('.'), rules)
    choices = set(getattr(rule, 'choices', ())) - {'one_block'}  # a trunk of the tests
    assert [choice for choice in choices if str(choice) not in meaning] == [], field


def test_every_variant_is_described():
  for name, function in make_configs.list_variants():
    assert make_configs.first_line(function).endswith('.'), name
  assert set(finetune.SIZES) == {'smoke', 'real'}
