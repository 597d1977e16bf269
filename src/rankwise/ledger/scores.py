"""One score of all reported runs as one array with named axes: what statistics work on.

A = arms, in the order of the study file; S = reported seeds, in the order of the study file.
"""

from dataclasses import dataclass

import numpy as np

from rankwise.errors import LedgerError
from rankwise.ledger.results import StudyResults

SCORE_NAMES = (
    "test_loss",
    "test_perplexity",
    "test_token_accuracy",
    "validation_loss",
    "validation_token_accuracy",
    "initial_validation_loss",
    "test_calibration_error",
    "test_exact_match",
    "test_rouge_l",
    "test_chrf",
    "general_loss",
    "initial_general_loss",
    "forgetting",
)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Values (A, S), NaN where a run is missing, unfinished, diverged or failed."""

    values_AS: np.ndarray
    arms: tuple[str, ...]
    seeds: tuple[int, ...]

    def of(self, arm: str) -> np.ndarray:
        """The arm's values (S,)."""
        return self.values_AS[self.arms.index(arm)]


def score_array(results: StudyResults, score: str) -> Scores:
    """Raises LedgerError for a score that no run can have."""
    if score not in SCORE_NAMES:
        raise LedgerError(f"study {results.name}: {score!r} is not a score; known are {', '.join(SCORE_NAMES)}.")
    arms, seeds = results.arm_names, tuple(results.study["seeds"])
    values_AS = np.full((len(arms), len(seeds)), np.nan)
    for index, arm in enumerate(arms):
        for run in results.reported(arm):
            if run.status == "finished":
                values_AS[index, seeds.index(run.seed)] = run.scores.get(score, np.nan)
    return Scores(values_AS=values_AS, arms=arms, seeds=seeds)
