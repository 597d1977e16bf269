"""Spikes of a course that is noisy by nature: the loss of small batches, the norm of their gradients.

A step is a spike where its value stands more than 3.5 robust standard deviations above the median of the steps just
before it: the one-sided Hampel identifier (Hampel, J. Am. Stat. Assoc. 69, 1974) at the threshold that Iglewicz and
Hoaglin (How to Detect and Handle Outliers, 1993) recommend for the modified z-score. Medians, unlike means, are not
moved by the spikes that are looked for. ZClip (Kumar et al., arXiv:2504.02507) clips gradients by the same idea with
running means and standard deviations.

T = steps.
"""

import numpy as np
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
    found_T = np.zeros(len(values_T), dtype=bool)
    for step in range(MIN_WINDOW, len(values_T)):
        before = values_T[max(0, step - WINDOW) : step]
        before = before[np.isfinite(before)]
        if len(before) >= MIN_WINDOW and np.isfinite(values_T[step]):
            median = np.median(before)
            deviation = max(FLOOR, MAD_TO_SD * float(np.median(np.abs(before - median))))
            found_T[step] = values_T[step] - median > THRESHOLD * deviation
    return found_T
