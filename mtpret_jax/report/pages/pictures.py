"""The pictures of a run, embedded into its page."""

import base64
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from mtpret_jax.report.blocks import Block, Picture, Words
from mtpret_jax.report.run_files import DAMAGED, RunFiles

FOLDER, CAPTIONS = 'pictures', 'captions.json'
# Files of the workdir -> title and caption. Pictures that the page draws itself, such as rounds.png, are not here.
KNOWN: Mapping[str, tuple[str, str]] = {
  'views.png': ('What stage 1 sees', 'Training images and two random views of each.'),
  'neighbours.png': ('Nearest neighbours', 'Validation images, and below each the training images that the trunk finds '
                                           'most alike.')}
EXAMPLES = 'examples_'
LARGE = 150_000  # bytes; a larger PNG is stored as WebP, which takes a third
MOST = 3_500_000  # bytes of all pictures of a page, as text


def make_picture_blocks(run: RunFiles) -> Iterator[Block]:
  """The pictures in their order, as many as fit."""
  total, left_out = 0, []
  for path, title, caption in list_pictures(run):
    try:
      source = embed(path)
    except DAMAGED as error:
      run.problems.append(f'{path.name} cannot be shown ({error}).')
      continue
    if total + len(source) > MOST:
      left_out.append(str(path.relative_to(run.folder)))
      continue
    total += len(source)
    yield Picture(source, title, caption)
  if left_out:
    yield Words([f'Not embedded, to keep this page small: {", ".join(left_out)}.'], tone='muted')


def list_pictures(run: RunFiles) -> Iterator[tuple[pathlib.Path, str, str]]:
  """(path, title, caption) of every picture."""
  for name, (title, caption) in KNOWN.items():
    if run.has(name):
      yield run.folder / name, title, caption
  for path in sorted(run.folder.glob(f'{EXAMPLES}*.png')):
    yield path, f'Predictions: {path.stem.removeprefix(EXAMPLES)}', 'Images with their labels and predictions.'
  for entry in read_captions(run):
    path = run.folder / FOLDER / pathlib.PurePath(str(entry['file'])).name
    if path.is_file():
      yield path, str(entry.get('title', path.stem)), str(entry.get('caption', ''))


def read_captions(run: RunFiles) -> Sequence[Mapping[str, object]]:
  """The list in `pictures/captions.json`."""
  path = run.folder / FOLDER / CAPTIONS
  if not path.is_file():
    return []
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    return [entry for entry in content if isinstance(entry, dict) and 'file' in entry]
  except DAMAGED as error:
    run.problems.append(f'{FOLDER}/{CAPTIONS} is damaged ({error}), so its pictures are missing.')
    return []


def embed(path: pathlib.Path) -> str:
  """The picture as a data URI."""
  from PIL import Image
  content, kind = path.read_bytes(), 'png'
  with Image.open(io.BytesIO(content)) as image:
    image.load()
    if len(content) > LARGE:
      file = io.BytesIO()
      image.convert('RGB').save(file, 'WEBP', quality=85)
      content, kind = file.getvalue(), 'webp'
  return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
