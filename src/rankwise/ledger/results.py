"""A study as the ledger knows it: plain values that comparison and reports read. No database, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from rankwise.records import Benchmarked, RanksRevised, SiteAllocation, SiteOutcome, StepTrace, WrittenAnswer

RunStatus = Literal["pending", "running", "finished", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    step: int
    value: float


@dataclass(frozen=True, kw_only=True)
class AnswerRow(WrittenAnswer):
    """What a run wrote after one test prompt."""

    loss_nats: float | None
    """Summed over the tokens of the expected answer."""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run with everything a report may say about it. What was not measured is None."""

    id: str
    arm: str
    """Name of the arm in this study."""
    strategy: str
    purpose: Literal["tuning", "report"]
    learning_rate: float
    seed: int
    status: RunStatus
    spec: Mapping[str, Any]
    error: str | None = None
    """Why it failed or diverged, with the step."""
    params: int | None = None
    """What it began to train with; the same as `stored_params` but for dynamic and post-hoc strategies."""
    stored_params: int | None = None
    """What its adapter holds at the end; None until then, and for runs of a ledger older than this audit."""
    held_params: int | None = None
    """The most that were active at once while it trained."""
    budget_params: int | None = None
    residual_params: int | None = None
    sites: tuple[SiteAllocation, ...] = ()
    outcomes: tuple[SiteOutcome, ...] = ()
    """In the order of `sites`; empty until the run's end."""
    revisions: tuple[RanksRevised, ...] = ()
    """What a dynamic strategy did, in the order of the steps."""
    traces: tuple[StepTrace, ...] = ()
    """In the order of the steps."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """`validation_loss`, `test_loss` (nats per answer token), `test_perplexity`, `test_token_accuracy`,
    `validation_token_accuracy`, `initial_validation_loss` (before the first step), `test_calibration_error`; where the
    study asked for them `test_exact_match`, `test_rouge_l`, `test_chrf`, and `forgetting`: `general_loss` less
    `initial_general_loss`, in nats per token of general text; and of each benchmark `benchmark/NAME/METRIC`."""
    benchmarks: tuple[Benchmarked, ...] = ()
    """What each benchmark said, by its name; `scores` has the same numbers."""
    example_loss_nats: np.ndarray | None = None
    """Summed test loss of each example (num_examples,)."""
    example_answer_tokens: np.ndarray | None = None
    training_curve: tuple[CurvePoint, ...] = ()
    """Training loss at each step."""
    grad_norm_curve: tuple[CurvePoint, ...] = ()
    """Norm of the whole gradient at each step, before clipping."""
    learning_rate_curve: tuple[CurvePoint, ...] = ()
    """Learning rate of each step, before the factors of single sites."""
    validation_curve: tuple[CurvePoint, ...] = ()
    """Validation loss at each evaluation, step 0 included."""
    steps: int | None = None
    wall_s: float | None = None
    probe_wall_s: float | None = None
    probe_peak_memory_bytes: int | None = None
    signal: str | None = None
    """What `SiteAllocation.signal` is, with its unit; None where the strategy measures nothing, and for runs of a
    ledger older than this record."""
    peak_memory_bytes: int | None = None
    predicted_memory_bytes: int | None = None
    predicted_wall_s: float | None = None
    """Its share of what its pack was expected to take; the probe, which `wall_s` includes, is not in it."""
    micro_tokens: int | None = None
    """Padded tokens of one training pass of its pack."""
    pack_id: str | None = None
    """The same for all runs that were trained in one pack."""
    pack_slots: int | None = None
    tokens: int | None = None
    padding_tokens: int | None = None
    claimed_at: float | None = field(default=None, compare=False)
    """When a worker took it last, in seconds since 1970."""
    finished_at: float | None = field(default=None, compare=False)
    """When its end was last written: no part of what the run is."""

    @property
    def spent_ranks(self) -> tuple[int, ...]:
        """Trained components of each of `sites` at the end, or by now: those it began with, unless they moved."""
        return self.revisions[-1].ranks if self.revisions else tuple(site.realised_rank for site in self.sites)

    def revision_steps(self) -> tuple[tuple[int, ...], ...]:
        """Per site the steps after which its rank changed."""
        before = tuple(site.realised_rank for site in self.sites)
        steps: list[list[int]] = [[] for _ in self.sites]
        for revision in self.revisions:
            for index, (old, new) in enumerate(zip(before, revision.ranks, strict=True)):
                if old != new:
                    steps[index].append(revision.step)
            before = revision.ranks
        return tuple(map(tuple, steps))

    @property
    def spent_params(self) -> int | None:
        """Trained adapter parameters at the end: what counts against the budget.

        An initial product that is subtracted for good is stored beside them; then `stored_params` is larger.
        """
        if self.revisions:
            costs = [site.in_features + site.out_features for site in self.sites]
            return sum(rank * cost for rank, cost in zip(self.spent_ranks, costs, strict=True))
        known = [params for params in (self.params, self.stored_params) if params is not None]
        return min(known) if known else None

    @property
    def unspent_params(self) -> int | None:
        """Budget left over at the end."""
        if not self.revisions or self.spent_params is None or self.budget_params is None:
            return self.residual_params
        return self.budget_params - self.spent_params


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """All that one ledger holds about one study."""

    name: str
    hypothesis: str
    study: Mapping[str, Any]
    """The resolved study as JSON (`Study.model_dump(mode="json")`)."""
    runs: tuple[RunRow, ...]
    environment: Mapping[str, str]
    """Versions, device, processor and command of the last session that trained for this study."""
    chosen_learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Per arm, where the choice has been made."""
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Per run id that of the session which trained it, where one was recorded; empty where details are left out."""
    data_summary: Mapping[str, Any] = field(default_factory=dict)
    """Counts of the prepared data: per split examples and answer tokens, and what was excluded and why."""

    quantization_errors: Mapping[str, Any] = field(default_factory=dict)
    """Under `bases`, per quantized base its `form`, `model`, `arms` and `sites` with the errors of each layer
    (`rankwise.probing.quantization_error.SiteError`), or why they are `missing`; empty where nothing is quantized."""

    base_benchmarks: Mapping[str, Any] = field(default_factory=dict)
    """Under `bases`, per base model its `model`, `form`, `arms` and `results`: of each benchmark on the base alone
    `benchmark`, `fingerprint`, `harness`, `num_examples` and `scores`, named as those of runs."""

    def reported(self, arm: str) -> tuple[RunRow, ...]:
        """The arm's runs on reported seeds, in seed order, whatever their status."""
        rows = [run for run in self.of_arm(arm) if run.purpose == "report"]
        return tuple(sorted(rows, key=lambda run: run.seed))

    def of_arm(self, arm: str) -> tuple[RunRow, ...]:
        """All runs of the arm, in their order."""
        return self._runs_of_arms.get(arm, ())

    @cached_property
    def _runs_of_arms(self) -> Mapping[str, tuple[RunRow, ...]]:
        """Every part of a report asks for the runs of every arm."""
        found: dict[str, list[RunRow]] = {}
        for run in self.runs:
            found.setdefault(run.arm, []).append(run)
        return {arm: tuple(runs) for arm, runs in found.items()}

    @property
    def arm_names(self) -> tuple[str, ...]:
        """In the order of the study file."""
        return tuple(arm["name"] for arm in self.study["arms"])
