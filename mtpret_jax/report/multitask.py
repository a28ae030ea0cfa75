"""The report of stages 2 and 3."""

from ml_collections import ConfigDict

from mtpret_jax.evaluation import test_scores
from mtpret_jax.report import page, rounds, scores
from mtpret_jax.runtime import distributed


def finish(config: ConfigDict) -> None:
  """With one task, scores the best state on the test split. With several, reports the validation scores round by round
  and leaves the test splits alone: they are for stage 3."""
  if len(config.tasks) > 1:
    distributed.run_on_first(lambda: rounds.report_rounds(config))
    return
  scored = test_scores.score_best(config)
  distributed.run_on_first(lambda: report_scores(scored))


def evaluate_run(config: ConfigDict) -> None:
  """Scores an earlier run again, see configs/evaluate.py."""
  scored = test_scores.evaluate_run(config)
  distributed.run_on_first(lambda: report_scores(scored))


def report_scores(scored: test_scores.Scored) -> None:
  scores.report_scores(scored)
  page.announce(scored.workdir)
