"""What a comparison found: frozen, plain values that tables and figures are made from. Missing is None, never zero."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rankwise.ledger.results import RunStatus
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
class SeedScore:
    """One reported seed of one arm."""

    seed: int
    run_id: str | None
    """None where the ledger knows no such run."""
    status: RunStatus | Literal["absent"]
    test_loss: float | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class TuningPoint:
    """One learning rate of one arm on the tuning seeds."""

    learning_rate: float
    seeds: tuple[int, ...]
    """Tuning seeds whose run finished; the next two follow the same order."""
    run_ids: tuple[str, ...]
    validation_losses: tuple[float, ...]
    num_diverged: int
    num_missing: int
    chosen: bool

    @property
    def mean(self) -> float | None:
        return sum(self.validation_losses) / len(self.validation_losses) if self.validation_losses else None


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


@dataclass(frozen=True, kw_only=True)
class ArmComparison:
    """Everything the report says about one arm."""

    name: str
    strategy: str
    is_baseline: bool
    is_control: bool
    deviations: tuple[str, ...]
    """What sets the arm apart beside its allocation, such as `different budget`."""
    seeds: tuple[SeedScore, ...]
    test_loss: Estimate | None
    perplexity: Estimate | None
    token_accuracy: Estimate | None
    difference: Difference | None
    """None for the baseline and where no seed finished in both arms."""
    ranks: Span | None
    """Over all sites of all reported runs."""
    budget_params: int | None
    params: Span | None
    residual_params: Span | None
    learning_rate: float | None
    learning_rate_edge: Literal["lowest", "highest"] | None
    """Set where the chosen rate is an end of a list of several: a better one may lie beyond."""
    tuning: tuple[TuningPoint, ...]
    wall_s: float | None
    """Mean over finished runs; each run's share of its pack's time, the probe included."""
    probe_wall_s: float | None
    peak_memory_bytes: int | None
    """Largest of any pack that one of the runs was trained in."""
    predicted_memory_bytes: int | None
    run_ids: tuple[str, ...]
    """Runs that the scores are over."""

    @property
    def finished_seeds(self) -> tuple[int, ...]:
        return tuple(score.seed for score in self.seeds if score.status == "finished")

    @property
    def diverged_seeds(self) -> tuple[int, ...]:
        return tuple(score.seed for score in self.seeds if score.status == "diverged")

    @property
    def missing_seeds(self) -> tuple[int, ...]:
        return tuple(score.seed for score in self.seeds if score.status not in ("finished", "diverged"))


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """All arms of a study against its baseline."""

    study: str
    hypothesis: str
    baseline: str
    level: float
    equivalence_nats: float
    num_seeds: int
    """Declared by the study."""
    family: tuple[str, ...]
    """Arms whose p-values were adjusted together."""
    arms: tuple[ArmComparison, ...]
    minimum_detectable_nats: float | None
    """The median of the comparisons' own; None where none could show anything."""
    warnings: tuple[str, ...]

    def arm(self, name: str) -> ArmComparison:
        return next(arm for arm in self.arms if arm.name == name)
