"""Components of all sites in one order, taken from the top while they fit the budget.

L = sites, K = the most components that a site may get.
"""

import numpy as np


def take_in_order(priority_LK: np.ndarray, cost_L: np.ndarray, budget: int) -> np.ndarray:
    """How many components each site gets when those of highest priority are taken as long as they fit: float64 (L,).

    A component that does not fit ends its site's row; cheaper ones of other sites may still follow. Equal priorities
    stand or fall together, so the order of the sites does not matter. Components of priority 0 are not taken; where
    there are no others, all sites count as equal.

    Args:
        priority_LK: of each site's first, second, ... component; non-negative and not rising along a row.
        cost_L: parameters of one component.
        budget: stored adapter parameters.
    """
    order = np.argsort(-priority_LK, axis=None, kind="stable")[: np.count_nonzero(priority_LK)]
    levels = priority_LK.ravel()[order]
    groups = np.split(order // priority_LK.shape[1], np.flatnonzero(levels[1:] != levels[:-1]) + 1)
    counts_L = np.zeros(len(cost_L))
    is_open_L = np.ones(len(cost_L), dtype=bool)
    left = budget
    for equals in groups:
        sites = equals[is_open_L[equals]]
        cost = int(cost_L[sites].sum())
        if cost <= left:
            np.add.at(counts_L, sites, 1)
            left -= cost
        else:
            is_open_L[sites] = False
    return counts_L if counts_L.any() else np.ones_like(counts_L)
