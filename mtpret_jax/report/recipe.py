"""The report of a recipe: the test scores of all its stages."""

import json
import pathlib

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.test_scores import FILE
from mtpret_jax.report import page
from mtpret_jax.report.tables import align, format_interval, format_score
from mtpret_jax.runtime.atomic_io import write_json


def finish(config: ConfigDict) -> None:
  """Collects the test scores of all stages in `scores.json` and prints their headlines.

  Raises:
    ConfigError: the scores of a stage are damaged.
  """
  table: list[tuple[str, ...]] = [('stage', 'task', 'score', 'value', '95 % interval', 'notes')]
  collected, notes = {}, list[str]()
  for name, stage in config.stages.items():
    path = pathlib.Path(stage.workdir, FILE)
    if not path.exists():  # stages 1 and 2 leave the test splits alone
      continue
    try:
      if not path.is_file():
        raise ValueError('not a file')  # reading a pipe or a device might never end
      scores = json.loads(path.read_text())
      stage_notes = [*scores.get('notes', ()), *scores['pretraining']['notes']]
      collected[name] = {'tasks': scores['tasks'], 'notes': stage_notes}
      notes += [note for note in stage_notes if note not in notes]
      marks = ', '.join(str(notes.index(note) + 1) for note in stage_notes)
      for task, result in scores['tasks'].items():
        score = result['scores'][result['headline']]
        table.append((name, task, result['headline'], format_score(score['value']), format_interval(score['interval']),
                      marks))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
      raise ConfigError(f'{path} is damaged: delete it and run the same command, which scores stage {name} again'
                        ) from error
  workdir = pathlib.Path(config.workdir)
  write_json(workdir / FILE, collected)
  if not notes:
    table = [row[:-1] for row in table]
  print('\n'.join(['Scores on the test splits', *align(table),
                   *(f'Note {number}: {note}.' for number, note in enumerate(notes, 1))]))
  print(f'See {workdir}')
  page.announce(workdir)
