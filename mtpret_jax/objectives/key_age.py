"""Detects queries that recognise their own key by its age and not by its image."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

# `explain_key_age` averages over this many queries. The standard error of the difference is then below 0.01.
AGE_QUERIES = 5000
AGE_MARGIN = 0.05  # five standard errors


def explain_key_age(lines: Sequence[Mapping[str, Any]], config: ConfigDict) -> str:
  """What to change if the query encoder tells its key from the queue by the age of the keys; '' if it does not.

  The keys of the queue come from earlier weights of the key encoder than the query's own key, so the query encoder can
  distinguish them without looking at the image. The loss then falls, and the trunk learns little. The queue holds more
  negatives than the batch, so `accuracy` should be below `accuracy_batch`. If it is above, the keys of the queue are
  easier negatives than those of the batch, and only their age differs.

  Args:
    lines: of `metrics.jsonl`, the newest last. The last ones that hold AGE_QUERIES queries count.
    config: of the run. Only negatives from the queue are judged.
  """
  moco = config.moco
  # With `same_source`, the queue also needs more keys of the query's dataset than the batch has keys of all datasets.
  keys = moco.queue // max(len(config.data.datasets), 1) if moco.same_source else moco.queue
  if moco.negatives != 'queue' or keys < config.batch:
    return ''
  queries, accuracies, newest = 0, [], lines[-1]['step'] if lines else 0
  full = -(-moco.queue // config.batch)  # steps; before, the queue holds random vectors, which are easy negatives
  for earlier, line in reversed(list(zip([{'step': 0}, *lines], lines, strict=False))):
    if queries >= AGE_QUERIES or earlier['step'] < full:
      break
    queries += (line['step'] - earlier['step']) * config.batch
    accuracies.append((line['accuracy'], line['accuracy_batch']))
  if queries < AGE_QUERIES:
    return ''
  queue, batch = (sum(column) / len(accuracies) for column in zip(*accuracies, strict=True))
  if not queue > batch + AGE_MARGIN:
    return ''
  return (f'up to step {newest}, queries tell their key from the {moco.queue} keys of the queue more often '
          f'({queue:.2f}) than from the {config.batch - 1} other keys of the batch ({batch:.2f}): they recognise its '
          f'age, because the queue was encoded by earlier weights, and learn less about the images; start again in a '
          f'new workdir with --config.moco.negatives=batch, a --config.moco.momentum closer to 1 (now '
          f'{moco.momentum}) or a shorter --config.moco.queue')
