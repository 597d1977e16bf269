"""Checks that every statistic makes on what it is given."""

import numpy as np
from numpy.typing import ArrayLike


def finite_array(values: ArrayLike, *, name: str, ndim: int) -> np.ndarray:
    """The values as float64, refused if empty, of another dimension, or not finite.

    A statistic of incomplete values would be about fewer things than it says, so the caller drops them, in sight.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must be a non-empty array of {ndim} dimension(s), got shape {array.shape}.")
    num_bad = int(np.count_nonzero(~np.isfinite(array)))
    if num_bad:
        raise ValueError(
            f"{name} holds {num_bad} of {array.size} values that are not finite; leave out diverged or missing runs, "
            "and say so, before comparing."
        )
    return array


def error_rate(level: float) -> float:
    """1 - level, for a confidence level strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, got {level}.")
    return 1.0 - level
