"""Confidence intervals of what is computed from totals over test examples: a loss per token, an accuracy, an ECE.

One model was trained once and scored on E examples; the interval says what other examples of the same kind would have
given, and nothing about other seeds. Examples are drawn, not tokens: the tokens of one answer are not independent.

Letters: E examples, S sums that the statistic is computed from, B resamples.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rankwise.statistics.inputs import error_rate, finite_array
from rankwise.statistics.intervals import Interval

MIN_EXAMPLES = 6
"""As for means over seeds: fewer values cannot cover at 95 %, however they are drawn (`intervals.py`)."""
NUM_RESAMPLES = 4999
_BATCH_VALUES = 2_000_000
"""Drawn values held in memory at once (16 MB)."""


def bootstrap_totals_interval(
    sums_ES: ArrayLike,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    level: float,
    rng: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """BCa bootstrap interval (Efron 1987, through `scipy.stats.bootstrap`) of `statistic(sums over examples)`.

    Args:
        sums_ES: What each example adds to each sum.
        statistic: From totals (..., S) to values (...), such as loss / tokens.

    A statistic that is the same whatever examples are drawn gives the value itself; too few examples give nan bounds.
    """
    sums_ES = finite_array(sums_ES, name="sums", ndim=2)
    num_examples, alpha = len(sums_ES), error_rate(level)
    if num_examples < MIN_EXAMPLES:
        method = f"none: fewer than {MIN_EXAMPLES} examples"
        return Interval(low=math.nan, high=math.nan, level=level, n=num_examples, method=method)

    def of_drawn(drawn_BE: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(_draw_counts(drawn_BE, num_examples) @ sums_ES)

    left_out_E = statistic(sums_ES.sum(axis=0) - sums_ES)
    if np.ptp(left_out_E) <= 1e-12 * np.abs(left_out_E).max():
        value = float(statistic(sums_ES.sum(axis=0)))
        return Interval(low=value, high=value, level=level, n=num_examples, method="none: all examples are equal")
    # As for means over seeds (`intervals.py`); of 200 examples a 95 % interval is taken at 95.2 %.
    tail = stats.norm.sf(stats.t.isf(alpha / 2, num_examples - 1) * math.sqrt(num_examples / (num_examples - 1)))
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # said by nan bounds
        found = stats.bootstrap(
            (np.arange(num_examples),),
            of_drawn,
            n_resamples=num_resamples,
            confidence_level=1 - 2 * tail,
            method="BCa",
            batch=max(1, _BATCH_VALUES // num_examples),
            rng=rng,
        ).confidence_interval
    method = f"BCa bootstrap over {num_examples:,} examples, {num_resamples:,} resamples"
    return Interval(low=float(found.low), high=float(found.high), level=level, n=num_examples, method=method)


def _draw_counts(drawn_BE: np.ndarray, num_examples: int) -> np.ndarray:
    """How often each resample drew each example: (..., E), of examples (..., any number)."""
    drawn = drawn_BE.astype(np.intp).reshape(-1, drawn_BE.shape[-1])
    place = drawn + num_examples * np.arange(len(drawn))[:, None]
    counts = np.bincount(place.ravel(), minlength=len(drawn) * num_examples)
    return counts.reshape(*drawn_BE.shape[:-1], num_examples).astype(np.float64)


def share_interval(num_hits: int, num_examples: int, *, level: float) -> Interval:
    """Wilson's score interval of a share of independent examples (Wilson 1927, through scipy).

    A bootstrap of 0 hits among 200 examples never draws one and says that the share is 0 for certain.
    """
    error_rate(level)
    found = stats.binomtest(num_hits, num_examples).proportion_ci(confidence_level=level, method="wilson")
    method = f"Wilson score interval over {num_examples:,} examples"
    return Interval(low=float(found.low), high=float(found.high), level=level, n=num_examples, method=method)
