"""The learning rate of an arm, chosen on validation loss.

Letters: R candidate rates, S tuning seeds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen rate with what it was chosen from."""

    rate: float
    index: int
    """Into the list of rates as it was given."""
    mean_losses_R: np.ndarray
    """Mean over tuning seeds; inf where a run diverged."""
    num_seeds: int
    at_edge: bool
    """The smallest or largest of several rates was chosen: a better one may lie beyond the list."""


def choose_learning_rate(loss_RS: ArrayLike, rates_R: ArrayLike) -> Choice:
    """The rate with the smallest mean validation loss; of equally good ones the smallest.

    A rate that diverged (nan or inf) on any tuning seed has an infinite mean and is never taken. Raises ValueError
    for arrays that do not fit together, and when every rate diverged.
    """
    loss_RS, rates_R = np.asarray(loss_RS, dtype=np.float64), np.asarray(rates_R, dtype=np.float64)
    if loss_RS.ndim != 2 or rates_R.shape != loss_RS.shape[:1] or loss_RS.size == 0:
        raise ValueError(
            f"validation losses must have shape (rates, tuning seeds), at least one of each, with as many rates as "
            f"there are candidates; got losses {loss_RS.shape} and rates {rates_R.shape}."
        )
    mean_losses_R = np.where(np.isfinite(loss_RS), loss_RS, np.inf).mean(axis=1)
    if not np.isfinite(mean_losses_R).any():
        raise ValueError(
            f"every learning rate diverged on at least one tuning seed: {', '.join(f'{rate:g}' for rate in rates_R)}. "
            "Add smaller ones."
        )
    index = int(np.lexsort((rates_R, mean_losses_R))[0])
    return Choice(
        rate=float(rates_R[index]),
        index=index,
        mean_losses_R=mean_losses_R,
        num_seeds=loss_RS.shape[1],
        at_edge=len(rates_R) > 1 and bool(rates_R[index] in (rates_R.min(), rates_R.max())),
    )
