"""What is known of one arm: its seeds, how its rate was chosen, what was stored, how it trained, what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rankwise.ledger.results import RunStatus
from rankwise.reporting.values.estimates import Difference, Estimate, Range, Span


@dataclass(frozen=True, kw_only=True)
class SecondaryScore:
    """A score on which no verdict rests."""

    mean: Estimate
    difference: Estimate | None
    """The arm's minus the baseline's, paired by seed; None for the baseline and without a pair."""


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
class SoloCost:
    """What an arm takes by itself: from those of its reported runs that shared their pack with no other."""

    num_runs: int
    wall_s: float
    """Mean over the runs, the probe included."""
    peak_memory_bytes: int | None
    """Largest of any of them."""
    predicted_memory_bytes: int | None


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
