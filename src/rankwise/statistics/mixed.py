"""A linear mixed model of a factorial study: what each level does, with the luck of the seed as a random effect.

    loss[a, s] = intercept + sum over factors of effect[level of a] + seed[s] + error[a, s],  seed[s] ~ N(0, sd_seed^2)

fitted by restricted maximum likelihood through `statsmodels` (Laird and Ware, Biometrics 38, 1982). In a balanced
design its effects are the main effects of `factorial.py`. Two things are new: the split of the spread into seeds and
the rest, which says what pairing by seed is worth, and that runs count which have no partner, because an arm diverged.

Letters: N runs.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rankwise.statistics.inputs import error_rate, finite_array
from rankwise.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class FixedEffect:
    """A level against its factor's reference, added to everything else."""

    factor: str
    level: str
    reference: str
    effect: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class MixedModel:
    """The fit; losses in nats give effects and deviations in nats."""

    effects: tuple[FixedEffect, ...]
    sd_seed: float
    """Standard deviation between seeds, shared by all arms: what pairing takes out."""
    sd_rest: float
    """Standard deviation of what is left: the noise of a paired comparison, over the square root of two."""
    num_runs: int
    num_seeds: int
    method: str

    @property
    def seed_frac(self) -> float:
        """Share of the variance that the seed explains (intraclass correlation)."""
        total = self.sd_seed**2 + self.sd_rest**2
        return self.sd_seed**2 / total if total else math.nan


def fit_mixed_model(
    loss_N: ArrayLike,
    levels_of: Mapping[str, Sequence[str]],
    seeds_N: Sequence[int],
    reference: Mapping[str, str],
    *,
    level: float,
) -> MixedModel | None:
    """None where it cannot be fitted: one seed, fewer runs than effects, or factors that cannot be told apart.

    Args:
        loss_N: one value a run.
        levels_of: factor -> its level in each run (N).
        seeds_N: seed of each run.
        reference: factor -> the level that its others are compared with.
        level: of the intervals, Wald's with Student's quantile at N - effects - seeds degrees of freedom.

    Raises:
        ValueError: losses are not finite, or lengths differ.
    """
    loss_N = finite_array(loss_N, name="losses", ndim=1)
    alpha = error_rate(level)
    if any(len(values) != len(loss_N) for values in (*levels_of.values(), seeds_N)):
        raise ValueError(f"{len(loss_N)} losses need as many seeds and levels of each factor.")
    columns = [
        (factor, value)
        for factor, values in levels_of.items()
        for value in dict.fromkeys(values)
        if value != reference[factor]
    ]
    indicators = [np.array([value == v for v in levels_of[factor]], dtype=np.float64) for factor, value in columns]
    design = np.column_stack([np.ones_like(loss_N), *indicators])
    num_seeds = len(set(seeds_N))
    num_free = len(loss_N) - design.shape[1] - num_seeds + 1
    if num_seeds < 2 or num_free < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fitted = _fit(loss_N, design, np.asarray(seeds_N))
    if fitted is None:
        return None
    effect_E, error_E, sd_seed, sd_rest = fitted
    quantile = stats.t.isf(alpha / 2, num_free)
    return MixedModel(
        effects=tuple(
            FixedEffect(
                factor=factor,
                level=value,
                reference=reference[factor],
                effect=float(effect),
                interval=Interval(
                    low=float(effect - quantile * error),
                    high=float(effect + quantile * error),
                    level=level,
                    n=num_seeds,
                    method=f"Wald, Student's t with {num_free} degrees of freedom",
                ),
            )
            for (factor, value), effect, error in zip(columns, effect_E[1:], error_E[1:], strict=True)
        ),
        sd_seed=sd_seed,
        sd_rest=sd_rest,
        num_runs=len(loss_N),
        num_seeds=num_seeds,
        method="linear mixed model, restricted maximum likelihood, random intercept per seed",
    )


def _fit(
    loss_N: np.ndarray, design: np.ndarray, seeds_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """Effects, their standard errors, and the two standard deviations; None without a maximum."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    scale = float(loss_N.std()) or 1.0  # the optimizer starts at a unit variance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a seed variance of zero is on the boundary: a fit, not a fault
        try:
            found = MixedLM(loss_N / scale, design, groups=seeds_N).fit(reml=True)
        except np.linalg.LinAlgError:
            return None
    errors = np.asarray(found.bse_fe) * scale
    if not found.converged or not np.isfinite(errors).all():
        return None
    variance_seed = max(0.0, float(np.asarray(found.cov_re)[0, 0]))
    return (
        np.asarray(found.fe_params) * scale,
        errors,
        math.sqrt(variance_seed) * scale,
        math.sqrt(float(found.scale)) * scale,
    )
