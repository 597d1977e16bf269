"""What a comparison found: frozen, plain values that tables and figures are made from. Missing is None, never zero."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
class SecondaryScore:
    """A score on which no verdict rests."""

    mean: Estimate
    difference: Estimate | None
    """The arm's minus the baseline's, paired by seed; None for the baseline and without a pair."""


@dataclass(frozen=True, kw_only=True)
class BaseScores:
    """What benchmarks said of a base model alone."""

    model: str
    form: str
    """How it is quantized, or `none`."""
    arms: tuple[str, ...]
    """That stand on it."""
    scores: Mapping[str, float]
    """Named as those of arms."""


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
class Range:
    """Smallest and largest of a quantity over sites or runs."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Range | None":
        present = [value for value in values if value is not None]
        return cls(low=min(present), high=max(present)) if present else None


@dataclass(frozen=True, kw_only=True)
class ArmAudit:
    """What the arm's reported runs were read back to hold."""

    num_runs: int
    """Finished runs."""
    num_audited: int
    """Those whose adapter was audited when it was stored; runs of older versions were audited before training only."""
    num_sites: int
    """Over all finished runs."""
    exceptions: tuple[str, ...]
    """What differs from the plan, a sentence each; empty is what it should be."""
    scaling: str
    """The rule, in words."""
    init: str
    scales: Range | None
    lr_factors_down: Range | None
    lr_factors_up: Range | None
    stored_params: Span | None
    """Of the adapter in its folder."""
    held_params: Span | None
    """The most that were active at once while training."""
    num_revisions: Span | None
    """Steps after which a dynamic strategy moved ranks, per run."""
    num_unmoved: Span | None
    """Components per run that are still what they were before the first step."""


@dataclass(frozen=True, kw_only=True)
class ArmStability:
    """How evenly the arm's reported runs trained, those that diverged included."""

    num_runs: int
    num_diverged: int
    diverged_steps: Span | None
    loss_spikes: float
    """Mean number per run; see `rankwise.statistics.spikes`."""
    grad_spikes: float
    num_judged: float
    """Mean number per run of the steps that could have been one."""
    end_above_best_nats: float | None
    """Validation loss at the last evaluation minus the lowest one; mean over runs."""
    peak_above_start_nats: float
    """Highest training loss minus that of the first step; mean over runs. 0: no batch was worse than the first."""
    largest_step: Range | None
    """Over runs: the largest norm of one step in the effective weights of all sites."""
    largest_step_group: str | None
    """The group that moved most in the largest of them."""
    step_of_group: dict[str, float]
    """Median over steps, then over runs, of the norm of a step in the group's effective weights."""
    first_step_of_group: dict[str, float]
    """The same of the first step that moved anything, when `up` is still zero; median over runs."""
    expected_of_group: dict[str, float]
    """The same by the formula of `rankwise.reporting.stability`, up to a factor that arms of one initialisation share.
    """


@dataclass(frozen=True, kw_only=True)
class MainEffect:
    """What a level of a factor does to the test loss against the factor's reference level, all else equal."""

    factor: str
    level: str
    reference: str
    estimate: Estimate
    """Nats per answer token, over seeds."""
    num_cells: int
    """Combinations of the other factors that it is averaged over, of `num_all_cells` that the study has."""
    num_all_cells: int


@dataclass(frozen=True, kw_only=True)
class InteractionEffect:
    """How much the effect of one factor's level changes at a level of another, against the reference levels of both."""

    factors: tuple[str, str]
    levels: tuple[str, str]
    estimate: Estimate
    num_cells: int


@dataclass(frozen=True, kw_only=True)
class MixedEffect:
    """A level's fixed effect in the mixed model."""

    factor: str
    level: str
    reference: str
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class SeedVariance:
    """Main effects and the luck of the seed, fitted together to every finished run of a factorial."""

    effects: tuple[MixedEffect, ...]
    sd_seed: float
    """Standard deviation between seeds, nats: what pairing takes out."""
    sd_rest: float
    """Standard deviation of the rest, nats."""
    seed_frac: float
    """Share of the variance that the seed explains."""
    num_runs: int
    method: str


@dataclass(frozen=True, kw_only=True)
class Factorial:
    """Arms that vary two or more factors at once and nothing else."""

    factors: dict[str, tuple[str, ...]]
    """Factor -> its levels, the reference (the baseline's) first."""
    arms: tuple[str, ...]
    num_combinations: int
    """Of a full factorial; the design is balanced where there are as many arms."""
    seeds: tuple[int, ...]
    """On which every one of the arms finished."""
    left_out_seeds: tuple[int, ...]
    main_effects: tuple[MainEffect, ...]
    interactions: tuple[InteractionEffect, ...]
    mixed: SeedVariance | None
    """None where the model cannot be fitted."""


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """How alike single seeds order the arms that have the baseline's budget and settings."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    """On which every one of the arms finished."""
    tau: Estimate
    """Kendall's tau, mean over pairs of seeds: 1 the same order, 0 none in common."""
    p: float | None
    """Friedman's test of "no arm tends to be above another"."""
    first_frac: dict[str, float]
    """Share of the seeds in which each arm has the lowest test loss."""


@dataclass(frozen=True, kw_only=True)
class FlawCheck:
    """One known flaw of comparing rank allocations, judged for this study by what its ledger holds."""

    flaw: str
    """What others did, in words."""
    is_avoided: bool | None
    """None: there is nothing yet to judge it by."""
    evidence: str
    """Numbers, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class SoloCost:
    """What an arm takes by itself: from those of its reported runs that shared their pack with no other."""

    num_runs: int
    wall_s: float
    """Mean over the runs, the probe included."""
    peak_memory_bytes: int | None
    """Largest of any of them."""
    predicted_memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """How far what was predicted of packs was from what they then took: predicted / measured - 1, as fractions."""

    num_packs: int
    median_frac: float
    """Of the errors without their signs."""
    largest_frac: float
    """The one farthest from 0, with its sign."""
    study_frac: float
    """Of all these packs as one: of memory the largest, of time the sum."""


SweepAxis = Literal["rank", "targets", "quantization"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Test loss of one arm minus that of another, paired by seed; not adjusted for the number of contrasts."""

    arm: str
    reference: str
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Arms that differ in one setting alone, so that its effect can be said in words."""

    axis: SweepAxis
    held: str
    """What they share beside everything else, such as `at equal parameters (327,680)`; empty where nothing needs
    saying."""
    levels: dict[str, str]
    """Arm -> its level in words; of ranks in rising order, else the reference first."""
    contrasts: tuple[Contrast, ...]
    """Of ranks each against the next lower one, and the last against the first; else each against the reference, and of
    layers also `mlp` against `attention`."""
    bend: Estimate | None = None
    """Of ranks: what a doubling gains in the upper half of the range minus what it gains in the lower half, where a
    gain is a loss that falls. Negative: doublings buy less and less. None where no seed finished at every rank."""

    def contrast(self, arm: str, reference: str) -> Contrast | None:
        return next((c for c in self.contrasts if (c.arm, c.reference) == (arm, reference)), None)


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
    predicted_wall_s: float | None
    """Mean of what was predicted of the same runs; the probe is not in it."""
    probe_wall_s: float | None
    probe_peak_memory_bytes: int | None
    """Largest of any run; 0 for strategies that measure nothing, None where it was not recorded."""
    peak_memory_bytes: int | None
    """Largest of any pack that one of the runs was trained in."""
    predicted_memory_bytes: int | None
    solo: SoloCost | None
    """None where every run was trained beside others."""
    run_ids: tuple[str, ...]
    """Runs that the scores are over."""
    audit: ArmAudit
    stability: ArmStability | None
    """None where no run has begun to train."""
    secondary: Mapping[str, SecondaryScore] = field(default_factory=dict)
    """Calibration, answers, forgetting and benchmarks, by the name of the score; only what was measured."""

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
    factorial: Factorial | None
    """None where arms do not vary two factors at once."""
    ordering: Ordering | None
    """None where no two seeds finished in three arms of equal conditions."""
    flaws: tuple[FlawCheck, ...]
    """In the order of docs/reading-the-report.md."""
    memory_prediction: PredictionError | None
    """None where no pack of finished runs is known with what was predicted of it."""
    time_prediction: PredictionError | None
    sweeps: tuple[Sweep, ...]
    """Settings that some of the arms vary one at a time; empty in a study of allocations."""
    base_scores: tuple[BaseScores, ...]
    """Of the bases alone; empty where no benchmark was asked for."""
    warnings: tuple[str, ...]
    data_summary: Mapping[str, Any]
    """Counts of the prepared data: see `StudyResults`."""
    environment: Mapping[str, str]
    """Versions, device, processor and command of the last session that trained for this study."""

    def arm(self, name: str) -> ArmComparison:
        return next(arm for arm in self.arms if arm.name == name)
