"""Budgets in stored adapter parameters: what one is worth, and the integer ranks that spend it.

L = sites in forward order.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from rankwise.allocation.rounding import round_to_budget
from rankwise.allocation.sites import Site
from rankwise.errors import AllocationError

_NEGLIGIBLE = 1e-12
"""Preferences below this share of the largest one count as zero: no rank is large enough to tell."""


def resolve_budget(
    sites: Sequence[Site],
    *,
    rank: int | None = None,
    params: int | None = None,
    fraction: float | None = None,
    base_params: int | None = None,
) -> int:
    """The budget in stored adapter parameters.

    Args:
        sites: the adapted layers.
        rank: what a uniform rank of this size on `sites` would store.
        params: the number itself.
        fraction: relative to `base_params`, the parameters of the base model; rounded down.

    Raises:
        AllocationError: not exactly one of the three is given, `rank` is above the largest rank that any site can have,
            or the budget is below one component per site.
    """
    if not sites:
        raise AllocationError("budget: there is no site to spend it on. Choose targets that match linear layers.")
    if sum(given is not None for given in (rank, params, fraction)) != 1:
        raise AllocationError(
            f"budget needs exactly one of rank, params, fraction; got {rank=}, {params=}, {fraction=}."
        )
    least = sum(site.cost for site in sites)
    if rank is not None:
        return _params_of_rank(rank, sites)
    budget = params if params is not None else _params_of_fraction(fraction, base_params)
    if budget < least:
        stated = f"params {params:,}" if params is not None else f"fraction {fraction} ({budget:,} parameters)"
        raise AllocationError(
            f"budget: {stated} is below {least:,}, what one component at each of the {len(sites)} sites stores. "
            f"Allow at least {least:,} parameters, or choose fewer targets."
        )
    return budget


def _params_of_rank(rank: int, sites: Sequence[Site]) -> int:
    largest = max(site.max_rank for site in sites)
    if not 1 <= rank <= largest:
        raise AllocationError(
            f"budget: rank {rank} is not between 1 and {largest}, the largest rank that any of the {len(sites)} sites "
            f"can have (the smaller of its two widths). Choose a rank of at most {largest}."
        )
    return rank * sum(site.cost for site in sites)


def _params_of_fraction(fraction: float | None, base_params: int | None) -> int:
    if base_params is None:
        raise AllocationError(f"budget: fraction {fraction} is relative to the base model; base_params is missing.")
    if fraction is None or not 0 < fraction <= 1:
        raise AllocationError(f"budget: fraction {fraction} is not above 0 and at most 1.")
    return math.floor(fraction * base_params)


def fit(
    ideal_L: np.ndarray,
    cost_L: np.ndarray,
    budget: int,
    min_rank: int | np.ndarray,
    max_rank: int | np.ndarray,
) -> np.ndarray:
    """Integer ranks that spend `budget` and follow the preferences `ideal_L`.

    First the preferences are scaled to the budget: ranks are proportional to them wherever the bounds allow, and what
    a bound takes or gives is shared by the others, in proportion (water-filling). Sites without preference stay at
    `min_rank` and grow, evenly, only when all others are at `max_rank`. Then these real ranks become integers:

    - Never above the budget, always within the bounds.
    - Nothing more fits: the residual is smaller than any component that a site below `max_rank` could still take.
    - The largest spending, hence the budget itself if possible, among the integer ranks near the real ones; of these,
      the least sum of squared deviations from the real ranks. *Near* are those whose squared deviation exceeds by at
      most max(4, 256 / L) that of the closest ones that leave less than the dearest component unspent. Without that
      limit, awkward costs (1024 and 1877, say) would turn one preference into another for the sake of the last
      parameters. (If more components fit into the best of the near ones, which takes costs that differ widely between
      few sites, they are added where they deviate least.)
    - A preference equal for all sites, at a budget of rank x sum(cost_L), gives exactly that rank everywhere.
    - Deterministic, and a reordering of the sites reorders the ranks. Only sites that are equal in cost and in real
      rank can trade places; those that get the odd component are spread evenly over the order of the sites.

    A budget above `sum(max_rank * cost_L)` gives every site its `max_rank`; the residual says so.

    Args:
        ideal_L: preferences, non-negative and finite, not all zero. Only their ratios matter.
        cost_L: parameters of one component, positive integers.
        budget: stored adapter parameters.
        min_rank: scalar or (L,).
        max_rank: scalar or (L,).

    Returns:
        int64 (L,).

    Raises:
        AllocationError: an argument is not as described, or `budget < sum(min_rank * cost_L)`.
    """
    ideal_L = _checked_preferences(ideal_L)
    cost_L, low_L, high_L = _checked_bounds(ideal_L.shape, cost_L, min_rank, max_rank)
    budget = int(budget)
    least = int(low_L @ cost_L)
    if budget < least:
        raise AllocationError(
            f"budget: {budget:,} parameters do not cover the smallest allowed ranks of the {ideal_L.size} sites, which "
            f"store {least:,}. Allow at least {least:,} parameters, lower min_rank, or choose fewer targets."
        )
    if budget >= int(high_L @ cost_L):
        return high_L.copy()
    return round_to_budget(scale_to_budget(ideal_L, cost_L, budget, low_L, high_L), cost_L, budget, low_L, high_L)


def scale_to_budget(
    ideal_L: np.ndarray, cost_L: np.ndarray, budget: int, low_L: np.ndarray, high_L: np.ndarray
) -> np.ndarray:
    """Real ranks (L,) proportional to `ideal_L` where the bounds allow, that spend exactly `budget`.

    Solves sum(cost * clip(level * ideal, low, high)) = budget for the level. Needs
    `sum(low_L * cost_L) <= budget <= sum(high_L * cost_L)`.
    """
    wanted_L = ideal_L > _NEGLIGIBLE * ideal_L.max()
    full_L = np.where(wanted_L, high_L, low_L)
    if int(full_L @ cost_L) <= budget:
        if (full_L == high_L).all():
            return full_L.astype(np.float64)
        return scale_to_budget(1.0 - wanted_L, cost_L, budget, full_L, high_L)
    ideal_L = np.where(wanted_L, ideal_L / ideal_L.max(), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        leaves_low_L, meets_high_L = (np.where(wanted_L, bound_L / ideal_L, np.inf) for bound_L in (low_L, high_L))
    levels = np.unique(np.concatenate([leaves_low_L[wanted_L], meets_high_L[wanted_L]]))
    # Between two neighbouring levels the same sites are free, so spending is linear there.
    level = levels[
        bisect_left(levels, float(budget), key=lambda at: float(np.clip(at * ideal_L, low_L, high_L) @ cost_L))
    ]
    free_L = (leaves_low_L < level) & (level <= meets_high_L)
    real_L = np.where(meets_high_L < level, high_L, low_L).astype(np.float64)
    if free_L.any():
        # fsum: exactly rounded, so the order of the sites does not matter.
        left = budget - math.fsum(real_L[~free_L] * cost_L[~free_L])
        real_L[free_L] = ideal_L[free_L] * (left / math.fsum(ideal_L[free_L] * cost_L[free_L]))
    return np.clip(real_L, low_L, high_L)


def _checked_preferences(ideal_L: np.ndarray) -> np.ndarray:
    ideal_L = np.asarray(ideal_L, dtype=np.float64)
    if ideal_L.ndim != 1 or not ideal_L.size:
        raise AllocationError(f"fit: preferences need one value per site, got an array of shape {ideal_L.shape}.")
    bad = np.flatnonzero(~np.isfinite(ideal_L) | (ideal_L < 0))
    if bad.size:
        raise AllocationError(
            f"fit: the preference of site {bad[0]} is {ideal_L[bad[0]]}; preferences are finite and not negative."
        )
    if not ideal_L.any():
        raise AllocationError("fit: all preferences are zero, so they say nothing. Give equal ones for a uniform rank.")
    return ideal_L


def _checked_bounds(
    shape: tuple[int, ...], cost_L: np.ndarray, min_rank: int | np.ndarray, max_rank: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs and bounds as int64 (L,)."""
    arrays = {}
    for name, value, least in (("cost_L", cost_L, 1), ("min_rank", min_rank, 0), ("max_rank", max_rank, 0)):
        array = np.asarray(value)
        if not np.issubdtype(array.dtype, np.integer) or array.shape not in ((), shape) or (array < least).any():
            raise AllocationError(f"fit: {name} needs integers of at least {least}, one or one per site; got {value}.")
        arrays[name] = np.broadcast_to(array, shape).astype(np.int64)
    cost_L, low_L, high_L = arrays.values()
    bad = np.flatnonzero(low_L > high_L)
    if bad.size:
        raise AllocationError(
            f"fit: min_rank {low_L[bad[0]]} of site {bad[0]} is above its max_rank {high_L[bad[0]]}. "
            "Lower min_rank or raise max_rank."
        )
    return cost_L, low_L, high_L
