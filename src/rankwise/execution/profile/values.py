"""A profile as plain values: they cross from the measuring processes as JSON, and to the report and the terminal."""

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt

from rankwise.study.config import BaseSettings, Settings, Targets

TERMS = ("runtime", "weights", "adapters", "gradients", "optimizer", "activations", "logits", "workspace")
"""Causes of memory that can be both predicted and measured. `workspace` is the rest: what operations need while they
run, and what the allocator holds beyond live tensors."""

Form = Literal["base", "separate", "merged", "baked"]
"""How a model with an adapter generates: `base` has none; `separate` is the packed layer; `merged` has the product in
the weights; `baked` is PEFT's own layer at one rank and scale 1."""


class ProfileSettings(Settings):
    """What is profiled, and on which rows."""

    base: BaseSettings = BaseSettings()
    """The frozen base model."""
    targets: Targets = "all-linear"
    """Which linear layers are adapted."""
    batch_size: PositiveInt = 4
    """Rows of one optimizer step, and of a batch of prompts."""
    tokens: PositiveInt = 128
    """Tokens of a row, of which the second half is the answer; a prompt has half as many."""
    new_tokens: PositiveInt = 16
    """Tokens that are generated after each prompt."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass instead of kept."""
    repeats: PositiveInt = 5
    """Measured steps, of which the median counts, after `WARM_UP` that do not."""


class Decoding(Settings):
    """Speed of greedy generation in one form; seconds are wall time."""

    first_token_s: float
    """From a prompt to its first token, one row."""
    token_s: float
    """Each token after it, one row."""
    tokens_per_s: float
    """New tokens of all rows of a batch, prompts included in the time."""


class RankMeasurement(Settings):
    """What one process measured at one rank. Rank 0 is the base alone, forward passes only."""

    rank: int
    params: int
    """Stored adapter parameters."""
    peak_bytes: int
    """Most that the process (on CUDA: the allocator) held over all steps."""
    loading_peak_bytes: int
    """The same while the base model was loaded."""
    terms: Mapping[str, int]
    """The peak by cause; adds up to `peak_bytes`."""
    forward_s: float
    """Median wall time of a step's forward passes."""
    backward_s: float | None
    optimizer_s: float | None
    """Clipping, AdamW, and bringing the weights into the number format of the base."""
    processor_s: float
    """Processor time of a median step, all threads together."""
    generation: Mapping[Form, Decoding]
    """A form that is not possible (weights that are quantized cannot be merged into) is missing."""

    @property
    def step_s(self) -> float:
        return self.forward_s + (self.backward_s or 0.0) + (self.optimizer_s or 0.0)


class RankProfile(Settings):
    """Measured beside predicted at one rank."""

    measured: RankMeasurement
    predicted_bytes: int
    predicted_terms: Mapping[str, int]
    flops: int
    """Counted operations of a step."""
    tokens_per_s: float
    peak_frac: float
    """Share of the measured speed of matrix products that a step reaches."""

    @property
    def error_frac(self) -> float:
        """Of the predicted peak; positive where it was too high."""
        return self.predicted_bytes / self.measured.peak_bytes - 1


class Profile(Settings):
    """All ranks of one model on one machine."""

    settings: ProfileSettings
    device: str
    threads: int
    num_params: int
    """Of the unquantized base."""
    matmul_flops_per_s: float
    """Best speed of matrix products of the model's width, in the number format of the base."""
    ranks: tuple[RankProfile, ...]
