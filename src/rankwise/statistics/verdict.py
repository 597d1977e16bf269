"""A comparison in words."""

import math
from dataclasses import dataclass
from typing import Literal

from rankwise.statistics.inputs import error_rate
from rankwise.statistics.paired import PairedComparison
from rankwise.statistics.power import seeds_needed, smallest_decidable_n

Word = Literal["better", "worse", "practically the same", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    word: Word
    sentence: str
    """The word with its reason and the number of seeds; numbers in the unit of the values compared."""
    n: int
    """Seeds it rests on."""
    seeds_to_decide: int | None
    """Of an undecided comparison: total seeds at which a difference as large as the observed one, or as the equivalence
    margin if that is larger, would be shown with 80 % power at the observed spread. None: decided, or one seed."""


def verdict(comparison: PairedComparison, adjusted_p: float, *, num_comparisons: int = 1) -> Verdict:
    """What a comparison shows, given its p adjusted over a family of `num_comparisons`.

    The first that holds, with alpha = 1 - level. Each claim needs a test and the interval to agree, because they fail
    differently: the tests see seeds only, the interval may see test examples too.

    1. *practically the same*: TOST rejects, at alpha, a difference of the margin or more, and the interval lies within
       the margin. It stands before significance, because a difference may be real and still too small to matter; the
       sentence then says both.
    2. *better* or *worse*: adjusted p <= alpha, and the interval excludes zero.
    3. *undecided*: all else. Not significant is never read as the same.
    """
    if not 0 <= adjusted_p <= 1:
        raise ValueError(f"adjusted_p must lie between 0 and 1, got {adjusted_p}.")
    alpha = error_rate(comparison.level)
    significant = adjusted_p <= alpha and comparison.interval.excludes(0.0)
    if comparison.equivalence_p <= alpha and comparison.interval.lies_within(comparison.equivalence_margin):
        return _same(comparison, significant)
    if significant:
        return _different(comparison, adjusted_p)
    return _undecided(comparison, num_comparisons)


def _same(comparison: PairedComparison, significant: bool) -> Verdict:
    reason = "there is a difference, and it is smaller than" if significant else "any difference is smaller than"
    sentence = (
        f"practically the same: {reason} {comparison.equivalence_margin:g} "
        f"(TOST p = {comparison.equivalence_p:.2g}, {_seeds(comparison.n)})"
    )
    return Verdict(word="practically the same", sentence=sentence, n=comparison.n, seeds_to_decide=None)


def _different(comparison: PairedComparison, adjusted_p: float) -> Verdict:
    word: Word = "better" if comparison.mean_difference < 0 else "worse"
    direction = "lower" if word == "better" else "higher"
    sentence = (
        f"{word}: {abs(comparison.mean_difference):.3g} {direction} (adjusted p = {adjusted_p:.2g}, "
        f"{_seeds(comparison.n)})"
    )
    return Verdict(word=word, sentence=sentence, n=comparison.n, seeds_to_decide=None)


def _undecided(comparison: PairedComparison, num_comparisons: int) -> Verdict:
    sentence = f"undecided at {_seeds(comparison.n)}"
    floor = smallest_decidable_n(num_comparisons, comparison.level)
    if comparison.n < floor:
        sentence += f"; fewer than {floor} cannot show any difference in a family of {num_comparisons}"
    if math.isnan(comparison.sd_of_differences):
        return Verdict(word="undecided", sentence=sentence, n=comparison.n, seeds_to_decide=None)
    target = max(abs(comparison.mean_difference), comparison.equivalence_margin)
    needed = seeds_needed(
        comparison.sd_of_differences, target, level=comparison.level, num_comparisons=num_comparisons
    ).n
    needed = max(needed, comparison.n + 1)
    sentence += f"; about {needed:,} would decide on a difference of {target:.2g}"
    return Verdict(word="undecided", sentence=sentence, n=comparison.n, seeds_to_decide=needed)


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"
