"""Would another seed have put the arms in the same order?

A study of one seed reports an ordering. How far to trust it is how well the orderings of single seeds agree: Kendall's
tau between two seeds (tau-b, Kendall 1945) is 1 where they order all pairs of arms alike, 0 where they agree as often
as they disagree, -1 where one reverses the other. The mean over pairs of seeds is a U-statistic of the seeds, so its
interval is the jackknife's (Arvesen, Ann. Math. Stat. 40, 1969); a bootstrap would pair a seed with its own copy.

Letters: A arms, S seeds on which every one of them finished.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rankwise.statistics.inputs import error_rate, finite_array
from rankwise.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class OrderingStability:
    """How alike the seeds order the arms."""

    mean_tau: float
    """Mean over pairs of seeds, -1 to 1; nan for one seed."""
    interval: Interval
    p_value: float
    """Friedman's test of "no arm tends to be above another", chi-square approximation; nan below two seeds or three
    arms."""
    first_frac_A: np.ndarray
    """Share of the seeds in which each arm has the lowest loss, ties shared; sums to 1."""
    n: int
    """Seeds."""
    method: str


def ordering_stability(loss_AS: ArrayLike, *, level: float) -> OrderingStability:
    """Agreement of the seeds about the order of two or more arms.

    Raises:
        ValueError: fewer than two arms, or losses that are not finite.
    """
    loss_AS = finite_array(loss_AS, name="losses", ndim=2)
    num_arms, num_seeds = loss_AS.shape
    if num_arms < 2:
        raise ValueError(f"an order needs two arms or more, got {num_arms}.")
    is_first_AS = loss_AS == loss_AS.min(axis=0)
    first_frac_A = (is_first_AS / is_first_AS.sum(axis=0)).mean(axis=1)
    tau_SS = _taus(loss_AS)
    return OrderingStability(
        mean_tau=_mean_of_pairs(tau_SS),
        interval=_jackknife(tau_SS, level),
        p_value=_friedman(loss_AS),
        first_frac_A=first_frac_A,
        n=num_seeds,
        method="mean Kendall's tau-b over pairs of seeds, jackknife interval; Friedman's test",
    )


def _taus(loss_AS: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of every two seeds; 0 where a seed sees no difference at all, since it then says nothing."""
    num_seeds = loss_AS.shape[1]
    tau_SS = np.zeros((num_seeds, num_seeds))
    for one, other in combinations(range(num_seeds), 2):
        tau = float(stats.kendalltau(loss_AS[:, one], loss_AS[:, other]).statistic)
        tau_SS[one, other] = tau_SS[other, one] = 0.0 if math.isnan(tau) else tau
    return tau_SS


def _mean_of_pairs(tau_SS: np.ndarray) -> float:
    n = len(tau_SS)
    return float(tau_SS.sum() / (n * (n - 1))) if n > 1 else math.nan


def _jackknife(tau_SS: np.ndarray, level: float) -> Interval:
    """Student's t interval of the pseudo-values, kept within what a tau can be."""
    alpha, n = error_rate(level), len(tau_SS)
    if n < 3:
        return Interval(low=math.nan, high=math.nan, level=level, n=n, method="none: fewer than three seeds")
    whole = _mean_of_pairs(tau_SS)
    rest_S = [_mean_of_pairs(np.delete(np.delete(tau_SS, s, axis=0), s, axis=1)) for s in range(n)]
    pseudo_S = n * whole - (n - 1) * np.array(rest_S)
    half = stats.t.isf(alpha / 2, n - 1) * pseudo_S.std(ddof=1) / math.sqrt(n)
    low, high = max(-1.0, whole - half), min(1.0, whole + half)
    return Interval(low=float(low), high=float(high), level=level, n=n, method="jackknife of a U-statistic")


def _friedman(loss_AS: np.ndarray) -> float:
    num_arms, num_seeds = loss_AS.shape
    if num_arms < 3 or num_seeds < 2:
        return math.nan
    if not np.ptp(loss_AS, axis=0).any():  # every seed ties every arm
        return 1.0
    return float(stats.friedmanchisquare(*loss_AS).pvalue)
