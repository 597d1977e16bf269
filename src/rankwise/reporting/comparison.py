"""Compare the arms of a study with its baseline: paired by seed, adjusted for their number, with a verdict each."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from rankwise.errors import ReportError
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.audit import audit_arm
from rankwise.reporting.cautions import cautions
from rankwise.reporting.collect import (
    budget_of,
    chosen_rate,
    deviations,
    is_control,
    is_scored,
    rate_edge,
    reported_runs,
    seed_scores,
    tuning_points,
)
from rankwise.reporting.estimates import describe_difference, mean_estimate, paired_comparison, perplexity_of
from rankwise.reporting.factorial import factorial_of
from rankwise.reporting.flaws import find_flaws
from rankwise.reporting.markdown import one_line
from rankwise.reporting.ordering import ordering_of
from rankwise.reporting.predictions import memory_prediction, time_prediction
from rankwise.reporting.secondary import base_scores, benchmark_labels, secondary_scores
from rankwise.reporting.stability import stability_of
from rankwise.reporting.sweeps import find_sweeps
from rankwise.reporting.values import ArmComparison, Estimate, SoloCost, Span, StudyComparison
from rankwise.statistics.multiplicity import holm
from rankwise.statistics.paired import PairedComparison
from rankwise.streams import stream


def compare_arms(results: StudyResults, *, rng_seed: int = 0) -> StudyComparison:
    """Everything the report says in numbers, as far as the runs in the ledger allow.

    The declared family is all arms but the baseline; a comparison that cannot be made yet stays in it with p = 1, so
    that an unfinished study is not judged more mildly than a finished one. Resampling draws from named streams of
    `rng_seed`: the same results give the same numbers.

    Raises ReportError where the study's baseline is none of its arms.
    """
    settings = results.study["compare"]
    if settings["baseline"] not in results.arm_names:
        raise ReportError(
            f"study {one_line(results.name)}: its baseline, {one_line(settings['baseline'])}, is none of its "
            f"{len(results.arm_names)} arms, so there is nothing to report. The ledger was changed by something else: "
            "run `rankwise study` with the study file again, which stores its arms anew; finished runs are kept."
        )
    family = tuple(name for name in results.arm_names if name != settings["baseline"])
    arms = [_describe_arm(results, name, rng_seed) for name in results.arm_names]
    arms = _add_differences(results, arms, family, rng_seed)
    detectable = [arm.difference.minimum_detectable_nats for arm in arms if arm.difference]
    known = [value for value in detectable if value is not None]
    return StudyComparison(
        study=results.name,
        hypothesis=results.hypothesis,
        baseline=settings["baseline"],
        level=settings["level"],
        equivalence_nats=settings["equivalence_nats"],
        num_seeds=len(results.study["seeds"]),
        family=family,
        arms=tuple(arms),
        minimum_detectable_nats=median(known) if known else None,
        factorial=factorial_of(results, rng_seed),
        ordering=ordering_of(results),
        flaws=find_flaws(results, arms),
        memory_prediction=memory_prediction(results.runs),
        time_prediction=time_prediction(results.runs),
        sweeps=find_sweeps(results, arms, rng_seed),
        base_scores=base_scores(results),
        warnings=cautions(results, arms),
        data_summary=dict(results.data_summary),
        environment=dict(results.environment),
    )


def _describe_arm(results: StudyResults, name: str, rng_seed: int) -> ArmComparison:
    """The arm by itself, not compared yet."""
    reported = tuple(reported_runs(results, name).values())
    scored = [run for run in reported if is_scored(run)]
    is_baseline = name == results.study["compare"]["baseline"]
    shared: tuple[list[RunRow], list[RunRow]] = ([], []) if is_baseline else _shared_runs(results, name)
    strategy = next(arm["strategy"] for arm in results.study["arms"] if arm["name"] == name)
    test_loss = _score(results, name, scored, "test_loss", rng_seed)
    return ArmComparison(
        name=name,
        strategy=strategy,
        is_baseline=is_baseline,
        is_control=is_control(strategy),
        deviations=deviations(results, name),
        seeds=seed_scores(results, name),
        test_loss=test_loss,
        perplexity=test_loss and perplexity_of(test_loss),
        token_accuracy=_score(results, name, scored, "test_token_accuracy", rng_seed),
        difference=None,
        ranks=Span.of(rank for run in reported for rank in run.spent_ranks),
        budget_params=budget_of(results, name),
        params=Span.of(run.spent_params for run in reported),
        residual_params=Span.of(run.unspent_params for run in reported),
        learning_rate=chosen_rate(results, name),
        learning_rate_edge=rate_edge(results, name),
        tuning=tuning_points(results, name),
        wall_s=_mean(run.wall_s for run in scored),
        predicted_wall_s=_mean(run.predicted_wall_s for run in scored),
        probe_wall_s=_mean(run.probe_wall_s for run in scored),
        probe_peak_memory_bytes=_largest(run.probe_peak_memory_bytes for run in scored),
        peak_memory_bytes=_largest(run.peak_memory_bytes for run in scored),
        predicted_memory_bytes=_largest(run.predicted_memory_bytes for run in scored),
        solo=_solo_cost(scored),
        run_ids=tuple(run.id for run in scored),
        audit=audit_arm(results, name),
        stability=stability_of(results, name),
        secondary=secondary_scores(
            name,
            scored,
            shared,
            benchmarks=benchmark_labels(results),
            level=results.study["compare"]["level"],
            rng_seed=rng_seed,
        ),
    )


def _solo_cost(scored: Sequence[RunRow]) -> SoloCost | None:
    runs = [run for run in scored if run.pack_slots == 1]
    wall_s = _mean(run.wall_s for run in runs)
    if wall_s is None:
        return None
    return SoloCost(
        num_runs=len(runs),
        wall_s=wall_s,
        peak_memory_bytes=_largest(run.peak_memory_bytes for run in runs),
        predicted_memory_bytes=_largest(run.predicted_memory_bytes for run in runs),
    )


def _score(results: StudyResults, name: str, runs: Sequence[RunRow], score: str, rng_seed: int) -> Estimate | None:
    values = [run.scores[score] for run in runs if score in run.scores]
    level = results.study["compare"]["level"]
    return mean_estimate(values, level=level, rng=stream(rng_seed, "bootstrap", name, score)) if values else None


def _add_differences(
    results: StudyResults, arms: Sequence[ArmComparison], family: tuple[str, ...], rng_seed: int
) -> list[ArmComparison]:
    """The arms with their differences to the baseline, their p-values adjusted together."""
    settings = results.study["compare"]
    paired: dict[str, PairedComparison | None] = {
        name: paired_comparison(
            *_shared_runs(results, name),
            level=settings["level"],
            equivalence_nats=settings["equivalence_nats"],
            rng=stream(rng_seed, "bootstrap", name, "difference"),
        )
        for name in family
    }
    if not any(paired.values()):
        return list(arms)
    adjusted = holm([found.p_value if found else 1.0 for found in paired.values()], level=settings["level"])
    p_holm = dict(zip(family, map(float, adjusted.adjusted_p_M), strict=True))
    return [
        replace(
            arm,
            difference=describe_difference(
                found, *_shared_runs(results, arm.name), p_holm=p_holm[arm.name], num_comparisons=len(family)
            ),
        )
        if (found := paired.get(arm.name))
        else arm
        for arm in arms
    ]


def _shared_runs(results: StudyResults, arm: str) -> tuple[list[RunRow], list[RunRow]]:
    """Runs of the arm and of the baseline on the seeds on which both were scored, in seed order."""
    mine = reported_runs(results, arm)
    theirs = reported_runs(results, results.study["compare"]["baseline"])
    seeds = [s for s in sorted(mine) if s in theirs and is_scored(mine[s]) and is_scored(theirs[s])]
    return [mine[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
