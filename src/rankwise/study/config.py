"""A study file as validated, frozen values. A docstring stands under each field; defaults are the recommended ones."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from rankwise.allocation.rank_map import Scaling
from rankwise.allocation.strategies import build_strategy
from rankwise.allocation.strategies.base import Strategy
from rankwise.errors import StudyError


class Settings(BaseModel):
    """Common behaviour of every section: frozen, unknown keys and endless numbers are refused.

    Defaults are validated too, so that `epochs` left out and `epochs: 3` are the same value with the same hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(map(str, repeated))} is given more than once")
    return values


def _patterns(targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for target in (targets,) if isinstance(targets, str) else targets:
        try:
            re.compile(target)
        except re.error as error:
            raise ValueError(f"{target} is neither a module name nor a regular expression: {error}") from None
    return targets


def _distinct_names(benchmarks: "tuple[BenchmarkSettings, ...]") -> "tuple[BenchmarkSettings, ...]":
    _distinct(tuple(benchmark.label for benchmark in benchmarks))
    return benchmarks


FOUR_BIT = ("nf4", "fp4")
"""Quantizations with four bits a weight."""
SUBTRACTED_INITS = ("pissa", "olora", "loraga")
"""Initialisations whose own product is taken off the layer for good; the stored adapter holds it a second time."""

Text = Annotated[str, Field(min_length=1)]
Targets = Annotated[Text | Annotated[tuple[Text, ...], Field(min_length=1)], AfterValidator(_patterns)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]
LearningRates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_distinct)]


class BaseSettings(Settings):
    """The frozen base model."""

    model: Text = "nano"
    """`nano` (the embedded one), a hub id, or a folder in Transformers' format."""
    revision: Text | None = None
    """Commit, tag or branch on the hub; None for its default branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base and its activations. `auto`: bfloat16 where the device multiplies it fast, else
    float32."""
    quantization: Literal["none", "int8", "nf4", "fp4"] = "none"
    """How the base weights are stored; other than `none` needs the extra `quant`."""
    double_quantization: bool = True
    """Whether the scales of 4-bit weights are quantized as well, as QLoRA does; of no effect on other weights."""
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format in which 4-bit weights are multiplied; `auto`: that of `dtype`. Of no effect on other weights."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Attention kernel. `auto`: the one measured faster on the device."""
    trust_remote_code: bool = False
    """Run Python that the model's repository ships. Read it first."""


class DataSettings(Settings):
    """Examples, how they become text, and how they are split."""

    source: Text = "skills"
    """`skills` (generated), `alpaca` (tatsu-lab/alpaca on the hub), another hub id, or a .json, .jsonl, .csv,
    .parquet or .txt file."""
    template: Literal["alpaca", "chat", "plain"] = "alpaca"
    """`alpaca`: the published Stanford Alpaca prompt; `chat`: the tokenizer's own; `plain`: prompt and answer as they
    are."""
    max_tokens: PositiveInt = 256
    """Longest example in tokens, prompt and answer together. Longer ones are excluded and counted, never cut. At most
    the context of the base model."""
    train: PositiveInt = 200
    """Training examples."""
    validation: PositiveInt = 200
    """Examples on which learning rates are chosen."""
    test: PositiveInt = 400
    """Examples that are scored once, at the end, and never used to choose anything."""
    seed: int = Field(0, ge=0)
    """Decides which example is in which split (and, for `skills`, which examples there are)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of the source, such as `families` and `difficulty` of `skills` or `columns` of a file."""


class BudgetSettings(Settings):
    """Stored adapter parameters a run may use. Exactly one of `rank`, `params`, `fraction`."""

    rank: PositiveInt | None = None
    """What a uniform rank of this size on the chosen targets would store."""
    params: PositiveInt | None = None
    """The number itself."""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Relative to the parameters of the base model."""
    min_rank: int = Field(1, ge=0)
    """No site gets fewer components."""
    max_rank: PositiveInt | None = None
    """No site gets more components; None: up to the layer's own rank."""

    def model_post_init(self, context: Any) -> None:
        given = [name for name in ("rank", "params", "fraction") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of rank, params and fraction is needed, not {' and '.join(given) or 'none'}")
        if self.max_rank is not None and self.max_rank < self.min_rank:
            raise ValueError(f"max_rank ({self.max_rank}) is below min_rank ({self.min_rank})")


class LrFactors(Settings):
    """What the learning rate of a site is multiplied with: by depth, times by kind, times by rank."""

    first: PositiveFloat = 1.0
    """Factor of the first block's sites; between the first and the last it is linear in depth."""
    last: PositiveFloat = 1.0
    """Factor of the last block's sites."""
    attention: PositiveFloat = 1.0
    """Factor of attention sites."""
    mlp: PositiveFloat = 1.0
    """Factor of MLP sites."""
    rank_power: float = Field(0.0, ge=-4, le=4)
    """Exponent on a site's rank relative to the mean rank of the sites: -0.5 slows wide sites down, 0 does nothing."""


class TrainSettings(Settings):
    """How a run is trained."""

    epochs: PositiveFloat = 3.0
    """Passes over the training examples; a fraction is allowed."""
    batch_size: PositiveInt = 4
    """Sequences per optimizer step of one run."""
    learning_rates: LearningRates = (1e-4, 3e-4, 1e-3)
    """Candidates; the best on validation loss is chosen for each arm by itself. With one candidate nothing is tuned."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up; cosine and linear end at zero."""
    warmup_frac: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate grows linearly from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled, as in AdamW."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's averaging factors of the gradient and of its square."""
    eps: PositiveFloat = 1e-8
    """AdamW's term in the denominator."""
    clip_norm: PositiveFloat | None = 1.0
    """Largest norm of one run's whole gradient; None: never clipped."""
    lora_plus_ratio: PositiveFloat = 1.0
    """LoRA+ (arXiv:2402.12354): the learning rate of every `up` is this times that of its `down`; its paper uses 16."""
    lr_factors: LrFactors | None = None
    """Layer-wise learning rates, such as {first: 1.0, last: 0.5}; None: the same everywhere."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of each block and compute it again in the backward pass: less memory, a third to a half
    more time, the same losses."""
    eval_every_frac: float = Field(0.25, gt=0, le=1)
    """Validation loss is measured each time this share of the steps is done, and at the end."""


class EvaluateSettings(Settings):
    """What is measured at the end of reported runs beside the loss. It changes no training, but a run that measured it
    is another run than one that did not."""

    generate: bool = False
    """Write answers to the test examples and compare them with the expected ones: exact match, ROUGE-L, chrF."""
    forgetting: bool = False
    """Score general text before and after training."""


class BenchmarkSettings(Settings):
    """A benchmark of lm-evaluation-harness (extra `bench`), run on every reported adapter when the study is trained.

    No part of a run's identity: a benchmark that is added later trains nothing anew.
    """

    name: Text
    """`skills`, `gsm8k`, or any other task of the harness."""
    data: Text | None = None
    """Of gsm8k, a local file of questions and answers; without it, the hub's."""
    limit: PositiveInt | None = None
    """First examples of the benchmark only."""

    @property
    def label(self) -> str:
        """What tables call it: `gsm8k`, or `gsm8k first 200`."""
        return self.name if self.limit is None else f"{self.name} first {self.limit}"


class CompareSettings(Settings):
    """The declared family of comparisons."""

    baseline: str = "uniform"
    """The arm that every other is compared with."""
    metric: Literal["test_loss"] = "test_loss"
    """Held-out loss in nats per answer token."""
    level: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of intervals and verdicts."""
    equivalence_nats: PositiveFloat = 0.005
    """Differences smaller than this are practically nothing."""


class Arm(Settings):
    """One way of spending the budget, with every study-wide setting resolved into it."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^\w[\w .,:=+()%-]*$")
    """What tables and figures call it; in a file, by default, the strategy's name."""
    strategy: str
    """A key of STRATEGIES."""
    strategy_settings: dict[str, Any] = Field(default_factory=dict)
    """The strategy's own settings; in a file they stand beside `strategy`."""
    base: BaseSettings = BaseSettings()
    """The frozen base model."""
    data: DataSettings = DataSettings()
    """Examples, how they become text, and how they are split."""
    targets: Targets = "all-linear"
    """Which linear layers are adapted: `all-linear`, `attention`, `mlp`, `head`, or module names and regular
    expressions."""
    budget: BudgetSettings
    """Stored adapter parameters a run may use."""
    train: TrainSettings = TrainSettings()
    """How a run is trained."""
    scaling: Scaling = Scaling()
    """How strongly an adapter's output is added to its layer's."""
    init: Literal["kaiming", "gaussian", "pissa", "olora", "eva", "gora", "loraga"] = "kaiming"
    """Where the adapter starts: drawn (`kaiming`, PEFT's default; `gaussian`), at the principal part (`pissa`) or the
    QR factors (`olora`) of the frozen weight, along the activations (`eva`), or along the gradient (`gora`,
    `loraga`)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """What is measured at the end of reported runs beside the loss."""

    @field_validator("init")
    @classmethod
    def _fits_quantization(cls, init: str, info: ValidationInfo) -> str:
        """PiSSA and OLoRA re-quantize what they leave of the weight, and LoRA-GA needs it whole; here it is shared."""
        quantization = info.data["base"].quantization if "base" in info.data else "none"
        if init in SUBTRACTED_INITS and quantization != "none":
            raise ValueError(
                f"it takes its initial product off the base weight, which is stored as {quantization} and shared; use "
                "kaiming, gaussian, eva or gora, or base.quantization none"
            )
        return init

    @field_validator("strategy_settings")
    @classmethod
    def _with_defaults(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Every setting spelled out, so that a resolved study stays what it was when a default changes."""
        if "strategy" not in info.data:
            return settings
        return build_strategy(info.data["strategy"], settings).model_dump(mode="json")

    @field_validator("init")
    @classmethod
    def _fits_the_strategy(cls, init: str, info: ValidationInfo) -> str:
        """A dynamic strategy cannot be combined with every start; told here, before anything is trained."""
        if "strategy" not in info.data or "strategy_settings" not in info.data:
            return init
        name = info.data["strategy"]
        mover = build_strategy(name, info.data["strategy_settings"]).mover()
        if mover is None or init == "kaiming":
            return init
        if mover.mechanics().gate == 0:
            raise ValueError(f"{name} draws singular triplets of its own; leave init out of this arm")
        if init in SUBTRACTED_INITS:
            raise ValueError(
                f"{name} must end at its budget, and a start that is subtracted doubles what is stored; choose kaiming "
                "or gaussian"
            )
        return init

    def build_strategy(self) -> Strategy:
        return build_strategy(self.strategy, self.strategy_settings)


class Study(Settings):
    """One question: a hypothesis, its arms and how they are compared."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    """Names the results folder: up to 80 letters, digits, dots, hyphens and underscores."""
    hypothesis: Text
    """What is asked, in a sentence; printed first in the report."""
    arms: tuple[Arm, ...] = Field(min_length=1)
    """What is compared."""
    seeds: Seeds
    """Reported seeds; in a file a number N stands for 0 to N - 1."""
    tuning_seeds: Seeds = (1000,)
    """Seeds on which learning rates are chosen, never reported; in a file a number N stands for 1000 to 999 + N."""
    compare: CompareSettings = CompareSettings()
    """The declared family of comparisons."""
    benchmarks: Annotated[tuple[BenchmarkSettings, ...], AfterValidator(_distinct_names)] = Field(
        (), exclude_if=lambda benchmarks: not benchmarks
    )
    """Benchmarks to run on the reported adapters and on the base alone; in a file a name stands for `{name: ...}`."""

    def model_post_init(self, context: Any) -> None:
        names = [arm.name for arm in self.arms]
        found = conflicts(names, seeds=self.seeds, tuning_seeds=self.tuning_seeds, baseline=self.compare.baseline)
        if found:
            raise ValueError("; ".join(conflict.message for conflict in found))

    def arm(self, name: str) -> Arm:
        """Raises StudyError where no arm has the name."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise StudyError(f"study {self.name} has no arm {name}; its arms: {', '.join(arm.name for arm in self.arms)}.")


class Conflict(NamedTuple):
    """Two settings of a study that cannot both hold."""

    path: tuple[str | int, ...]
    message: str
    other: tuple[str | int, ...] | None = None
    """Where the other one stands."""


def conflicts(
    arm_names: Sequence[str], *, seeds: Sequence[int], tuning_seeds: Sequence[int], baseline: str
) -> list[Conflict]:
    """What no section can see by itself: equal names, a baseline that is no arm, seeds that tune and report."""
    found = []
    for index, name in enumerate(arm_names):
        first = arm_names.index(name)
        if first < index:
            message = f"arms[{index}] has the name of arms[{first}], {name}; give one of them another `name`"
            found.append(Conflict(("arms", index), message, ("arms", first)))
    if baseline not in arm_names:
        message = f"compare.baseline is {baseline}, which is no arm; arms: {', '.join(arm_names)}"
        found.append(Conflict(("compare", "baseline"), message))
    shared = sorted(set(seeds) & set(tuning_seeds))
    if shared:
        text = ", ".join(map(str, shared))
        message = f"tuning_seeds shares {text} with seeds; a seed that chose a learning rate may not be reported"
        found.append(Conflict(("tuning_seeds",), message, ("seeds",)))
    return found
