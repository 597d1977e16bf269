"""Which arms lose to no other in loss and cost at once, and how sure that is.

An arm is dominated where another one costs no more and loses no more, and is strictly lower in one of the two. Those
that are not make the Pareto front. A front of means looks certain and is not: each paired resample of the seeds has a
front of its own, and the share of them that an arm is on says how far to trust its place.

Letters: A arms, S seeds on which every one of them finished, B resamples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rankwise.statistics.inputs import finite_array


@dataclass(frozen=True, kw_only=True)
class ParetoFront:
    is_on_front_A: np.ndarray
    """By the mean loss over seeds."""
    on_front_frac_A: np.ndarray
    """Share of the resamples in which the arm is on the front."""
    n: int
    """Seeds."""
    method: str


def pareto_front(
    cost_A: ArrayLike, loss_AS: ArrayLike, *, rng: np.random.Generator, num_resamples: int = 9999
) -> ParetoFront:
    """The front of costs (bytes, seconds, parameters: the same for all seeds) and losses; lower is better in both.

    Raises:
        ValueError: values that are not finite, or another number of costs than arms.
    """
    cost_A = finite_array(cost_A, name="costs", ndim=1)
    loss_AS = finite_array(loss_AS, name="losses", ndim=2)
    if len(cost_A) != len(loss_AS):
        raise ValueError(f"{len(cost_A)} costs do not belong to {len(loss_AS)} arms.")
    num_seeds = loss_AS.shape[1]
    drawn_BS = rng.integers(num_seeds, size=(num_resamples, num_seeds))
    on_front_A = np.zeros(len(cost_A))
    for drawn_S in drawn_BS:
        on_front_A += not_dominated(cost_A, loss_AS[:, drawn_S].mean(axis=1))
    return ParetoFront(
        is_on_front_A=not_dominated(cost_A, loss_AS.mean(axis=1)),
        on_front_frac_A=on_front_A / num_resamples,
        n=num_seeds,
        method=f"front of means; {num_resamples:,} paired resamples of {num_seeds} seeds",
    )


def not_dominated(cost_A: np.ndarray, loss_A: np.ndarray) -> np.ndarray:
    """Which arms no other arm equals or beats in both while beating it in one; (A,) bool."""
    no_more_AA = (cost_A[:, None] <= cost_A) & (loss_A[:, None] <= loss_A)
    less_AA = (cost_A[:, None] < cost_A) | (loss_A[:, None] < loss_A)
    return np.asarray(~(no_more_AA & less_AA).any(axis=0))
