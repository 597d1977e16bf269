"""Arms that differ in one setting alone: ranks, sets of layers, quantizations; and the contrasts that answer for it.

The declared family compares every arm with the baseline. A sweep asks other questions of the same runs: what does the
next doubling of the rank buy, what does 4-bit cost at *this* rank? Its contrasts are paired by seed like all others;
their intervals are not adjusted for their number, and the report says so.

S = seeds, R = ranks.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.collect import arm_settings, is_scored, reported_runs
from rankwise.reporting.estimates import mean_estimate, paired_comparison, to_estimate
from rankwise.reporting.values import ArmComparison, Contrast, Estimate, Sweep
from rankwise.streams import stream

Settings = Mapping[str, Any]

FEWEST_RANKS = 3
"""With two there is one difference, and the table of all arms says it already."""


def find_sweeps(results: StudyResults, arms: Sequence[ArmComparison], rng_seed: int) -> tuple[Sweep, ...]:
    """Sweeps of ranks, then of layers, then of quantizations, each in the order of the study's arms."""
    contrasts = _Contrasts(results, arms, rng_seed)
    return (
        *_rank_sweeps(results, contrasts),
        *_target_sweeps(results, arms, contrasts),
        *_quantization_sweeps(results, contrasts),
    )


class _Contrasts:
    """Paired differences of any two arms of a study."""

    def __init__(self, results: StudyResults, arms: Sequence[ArmComparison], rng_seed: int) -> None:
        self._results = results
        self._difference_of = {arm.name: arm.difference for arm in arms}
        self._rng_seed = rng_seed

    def of(self, arm: str, reference: str) -> list[Contrast]:
        """One contrast; none without a seed on which both finished. Against the baseline it is the arm's own."""
        known = self._difference_of[arm]
        if known is not None and reference == self._results.study["compare"]["baseline"]:
            return [Contrast(arm=arm, reference=reference, estimate=known.estimate)]
        mine, theirs = self._shared_runs(arm, reference)
        settings = self._results.study["compare"]
        found = paired_comparison(
            mine,
            theirs,
            level=settings["level"],
            equivalence_nats=settings["equivalence_nats"],
            rng=stream(self._rng_seed, "bootstrap", "sweep", arm, reference),
        )
        if found is None:
            return []
        return [Contrast(arm=arm, reference=reference, estimate=to_estimate(found.mean_difference, found.interval))]

    def bend(self, arms: Sequence[str], ranks: Sequence[int]) -> Estimate | None:
        """See `Sweep.bend`; of ranks in rising order, the middle one is where the halves meet."""
        runs = {arm: _scored(self._results, arm) for arm in arms}
        seeds = [seed for seed in self._results.study["seeds"] if all(seed in found for found in runs.values())]
        if not seeds:
            return None
        loss_RS = np.array([[runs[arm][seed].scores["test_loss"] for seed in seeds] for arm in arms])
        doublings_R, middle = np.log2(ranks), len(arms) // 2
        lower_S = (loss_RS[0] - loss_RS[middle]) / (doublings_R[middle] - doublings_R[0])
        upper_S = (loss_RS[middle] - loss_RS[-1]) / (doublings_R[-1] - doublings_R[middle])
        level = self._results.study["compare"]["level"]
        return mean_estimate(
            list(upper_S - lower_S), level=level, rng=stream(self._rng_seed, "bootstrap", "bend", *arms)
        )

    def _shared_runs(self, arm: str, reference: str) -> tuple[list[RunRow], list[RunRow]]:
        mine, theirs = _scored(self._results, arm), _scored(self._results, reference)
        seeds = [seed for seed in sorted(mine) if seed in theirs]
        return [mine[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _scored(results: StudyResults, arm: str) -> dict[int, RunRow]:
    return {seed: run for seed, run in reported_runs(results, arm).items() if is_scored(run)}


def _rank_sweeps(results: StudyResults, contrasts: _Contrasts) -> Iterator[Sweep]:
    rank_of = {arm: arm_settings(results, arm)["budget"].get("rank") for arm in results.arm_names}
    groups = _alike([arm for arm in results.arm_names if rank_of[arm]], results, ("budget", "rank"))
    for group in groups:
        arms = sorted(group, key=lambda arm: int(rank_of[arm]))
        ranks = [int(rank_of[arm]) for arm in arms]
        if len(set(ranks)) < FEWEST_RANKS or len(set(ranks)) < len(ranks):
            continue
        steps = [contrast for lower, higher in pairwise(arms) for contrast in contrasts.of(higher, lower)]
        yield Sweep(
            axis="rank",
            held="",
            levels={arm: f"rank {rank}" for arm, rank in zip(arms, ranks, strict=True)},
            contrasts=(*steps, *contrasts.of(arms[-1], arms[0])),
            bend=contrasts.bend(arms, ranks),
        )


def _target_sweeps(results: StudyResults, arms: Sequence[ArmComparison], contrasts: _Contrasts) -> Iterator[Sweep]:
    """Twice: of arms that may store equally much, and of arms that have the same rank everywhere."""
    budget_of = {arm.name: arm.budget_params for arm in arms}
    rank_of = {arm.name: arm.ranks.low if arm.ranks and arm.ranks.low == arm.ranks.high else None for arm in arms}
    for held_of, words in ((budget_of, "equal parameters ({:,})"), (rank_of, "equal rank ({})")):
        for group in _alike(list(results.arm_names), results, ("targets",), ("budget",)):
            for held in dict.fromkeys(held_of[arm] for arm in group if held_of[arm] is not None):
                members = [arm for arm in group if held_of[arm] == held]
                levels = {arm: _targets_in_words(arm_settings(results, arm)["targets"]) for arm in members}
                if len(set(levels.values())) > 1:
                    found = _against_reference("targets", f"at {words.format(held)}", levels, "all-linear", contrasts)
                    yield replace(found, contrasts=(*found.contrasts, *_mlp_against_attention(found, contrasts)))


def _mlp_against_attention(sweep: Sweep, contrasts: _Contrasts) -> list[Contrast]:
    """What most published comparisons of layers ask; none where one of them is the reference anyway."""
    arm_of = {level: arm for arm, level in [*sweep.levels.items()][:0:-1]}  # of two arms of one level the first
    return contrasts.of(arm_of["mlp"], arm_of["attention"]) if {"mlp", "attention"} <= set(arm_of) else []


def _targets_in_words(targets: str | Sequence[str]) -> str:
    return targets if isinstance(targets, str) else ", ".join(targets)


def _quantization_sweeps(results: StudyResults, contrasts: _Contrasts) -> Iterator[Sweep]:
    groups = _alike(list(results.arm_names), results, ("base", "quantization"))
    for group in groups:
        levels = {arm: str(arm_settings(results, arm)["base"].get("quantization", "none")) for arm in group}
        if len(set(levels.values())) > 1:
            rank = arm_settings(results, group[0])["budget"].get("rank")
            held = f"at rank {rank}" if rank and len(groups) > 1 else ""
            yield _against_reference("quantization", held, levels, "none", contrasts)


def _against_reference(axis: Any, held: str, levels: Mapping[str, str], wanted: str, contrasts: _Contrasts) -> Sweep:
    """Every arm against the first whose level is `wanted`, or else against the first of all."""
    reference = next((arm for arm, level in levels.items() if level == wanted), next(iter(levels)))
    others = [arm for arm in levels if arm != reference]
    return Sweep(
        axis=axis,
        held=held,
        levels={reference: levels[reference]} | {arm: levels[arm] for arm in others},
        contrasts=tuple(contrast for arm in others for contrast in contrasts.of(arm, reference)),
    )


def _alike(arms: Sequence[str], results: StudyResults, *left_out: tuple[str, ...]) -> list[list[str]]:
    """The arms in groups that share every setting but their names and those at the paths `left_out`."""
    groups: dict[str, list[str]] = {}
    for arm in arms:
        rest = json.loads(json.dumps({**arm_settings(results, arm), "name": None}))
        for *sections, key in left_out:
            place = rest
            for section in sections:
                place = place[section]
            place.pop(key, None)
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(arm)
    return [group for group in groups.values() if len(group) > 1]


def per_doubling(estimate: Estimate, low_rank: int, high_rank: int) -> float:
    """The difference shared out over the doublings between two ranks."""
    return estimate.value / math.log2(high_rank / low_rank)
