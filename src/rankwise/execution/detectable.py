"""What a study of this size can show, said before anything is trained."""

from dataclasses import dataclass

from rankwise.execution.pilot import Pilot, Spread
from rankwise.statistics.power import minimum_detectable_difference, seeds_needed, smallest_decidable_n
from rankwise.study.config import Study

POWER = 0.8
FEW_SEEDS = 5
"""Below this many pairs a standard deviation is hardly known: of 4, its 95 % interval spans a factor of 6 to 7."""


@dataclass(frozen=True, kw_only=True)
class Detectable:
    """The smallest effect that a study can be expected to show."""

    minimum_nats: float | None
    """True difference in test loss that is found with 80 % power, judged by the spread in an earlier study. None: there
    was none, or no difference can be shown with so few seeds."""
    has_enough_seeds: bool
    """Whether any difference, however large, could be called significant."""
    sentences: tuple[str, ...]
    """The same in words, with the numbers it rests on."""


def judge_detectable(study: Study, earlier: Pilot | None) -> Detectable:
    """What the declared comparisons of `study` can show with its seeds.

    Args:
        earlier: Where the spread between seeds is taken from: what a ledger holds of a study of the same name, or the
            pilot that was named; None without either.
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
        told = _expected(study, earlier, num_comparisons)[1] if earlier else []
        return Detectable(minimum_nats=None, has_enough_seeds=False, sentences=(f"{test}; {consequence}", *told))
    minimum_nats, told = _expected(study, earlier, num_comparisons)
    return Detectable(
        minimum_nats=minimum_nats,
        has_enough_seeds=True,
        sentences=(f"{test}; this study has {num_seeds}: enough.", *told),
    )


def _expected(study: Study, earlier: Pilot | None, num_comparisons: int) -> tuple[float | None, list[str]]:
    """The difference that the planned seeds show, and the seeds that the equivalence margin needs."""
    spread = earlier.spread_for(study) if earlier else None
    if earlier is None or spread is None:
        return None, [
            "The smallest difference it can be expected to show is not known before its first run: it follows from the "
            f"spread between seeds, and the ledger holds no finished runs of a study {study.name} to take it from. "
            "--pilot takes it from another study."
        ]
    level, margin = study.compare.level, study.compare.equivalence_nats

    def detectable(num_seeds: int) -> float | None:
        return minimum_detectable_difference(
            spread.sd_nats, num_seeds, level=level, power=POWER, num_comparisons=num_comparisons
        ).difference

    planned = len(study.seeds)
    found, *larger = ((num, detectable(num)) for num in (planned, 2 * planned, 4 * planned))
    more = [f"{num:,} seeds find one of {difference:.4f} nats" for num, difference in larger if difference is not None]
    needed = seeds_needed(spread.sd_nats, margin, level=level, power=POWER, num_comparisons=num_comparisons).n
    sentences = []
    if found[1] is not None:
        sentences.append(
            f"A true difference of {found[1]:.4f} nats is found with {POWER:.0%} power by {planned} seeds."
        )
    sentences.append(
        "; ".join([*more, f"{margin:g} nats, this study's margin of equivalence, take {needed:,} seeds"]) + "."
    )
    return found[1], [*sentences, _basis(study, earlier, spread)]


def _basis(study: Study, earlier: Pilot, spread: Spread) -> str:
    """Where the spread is from, and how far to trust it."""
    fewest, most = spread.num_seeds
    seeds = f"{most}" if fewest == most else f"{fewest} to {most}"
    comparisons = f"{spread.num_comparisons} comparison" + ("s" if spread.num_comparisons > 1 else "")
    text = (
        f"Judged by {earlier.source}: standard deviation of its paired differences {spread.sd_nats:.4f} nats, "
        f"median of {comparisons} over {seeds} seeds."
    )
    if fewest < FEW_SEEDS:
        text += " So few seeds tell no more than its order of magnitude."
    if earlier.is_of_other_data(study):
        text += " Its base model, data or test size is another, so this study's spread may be, too."
    return text
