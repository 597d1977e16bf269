"""From a study's runs to what is known about each arm, before anything is tested."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rankwise.allocation.strategies import STRATEGIES, build_strategy
from rankwise.errors import AllocationError
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.values import SeedScore, TuningPoint

_DEVIATIONS = {
    "base": "base model or quantization",
    "data": "data",
    "scaling": "scaling",
    "init": "initialisation",
    "dropout": "dropout",
}
"""Settings that are no part of an allocation -> what a report calls them. `train` and `budget` need a closer look."""


def arm_settings(results: StudyResults, arm: str) -> Mapping[str, Any]:
    """The arm's resolved settings."""
    return next(settings for settings in results.study["arms"] if settings["name"] == arm)


def candidate_rates(results: StudyResults, arm: str) -> tuple[float, ...]:
    """Learning rates that the arm was to be tuned over, smallest first."""
    return tuple(sorted(arm_settings(results, arm)["train"]["learning_rates"]))


def chosen_rate(results: StudyResults, arm: str) -> float | None:
    """The arm's learning rate; the only candidate where there is but one, None before the choice."""
    rates = candidate_rates(results, arm)
    return results.chosen_learning_rates.get(arm, rates[0] if len(rates) == 1 else None)


def rate_edge(results: StudyResults, arm: str) -> Literal["lowest", "highest"] | None:
    """Whether the chosen rate is an end of a list of several."""
    rates, chosen = candidate_rates(results, arm), chosen_rate(results, arm)
    if chosen is None or len(rates) < 2 or rates[0] < chosen < rates[-1]:
        return None
    return "lowest" if chosen <= rates[0] else "highest"


def reported_runs(results: StudyResults, arm: str) -> dict[int, RunRow]:
    """Declared seed -> the arm's run at its chosen learning rate, whatever became of it."""
    rate = chosen_rate(results, arm)
    declared = set(results.study["seeds"])
    return {run.seed: run for run in results.reported(arm) if run.learning_rate == rate and run.seed in declared}


def is_scored(run: RunRow) -> bool:
    """Whether the run ended well and has a test loss that is a number."""
    return run.status == "finished" and math.isfinite(run.scores.get("test_loss", math.nan))


def seed_scores(results: StudyResults, arm: str) -> tuple[SeedScore, ...]:
    """Every declared seed in order, those without a run included."""
    runs = reported_runs(results, arm)
    return tuple(
        SeedScore(
            seed=seed,
            run_id=run.id if run else None,
            status=run.status if run else "absent",
            test_loss=run.scores["test_loss"] if run and is_scored(run) else None,
            error=run.error if run else None,
        )
        for seed in results.study["seeds"]
        for run in [runs.get(seed)]
    )


def tuning_points(results: StudyResults, arm: str) -> tuple[TuningPoint, ...]:
    """One point a candidate rate; none for an arm with a single candidate."""
    rates = candidate_rates(results, arm)
    if len(rates) < 2:
        return ()
    runs = [run for run in results.of_arm(arm) if run.purpose == "tuning"]
    return tuple(
        _tuning_point(results, arm, rate, [run for run in runs if run.learning_rate == rate]) for rate in rates
    )


def _tuning_point(results: StudyResults, arm: str, rate: float, runs: Sequence[RunRow]) -> TuningPoint:
    scored = sorted((run for run in runs if _validation_loss(run) is not None), key=lambda run: run.seed)
    diverged = sum(run.status == "diverged" for run in runs)
    return TuningPoint(
        learning_rate=rate,
        seeds=tuple(run.seed for run in scored),
        run_ids=tuple(run.id for run in scored),
        validation_losses=tuple(run.scores["validation_loss"] for run in scored),
        num_diverged=diverged,
        num_missing=max(0, len(results.study["tuning_seeds"]) - len(scored) - diverged),
        chosen=rate == chosen_rate(results, arm),
    )


def _validation_loss(run: RunRow) -> float | None:
    loss = run.scores.get("validation_loss", math.nan)
    return loss if run.status == "finished" and math.isfinite(loss) else None


def budget_of(results: StudyResults, arm: str) -> int | None:
    """Parameters that the arm was allowed; None while none of its runs has been allocated."""
    return next((run.budget_params for run in results.of_arm(arm) if run.budget_params is not None), None)


def deviations(results: StudyResults, arm: str) -> tuple[str, ...]:
    """How the arm differs from the baseline in more than where its ranks are, such as `different budget`."""
    baseline = results.study["compare"]["baseline"]
    mine, theirs = arm_settings(results, arm), arm_settings(results, baseline)
    found = ["budget"] if _budgets_differ(results, arm, baseline) else []
    found += [word for key, word in _DEVIATIONS.items() if mine.get(key) != theirs.get(key)]
    found += ["learning rates"] if candidate_rates(results, arm) != candidate_rates(results, baseline) else []
    found += ["training"] if _without_rates(mine["train"]) != _without_rates(theirs["train"]) else []
    return tuple(f"different {word}" for word in found)


def _budgets_differ(results: StudyResults, arm: str, baseline: str) -> bool:
    """In parameters where they are known: one rank on other targets is another budget."""
    mine, theirs = budget_of(results, arm), budget_of(results, baseline)
    if mine is not None and theirs is not None:
        return mine != theirs
    return bool(arm_settings(results, arm)["budget"] != arm_settings(results, baseline)["budget"])


def _without_rates(train: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in train.items() if key != "learning_rates"}


def measures_signals(results: StudyResults, arm: str) -> bool:
    """Whether the arm's strategy looks at the model or the data. Not, where this version does not know it."""
    settings = arm_settings(results, arm)
    try:
        strategy = build_strategy(settings["strategy"], settings.get("strategy_settings", {}))
    except AllocationError:
        return False
    return bool(strategy.required_signals())


def is_control(strategy: str) -> bool:
    """Whether the strategy exists to be beaten. A strategy that this version does not know is taken for none."""
    return strategy in STRATEGIES and STRATEGIES[strategy].is_control
