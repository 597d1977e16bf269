"""Which runs a study needs: pure functions from a study and the fingerprints of what it trains on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rankwise.errors import StudyError
from rankwise.study.config import Arm, Study
from rankwise.study.runs import Purpose, Run

Fingerprints: TypeAlias = Mapping[str, tuple[str, str]]
"""Name of each arm to the fingerprints of its base model and of its data."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run and what the study needs it for. Two arms of the same specification plan the same run."""

    run: Run
    purpose: Purpose


def tuning_runs(study: Study, fingerprints: Fingerprints, *, rank_all: bool = False) -> list[PlannedRun]:
    """Each arm x candidate learning rate x tuning seed, in that order.

    None for an arm with one candidate, which needs no choice; with `rank_all` for that, too, because arms are ranked by
    these runs.
    """
    return [
        PlannedRun(run=_run(arm, rate, seed, fingerprints, "tuning"), purpose="tuning")
        for arm in study.arms
        if rank_all or len(arm.train.learning_rates) > 1
        for rate in arm.train.learning_rates
        for seed in study.tuning_seeds
    ]


def report_runs(study: Study, chosen_rates: Mapping[str, float], fingerprints: Fingerprints) -> list[PlannedRun]:
    """Each arm x reported seed at the arm's chosen learning rate, in that order.

    `chosen_rates` may leave out arms with one candidate: there is nothing to choose.

    Raises StudyError where an arm has no chosen rate, or one that is not among its candidates.
    """
    return [
        PlannedRun(run=_run(arm, _chosen_rate(arm, chosen_rates), seed, fingerprints, "report"), purpose="report")
        for arm in study.arms
        for seed in study.seeds
    ]


def unique(planned: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The first of each run id, in order: what has to be trained."""
    first_by_id: dict[str, PlannedRun] = {}
    for plan in planned:
        first_by_id.setdefault(plan.run.id, plan)
    return list(first_by_id.values())


def _run(arm: Arm, learning_rate: float, seed: int, fingerprints: Fingerprints, purpose: Purpose) -> Run:
    base_fingerprint, data_fingerprint = fingerprints[arm.name]
    return Run(
        arm=arm,
        learning_rate=learning_rate,
        seed=seed,
        base_fingerprint=base_fingerprint,
        data_fingerprint=data_fingerprint,
        scores_test=purpose == "report",
    )


def _chosen_rate(arm: Arm, chosen_rates: Mapping[str, float]) -> float:
    candidates = arm.train.learning_rates
    rate = chosen_rates.get(arm.name, candidates[0] if len(candidates) == 1 else None)
    if rate not in candidates:
        raise StudyError(
            f"arm {arm.name}: the chosen learning rate is {rate}; it must be one of train.learning_rates "
            f"({', '.join(f'{value:g}' for value in candidates)}). Finish the tuning runs, then plan the reported ones."
        )
    return rate
