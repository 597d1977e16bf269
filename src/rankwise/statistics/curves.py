"""A learning curve over seeds: mean and pointwise band.

Letters: S seeds, T points of the curve.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rankwise.statistics.inputs import error_rate, finite_array


@dataclass(frozen=True, kw_only=True)
class CurveBand:
    """Mean of the seeds' curves, and at each point a confidence interval of that mean."""

    mean_T: np.ndarray
    low_T: np.ndarray
    """nan, as `high_T`, for one seed."""
    high_T: np.ndarray
    level: float
    """Of each point alone; the whole curve lies in the band less often."""
    n: int
    """Seeds."""
    method: str


def curve_band(values_ST: ArrayLike, *, level: float) -> CurveBand:
    """Student's t interval at each point.

    Curves must be complete: were a diverged seed to drop out halfway, the mean would jump for no other reason. Leave
    its whole curve out, and say so.
    """
    values_ST = finite_array(values_ST, name="curves", ndim=2)
    alpha, n = error_rate(level), len(values_ST)
    mean_T = values_ST.mean(axis=0)
    if n == 1:
        half_T, method = np.full_like(mean_T, math.nan), "none: one seed"
    else:
        half_T = stats.t.isf(alpha / 2, n - 1) * values_ST.std(axis=0, ddof=1) / math.sqrt(n)
        method = "pointwise Student's t"
    return CurveBand(mean_T=mean_T, low_T=mean_T - half_T, high_T=mean_T + half_T, level=level, n=n, method=method)
