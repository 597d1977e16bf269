"""Numbers with what is needed to read them: a mean with its interval, a range, a paired difference with its verdict."""

from collections.abc import Iterable
from dataclasses import dataclass

from rankwise.statistics.verdict import Word


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its interval; without one where there were too few values for it."""

    value: float
    low: float | None
    high: float | None
    num: int
    """Values that the mean is over."""
    method: str
    """How the interval was computed, in words; why there is none."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Smallest and largest of a whole number over sites or runs."""

    low: int
    high: int

    @classmethod
    def of(cls, values: Iterable[int | None]) -> "Span | None":
        present = [value for value in values if value is not None]
        return cls(low=min(present), high=max(present)) if present else None


@dataclass(frozen=True, kw_only=True)
class Range:
    """Smallest and largest of a quantity over sites or runs."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Range | None":
        present = [value for value in values if value is not None]
        return cls(low=min(present), high=max(present)) if present else None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm's test loss minus the baseline's, over the seeds on which both finished. Negative is better."""

    estimate: Estimate
    """Nats per answer token."""
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    p: float | None
    """Two-sided sign-flip test over seeds; None for one seed."""
    p_holm: float | None
    """`p`, adjusted over the declared family of comparisons."""
    p_equivalence: float | None
    """Two one-sided tests of "the difference is at least `equivalence_nats`"; small means practically the same."""
    effect_size: float | None
    """Mean of the paired differences in their own standard deviations, with Hedges' correction."""
    improvement_frac: float
    """Share of seeds on which the arm beat the baseline, ties counted half."""
    minimum_detectable_nats: float | None
    """The difference that this number of seeds shows with 80 % power; None where they can show none."""
    seeds_to_decide: int | None
    """Of an undecided comparison: seeds that would show a difference of the size seen, or of the equivalence margin."""
    outcome: Word
    verdict: str
    """The outcome in a sentence, with its reason."""
    method: str
    """How the p-values were computed, in words."""
