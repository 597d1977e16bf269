"""What training tells the world: frozen, picklable values. The loop yields them; the caller decides where they go."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rankwise.allocation.sites import SiteKind

Split = Literal["validation", "test", "general"]
"""`general` is text that has nothing to do with the task: what forgetting is measured on."""


@dataclass(frozen=True, kw_only=True)
class Record:
    run_id: str


@dataclass(frozen=True, kw_only=True)
class SiteAllocation:
    """What one site was planned to get and, read back from the attached module, did get."""

    site: str
    kind: SiteKind
    layer: int
    in_features: int
    out_features: int
    planned_rank: int
    realised_rank: int
    scale: float
    params: int
    lr_factor_down: float = 1.0
    """What the run's learning rate is multiplied with at this site's `down`."""
    lr_factor_up: float = 1.0
    signal: float | None = None
    """What the strategy went by at this site (`RunAllocated.signal` says what that is); None where it measured nothing.
    """


@dataclass(frozen=True, kw_only=True)
class RunAllocated(Record):
    """The realised allocation, audited before the first step."""

    sites: tuple[SiteAllocation, ...]
    budget_params: int
    params: int
    residual_params: int
    probe_wall_s: float
    """Time of the probe that the strategy needed; 0 for strategies that measure nothing."""
    probe_peak_memory_bytes: int = 0
    """Peak memory of that probe; 0 where nothing was measured."""
    signal: str | None = None
    """What `SiteAllocation.signal` is, with its unit; None for strategies that measure nothing."""


@dataclass(frozen=True, kw_only=True)
class StepDone(Record):
    """One optimizer step of one run."""

    step: int
    """Counted from 1."""
    num_steps: int
    loss_nats: float
    """Mean loss per answer token of the step's batch, before the step."""
    grad_norm: float
    """Norm of the whole adapter gradient, before clipping."""
    learning_rate: float
    num_tokens: int
    """Tokens of the batch without padding."""


@dataclass(frozen=True, kw_only=True)
class Evaluated(Record):
    """All examples of a split, scored after `step` steps."""

    split: Split
    step: int
    loss_nats: float
    """Total loss over answer tokens divided by their number."""
    token_accuracy: float
    """Share of answer tokens that were the most probable one."""
    num_examples: int
    num_answer_tokens: int
    calibration_error: float | None = None
    """Expected calibration error over the answer tokens; None where it was not measured."""
    example_loss_nats: np.ndarray = field(repr=False)
    """Summed loss of each example, float64 (num_examples,)."""
    example_answer_tokens: np.ndarray = field(repr=False)
    """int64 (num_examples,)."""
    example_correct_tokens: np.ndarray = field(repr=False)
    """int64 (num_examples,)."""

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss_nats))


@dataclass(frozen=True, kw_only=True)
class WrittenAnswer:
    """What a run wrote after one prompt, beside what was expected."""

    question: str
    """Instruction and input, as people read them."""
    expected: str
    written: str
    num_tokens: int
    """Of what was written, the end token included where it came to one."""
    exact_match: bool
    """Whether the two are the same, white space around them aside."""
    rouge_l: float
    """From 0 to 1."""
    chrf: float
    """From 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Answered(Record):
    """Greedy answers to all examples of a split after `step` steps, in the order of the split."""

    split: Split
    step: int
    data_fingerprint: str
    """Of the examples: runs that share it were asked the same questions."""
    answers: tuple[WrittenAnswer, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """One number of lm-evaluation-harness."""

    task: str
    """The benchmark itself, or one that it is made of."""
    metric: str
    filter: str
    """How the answer was read from what was written, where there are several ways; else `none`."""
    value: float
    stderr: float | None
    """Over examples; None where the harness gives none."""

    def key(self, benchmark: str) -> str:
        """Its name among a run's scores: `benchmark/gsm8k/exact_match/strict-match`."""
        parts = ["benchmark", benchmark, self.metric]
        if self.task != benchmark.partition(" ")[0]:
            parts.insert(2, self.task)
        if self.filter != "none":
            parts.append(self.filter)
        return "/".join(parts)


@dataclass(frozen=True, kw_only=True)
class Benchmarked(Record):
    """All that a benchmark said of a run's adapter."""

    benchmark: str
    """Its label in the study."""
    fingerprint: str
    """Of its settings and of the file that it reads."""
    harness: str
    """Version of lm-eval."""
    num_examples: int
    scores: tuple[BenchmarkScore, ...]


@dataclass(frozen=True, kw_only=True)
class StepTrace(Record):
    """How one optimizer step moved each group of sites: what a stability analysis reads."""

    step: int
    """Counted from 1."""
    groups: tuple[str, ...]
    """Kind and third of the depth: `attention.early`, `mlp.late`, ..."""
    grad_norms: tuple[float, ...]
    """Norm of the group's adapter gradient, before clipping."""
    update_norms: tuple[float, ...]
    """Norm of the step in the group's effective weights, scale x (up · down after - before), Frobenius."""
    weight_norms: tuple[float, ...]
    """Norm of the group's effective weights after the step."""


@dataclass(frozen=True, kw_only=True)
class RanksRevised(Record):
    """A dynamic strategy acted: how many components of each site are active from here on."""

    step: int
    """The optimizer step after which it acted, from 1."""
    ranks: tuple[int, ...]
    """In the order of `RunAllocated.sites`."""


@dataclass(frozen=True, kw_only=True)
class SiteOutcome:
    """What one site's adapter was at the end of training, read back from the pack."""

    site: str
    rank: int
    """Components stored in the adapter."""
    scale: float
    params: int
    num_unmoved: int
    """Stored components whose product is still what it was before the first step."""
    num_revisions: int
    """Revisions that changed this site's active components."""


@dataclass(frozen=True, kw_only=True)
class RunAudited(Record):
    """The adapter as it is stored: for dynamic and post-hoc strategies not what training began with."""

    sites: tuple[SiteOutcome, ...]
    """In the order of `RunAllocated.sites`."""
    params: int
    """Stored adapter parameters."""
    held_params: int
    """The most adapter parameters that were active at once while training."""


@dataclass(frozen=True, kw_only=True)
class RunDiverged(Record):
    """The run was frozen because its loss or gradient stopped being finite."""

    step: int
    cause: str


@dataclass(frozen=True, kw_only=True)
class RunFailed(Record):
    """What the run's adapter is at the end is not what was planned: the run has no result, and no adapter is kept."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class RunFinished(Record):
    """The run ended; its scores are in the `Evaluated` records before this one."""

    status: Literal["finished", "diverged"]
    steps: int
    wall_s: float
    """This run's share of its pack's time, by tokens; the probe included."""
    peak_memory_bytes: int
    """Of the pack's process (host) or device while the pack trained."""
    pack_slots: int
    predicted_memory_bytes: int
    predicted_wall_s: float | None
    """This run's share of what its pack was expected to take, without the probe; None where it was not predicted."""
    micro_tokens: int
    """Padded tokens of one training pass of its pack."""
    pack_id: str
    """The same for all runs that were trained in one pack."""
    tokens: int
    """Trained on, without padding."""
    padding_tokens: int
    """Computed and thrown away, this run's share."""


@dataclass(frozen=True, kw_only=True)
class AdapterTrained(Record):
    """The weights a run ended with."""

    tensors: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)
    """Per site name `down` (rank, in) and `up` (out, rank), float32, without the scale."""
