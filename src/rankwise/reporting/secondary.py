"""What reported runs measured beside their test loss: calibration, answers, forgetting, over seeds and against the
baseline."""

import math
from collections.abc import Mapping, Sequence

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.estimates import mean_estimate
from rankwise.reporting.values import BaseScores, Estimate, SecondaryScore
from rankwise.streams import stream
from rankwise.study.config import BenchmarkSettings

SECONDARY = ("test_calibration_error", "test_exact_match", "test_rouge_l", "test_chrf", "forgetting")
"""Those that a report tells, in its order, where a study measured them (docs/evaluation.md)."""


BENCHMARK = "benchmark/"
"""Beginning of the names of what benchmarks said."""


def benchmark_labels(results: StudyResults) -> list[str]:
    """Of the benchmarks that the study asks for."""
    return [BenchmarkSettings.model_validate(asked).label for asked in results.study.get("benchmarks", ())]


def base_scores(results: StudyResults) -> tuple[BaseScores, ...]:
    """What benchmarks said of each base alone."""
    return tuple(
        BaseScores(
            model=entry["model"],
            form=entry["form"],
            arms=tuple(entry["arms"]),
            scores={name: value for found in entry["results"] for name, value in found["scores"].items()},
        )
        for entry in results.base_benchmarks.get("bases", ())
    )


def secondary_scores(
    arm: str,
    runs: Sequence[RunRow],
    shared: tuple[Sequence[RunRow], Sequence[RunRow]],
    *,
    benchmarks: Sequence[str],
    level: float,
    rng_seed: int,
) -> dict[str, SecondaryScore]:
    """Every score that some of the arm's runs have.

    Args:
        runs: The arm's scored runs.
        shared: The arm's and the baseline's runs on the seeds that both have, in the same order; empty for the
            baseline itself.
        benchmarks: Labels of those that the study asks for; runs may have others, too.
        level: Of the intervals. They are not adjusted for their number: no verdict rests on them.
    """
    found: dict[str, SecondaryScore] = {}
    asked = tuple(f"{BENCHMARK}{label}/" for label in benchmarks)
    of_benchmarks = sorted({name for run in runs for name in run.scores if name.startswith(asked)})
    for name in (*SECONDARY, *of_benchmarks):
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
