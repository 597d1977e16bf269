"""Spikes of a course that is noisy by nature: the loss of small batches, the norm of their gradients.

A step is a spike where its value stands more than 3.5 robust standard deviations above the median of the steps just
before it: the one-sided Hampel identifier (Hampel, J. Am. Stat. Assoc. 69, 1974) at the threshold that Iglewicz and
Hoaglin (How to Detect and Handle Outliers, 1993) recommend for the modified z-score. Medians, unlike means, are not
moved by the spikes that are looked for. ZClip (Kumar et al., arXiv:2504.02507) clips gradients by the same idea with
running means and standard deviations.

T = steps, W = the steps before each.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

WINDOW = 20
"""Steps before the one that is judged."""
MIN_WINDOW = 8
"""With fewer steps before it a step is not judged."""
THRESHOLD = 3.5
MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations."""
FLOOR = 1e-3
"""Smallest standard deviation that is believed: a course that did not move has none."""


def spikes(values_T: ArrayLike) -> np.ndarray:
    """Which steps are spikes (T,), bool. Values that are not finite are none, and are left out of the medians.

    Give losses as they are and norms as logarithms: gradient norms vary by factors.
    """
    values_T = np.asarray(values_T, dtype=np.float64)
    values_T = np.where(np.isfinite(values_T), values_T, np.nan)
    before_TW = sliding_window_view(np.concatenate([np.full(WINDOW, np.nan), values_T]), WINDOW)[:-1]
    num_T = np.isfinite(before_TW).sum(axis=1)
    median_T = _median_of_numbers(before_TW, num_T)
    deviation_T = MAD_TO_SD * _median_of_numbers(np.abs(before_TW - median_T[:, None]), num_T)
    # A comparison with what is not a number is false.
    return (num_T >= MIN_WINDOW) & (values_T - median_T > THRESHOLD * np.maximum(FLOOR, deviation_T))


def _median_of_numbers(values_TW: np.ndarray, num_T: np.ndarray) -> np.ndarray:
    """Median of each row (T,), which has `num_T` numbers; what is no number is sorted last and not looked at."""
    sorted_TW, rows_T = np.sort(values_TW, axis=1), np.arange(len(num_T))
    return (sorted_TW[rows_T, (num_T - 1).clip(0) // 2] + sorted_TW[rows_T, num_T // 2 % WINDOW]) / 2
