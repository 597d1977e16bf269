"""What reported runs measured beside their test loss: calibration, answers, forgetting, over seeds and against the
baseline."""

import math
from collections.abc import Mapping, Sequence

from rankwise.ledger.results import RunRow
from rankwise.reporting.estimates import mean_estimate
from rankwise.reporting.values import Estimate, SecondaryScore
from rankwise.streams import stream

SECONDARY = ("test_calibration_error", "test_exact_match", "test_rouge_l", "test_chrf", "forgetting")
"""Those that a report tells, in its order, where a study measured them (docs/evaluation.md)."""


def secondary_scores(
    arm: str,
    runs: Sequence[RunRow],
    shared: tuple[Sequence[RunRow], Sequence[RunRow]],
    *,
    level: float,
    rng_seed: int,
) -> dict[str, SecondaryScore]:
    """Every score that some of the arm's runs have.

    Args:
        runs: The arm's scored runs.
        shared: The arm's and the baseline's runs on the seeds that both have, in the same order; empty for the
            baseline itself.
        level: Of the intervals. They are not adjusted for their number: no verdict rests on them.
    """
    found: dict[str, SecondaryScore] = {}
    for name in SECONDARY:
        values = [value for run in runs if (value := _value(run.scores, name)) is not None]
        pairs = [(_value(mine.scores, name), _value(theirs.scores, name)) for mine, theirs in zip(*shared, strict=True)]
        differences = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        if values:
            found[name] = SecondaryScore(
                mean=mean_estimate(values, level=level, rng=stream(rng_seed, "bootstrap", arm, name)),
                difference=_difference(differences, level, rng_seed, arm, name),
            )
    return found


def _difference(values: Sequence[float], level: float, rng_seed: int, arm: str, name: str) -> Estimate | None:
    rng = stream(rng_seed, "bootstrap", arm, f"{name} difference")
    return mean_estimate(values, level=level, rng=rng) if values else None


def _value(scores: Mapping[str, float], name: str) -> float | None:
    value = scores.get(name, math.nan)
    return value if math.isfinite(value) else None
