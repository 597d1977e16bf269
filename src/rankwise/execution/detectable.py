"""What a study of this size can show, said before anything is trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, stdev

from rankwise.ledger.results import StudyResults
from rankwise.reporting.collect import is_scored, reported_runs
from rankwise.statistics.power import minimum_detectable_difference, smallest_decidable_n
from rankwise.study.config import Study

POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Detectable:
    """The smallest effect that a study can be expected to show."""

    minimum_nats: float | None
    """True difference in test loss that is found with 80 % power, judged by the spread in an earlier run of the study.
    None: there was none, or no difference can be shown with so few seeds."""
    has_enough_seeds: bool
    """Whether any difference, however large, could be called significant."""
    sentences: tuple[str, ...]
    """The same in words, with the numbers it rests on."""


def judge_detectable(study: Study, earlier: StudyResults | None) -> Detectable:
    """What the declared comparisons of `study` can show with its seeds.

    Args:
        earlier: What a ledger holds of a study of the same name, if anything.
    """
    num_comparisons, num_seeds, level = len(study.arms) - 1, len(study.seeds), study.compare.level
    if num_comparisons == 0:
        return Detectable(minimum_nats=None, has_enough_seeds=True, sentences=("One arm: nothing is compared.",))
    try:
        needed = smallest_decidable_n(num_comparisons, level)
    except ValueError as error:
        return Detectable(
            minimum_nats=None, has_enough_seeds=False, sentences=(f"No difference can be shown: {error}",)
        )
    enough = num_seeds >= needed
    comparisons = f"{num_comparisons} comparison" + ("s" if num_comparisons > 1 else "")
    test = f"With {comparisons} at level {level:g}, the sign-flip test with Holm needs {needed} seeds"
    if not enough:
        consequence = (
            f"this study has {num_seeds}, so no single difference can be significant. Set seeds: {needed} or more."
        )
        return Detectable(minimum_nats=None, has_enough_seeds=False, sentences=(f"{test}; {consequence}",))
    minimum_nats, sentence = _expected(study, earlier, num_comparisons)
    return Detectable(
        minimum_nats=minimum_nats,
        has_enough_seeds=True,
        sentences=(f"{test}; this study has {num_seeds}: enough.", sentence),
    )


def _expected(study: Study, earlier: StudyResults | None, num_comparisons: int) -> tuple[float | None, str]:
    spreads = list(_spreads(study, earlier)) if earlier else []
    if not spreads:
        return None, (
            "The smallest difference it can be expected to show is not known before its first run: it follows from the "
            f"spread between seeds, and the ledger holds no finished runs of a study {study.name} to take it from."
        )
    found = minimum_detectable_difference(
        median(spreads), len(study.seeds), level=study.compare.level, power=POWER, num_comparisons=num_comparisons
    )
    return found.difference, (
        f"A true difference of {found.difference:.4f} nats is found with {POWER:.0%} power, judged by the study of "
        "this name in the ledger (standard deviation of its paired differences "
        f"{found.sd_of_differences:.4f} nats, median of {len(spreads)} comparisons)."
    )


def _spreads(study: Study, earlier: StudyResults) -> Iterator[float]:
    """Standard deviation of the paired differences in test loss to the baseline, per arm that both studies have."""
    baseline = study.compare.baseline
    if baseline not in earlier.arm_names:
        return
    theirs = reported_runs(earlier, baseline)
    for arm in study.arms:
        if arm.name == baseline or arm.name not in earlier.arm_names:
            continue
        mine = reported_runs(earlier, arm.name)
        seeds = [seed for seed in mine if seed in theirs and is_scored(mine[seed]) and is_scored(theirs[seed])]
        if len(seeds) > 1:
            yield stdev(mine[seed].scores["test_loss"] - theirs[seed].scores["test_loss"] for seed in seeds)
