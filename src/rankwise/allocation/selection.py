"""Which components stay when a budget must be met: the most important ones, and the budget spent to the last parameter.

L = sites in forward order, R = components of the widest site.
"""

import numpy as np

from rankwise.allocation.rounding import round_to_budget
from rankwise.errors import AllocationError

_GOLDEN = (5**0.5 - 1) / 2
_NEAR = 0.49
"""How far the nearest excluded component pulls a site's count up, and the nearest included one down: below one half, so
that rounding alone changes nothing."""


def keep_most_important(
    importance_LR: np.ndarray,
    candidate_LR: np.ndarray,
    cost_L: np.ndarray,
    budget: int,
    min_rank: int | np.ndarray = 0,
    max_rank: int | np.ndarray | None = None,
    *,
    exact: bool = True,
) -> np.ndarray:
    """The candidates that stay within `budget`: one threshold on importance over all sites.

    Components are taken in order of importance (first the `min_rank` best of every site) up to the first that does not
    fit. Where all costs are equal that is the top-k of AdaLoRA (arXiv:2303.10512, section 3.2). Where they are not, the
    threshold leaves up to one dear component unspent, so with `exact` the *number* of components per site is repaired
    by the solver behind `fit`: the budget exactly where a solution is near, else a residual below the cheapest
    component that could be added. A site whose next component just missed the threshold is raised first, one whose last
    just passed it is lowered first. Within a site the most important components stay.

    Args:
        importance_LR: any finite numbers; only their order matters. Equal ones are shared out evenly over the sites.
        candidate_LR: bool; the others are never kept.
        cost_L: parameters of one component.
        budget: parameters that may be kept.
        min_rank: scalar or (L,): kept at every site, as far as there are candidates.
        max_rank: scalar or (L,); None for no limit.
        exact: False stops at the threshold.

    Returns:
        bool (L, R).

    Raises:
        AllocationError: an importance is not finite, or the budget does not cover `min_rank`.
    """
    if not np.isfinite(importance_LR[candidate_LR]).all():
        raise AllocationError("The importance of a component is not finite, so components cannot be put in order.")
    place_LR = _places(importance_LR, candidate_LR)
    available_L = candidate_LR.sum(axis=1)
    high_L = available_L if max_rank is None else np.minimum(available_L, max_rank)
    low_L = np.minimum(high_L, min_rank)
    if int(low_L @ cost_L) > budget:
        raise AllocationError(
            f"A budget of {budget:,} parameters does not cover the smallest allowed ranks, which store "
            f"{int(low_L @ cost_L):,}."
        )
    if budget >= int(high_L @ cost_L):
        return place_LR < high_L[:, None]
    site_N, place_N = _in_order(importance_LR, place_LR, low_L, high_L)
    num_kept = int(np.searchsorted(np.cumsum(cost_L[site_N]), budget, side="right"))
    rank_L = np.bincount(site_N[:num_kept], minlength=len(cost_L))
    if exact:
        nearness_L = _nearness(site_N, place_N, num_kept, low_L)
        rank_L = round_to_budget(np.clip(rank_L + nearness_L, low_L, high_L), cost_L, budget, low_L, high_L)
    return place_LR < rank_L[:, None]


def _places(importance_LR: np.ndarray, candidate_LR: np.ndarray) -> np.ndarray:
    """Each candidate's place within its site, the most important first; beyond all places for the others."""
    num_places = importance_LR.shape[1]
    order_LR = np.argsort(np.where(candidate_LR, -importance_LR, np.inf), axis=1, kind="stable")
    place_LR = np.empty_like(order_LR)
    np.put_along_axis(place_LR, order_LR, np.broadcast_to(np.arange(num_places), order_LR.shape), axis=1)
    return np.where(candidate_LR, place_LR, num_places + 1)


def _in_order(
    importance_LR: np.ndarray, place_LR: np.ndarray, low_L: np.ndarray, high_L: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Site and place of every component that may be kept, in the order in which they are taken."""
    sites, components = np.nonzero(place_LR < high_L[:, None])
    place, importance = place_LR[sites, components], importance_LR[sites, components]
    turn = sites * _GOLDEN % 1  # equal ones are spread over the order of the sites
    order = np.lexsort((turn, place, -importance, place >= low_L[sites]))
    return sites[order], place[order]


def _nearness(site_N: np.ndarray, place_N: np.ndarray, num_kept: int, low_L: np.ndarray) -> np.ndarray:
    """How close each site is to one component more (positive) or one less (negative), within a half: (L,)."""
    nearness_L = np.zeros(len(low_L))
    excluded, first = np.unique(site_N[num_kept:], return_index=True)
    nearness_L[excluded] += _NEAR / (1 + first)
    kept_N, kept_place_N = site_N[:num_kept][::-1], place_N[:num_kept][::-1]
    removable = kept_place_N >= low_L[kept_N]
    included, last = np.unique(kept_N[removable], return_index=True)
    nearness_L[included] -= _NEAR / (1 + last)
    return nearness_L
