"""What a study's design lets one say beyond single arms: effects of factors, sweeps of a setting, the order of arms."""

from dataclasses import dataclass
from typing import Literal

from rankwise.reporting.values.estimates import Estimate


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
