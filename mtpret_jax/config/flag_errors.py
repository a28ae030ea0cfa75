"""What the command line answers to a mistake in its flags: the rule and what to type."""

import pathlib
import re
import shlex

from mtpret_jax.config.errors import as_line, show
from mtpret_jax.config.locate import BUNDLED, load_config
from mtpret_jax.config.renamed import describe_new_name, new_name
from tfds_builders.common.suggest import find_near, suggest

# What other libraries call a field -> its name here.
ELSEWHERE = {'arch': 'trunk', 'backbone': 'trunk', 'batch_size': 'batch', 'ckpt': 'init_from', 'encoder': 'trunk',
             'img_size': 'size', 'image_size': 'size', 'lr': 'learning_rate', 'num_workers': 'workers',
             'output_dir': 'workdir', 'precision': 'dtype', 'pretrained': 'init', 'wd': 'weight_decay'}


def explain_argument(argument: str, has_config: bool) -> str:
  """What to type for an argument that is no flag: a config file without --config, or, where the command line has a
  config, a variant after a space."""
  if re.search(r'\.py(:|$)', argument):
    return f'did you mean --config={argument}?'
  variant = '; a variant comes after a colon, as in --config=configs/pretrain.py:smoke' if has_config else ''
  return f'arguments must be flags, such as --config.batch=64{variant}'


def preflight_command(argv: list[str]) -> str:
  """The `mtpret_jax.preflight` command that does what the former flag --preflight=POD did."""
  arguments = iter(argv[1:])
  command = ['python', '-m', 'mtpret_jax.preflight']
  for argument in arguments:
    name, equals, pod = argument.partition('=')
    if name.lstrip('-') == 'preflight':
      argument = f'--pod={pod if equals else next(arguments, "v5e:4x4")}'
    command.append(argument)
  return shlex.join(command)


def explain_field(error: Exception, argv: list[str]) -> str:
  """The message for an unknown config field. ml_collections names only the last part of it; this finds its flag."""
  for flag in argv:
    field = re.match(r'--?config\.([\w.]+)', flag)
    new = new_name(field[1]) if field else None
    if new is not None:
      return as_line(f'unknown config field in {show(flag)[1:-1]}: ' + (
        f'it is now --config.{describe_new_name(new)}' if new else 'it no longer exists; leave it out'))
  name = re.search(r"'(\w+)\\?'", str(error))
  flag = next((flag for flag in argv if name and re.match(rf'--config\.([\w.]+\.)?{name[1]}\b', flag)), str(error))
  near = find_near_field(flag, argv)
  remedy = f'did you mean --config.{near}?' if near else '--help with this --config lists the fields'
  return as_line(f'unknown config field in {show(flag)[1:-1]}: {remedy}')


def find_near_field(flag: str, argv: list[str]) -> str:
  """The field of the config that an unknown one most likely means: its plural, one of this name in another section, the
  one that other libraries call so, or one that is spelled nearly like it; '' if there is none."""
  from mtpret_jax.config.fields import list_fields
  given = re.match(r'--?config\.([\w.]+)', flag)
  config = load_config(argv) if given else None
  if not given or config is None:
    return ''
  fields = list_fields(config)
  if f'{given[1]}s' in fields:
    return f'{given[1]}s'
  last = given[1].rpartition('.')[2]
  by_last = {field.rpartition('.')[2]: field for field in reversed(fields)}
  same = by_last.get(last) or by_last.get(ELSEWHERE.get(last, ''))
  return same or find_near(given[1], fields) or by_last.get(find_near(last, by_last), '')


def add_suggestion(message: str) -> str:
  """Adds 'did you mean ...?' to what a config file raises, or to what is raised if it is not there. Configs cannot do
  it themselves, because they import nothing of this package."""
  absent = re.search(r"No such file or directory: '([^']*)'", message)
  if absent:
    path = pathlib.Path(absent[1])
    near = find_near(path.name, [file.name for folder in (path.parent, BUNDLED / path.parent)
                                 for file in folder.glob('*.py')])
    return f'there is no config file {str(path)!r}' + (f': did you mean {str(path.with_name(near))!r}?' if near else '')
  number = re.search(r"flag (\S+?)=.*(?:invalid literal for (int)|could not convert string to float).*'(.*)'", message)
  if number:
    return f'{number[1]}={number[3]}: it must be a {"whole " if number[2] else ""}number'
  words = re.search(r'flag (\S+?)=.*Error while parsing string: (.*?) as tuple', message)
  if words:
    numbers = ', '.join(re.findall(r'(?<!\S)[-+.\d]+(?!\S)', words[2].strip('()')))
    example = f', such as {words[1]}="({numbers})"' if numbers else ' of values with commas between them'
    return f'{words[1]}={words[2]}: it must be a tuple{example}'
  unknown = re.search(r"unknown (?:variant|task) '([^']*)'.*?choose one of ([\w, -]+)", message)
  return message + suggest(unknown[1], unknown[2].split(', ')) if unknown else message
