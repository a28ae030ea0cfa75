"""Names of findings, mask classes and box classes that say a side of the body, such as 'left lung'.

A left-right flip of the image makes a left lung look like a right one, so it must swap such labels too. Where the other
side has no label of its own, a flip would make the label wrong.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# Words of the left side -> words of the right side. They must be whole words: 'lung_l' and 'LungL' name a side, 'cleft'
# and the vertebra 'L4' do not.
WORDS = {
  'left': ('right',), 'l': ('r',), 'lt': ('rt',), 'links': ('rechts',), 'linke': ('rechte',), 'linker': ('rechter',),
  'linkes': ('rechtes',), 'linken': ('rechten',), 'sx': ('dx',), 'sin': ('dex', 'dext'), 'sinister': ('dexter',),
  'sinistra': ('dextra', 'destra'), 'sinistro': ('destro',), 'gauche': ('droite', 'droit'), 'izquierda': ('derecha',),
  'izquierdo': ('derecho',)}
OPPOSITE = WORDS | {right: tuple(left for left, rights in WORDS.items() if right in rights)
                    for rights in WORDS.values() for right in rights}
WORD = re.compile(r'[^\W_]+')
CAPITALISED = re.compile(r'[A-Z]?[^\WA-Z]+|[A-Z]')  # the words of 'lungLeft'


def split_words(name: str) -> list[str]:
  """The words of a name in small letters: 'Lung_L', 'lungL' and 'LUNG l' are all ['lung', 'l']."""
  return [word.lower() for part in WORD.findall(name)
          for word in (CAPITALISED.findall(part) if part.isalpha() and not part.isupper() else [part])]


def list_opposites(name: str) -> set[tuple[str, ...]]:
  """The words that the label of the other side may have; empty if the name says no side, or both."""
  words = split_words(name)
  places = [place for place, word in enumerate(words) if word in OPPOSITE]
  if not places or any(words[other] in OPPOSITE[words[place]] for place in places for other in places):
    return set()
  place = places[0]
  return {(*words[:place], opposite, *words[place + 1:]) for opposite in OPPOSITE[words[place]]}


def find_mirror(names: Sequence[str]) -> tuple[int, ...] | None:
  """For each class, the place of the class that it becomes in a mirrored image; None if no class changes."""
  mirror, _ = pair_sides(names)
  return None if mirror == tuple(range(len(names))) else mirror


def exchange(scores: Any, mirror: tuple[int, ...] | None) -> Any:
  """Scores of mirrored images, whose last axis is classes, with the classes that the images themselves show."""
  return scores if mirror is None else scores[..., np.array(mirror)]


def find_unpaired(names: Sequence[str]) -> list[str]:
  """The names that say a side although no other name says the opposite side of the same thing."""
  return pair_sides(names)[1]


def pair_sides(names: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
  """(`find_mirror` without the None, `find_unpaired`)."""
  words = [tuple(split_words(name)) for name in names]
  mirror, unpaired = list(range(len(names))), []
  for place, name in enumerate(names):
    opposites = list_opposites(name)
    partners = [other for other, of_other in enumerate(words) if of_other in opposites]
    if len(partners) == 1:
      mirror[place] = partners[0]
    elif opposites:
      unpaired.append(name)
  # Both of a pair must name each other; two spellings of one side leave it open which is meant.
  unpaired += [names[place] for place, other in enumerate(mirror) if mirror[other] != place]
  return tuple(other if mirror[other] == place else place for place, other in enumerate(mirror)), unpaired
