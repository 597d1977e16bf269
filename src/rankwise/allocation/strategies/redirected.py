"""A control over a dynamic strategy: the same rule, schedule and budget, but with the importances of other sites.

A static control permutes or inverts *preferences* and spends the same budget on them. A dynamic strategy's preferences
are the importances that it sees at each revision, so those are permuted or inverted, by site. Within a site each
component keeps its place in the order of importance, so that the control is wrong about *where* rank goes and nothing
else. The redirection is the same at each revision; it is not drawn anew, or the ranks would only average out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.strategies.base import Mechanics, Phases, RankMover


@dataclass(frozen=True)
class Redirected:
    """Shows `of` the importances of the site that `source_L` names for each site."""

    of: RankMover
    source_L: Callable[[RankView], np.ndarray]

    def mechanics(self) -> Mechanics:
        return self.of.mechanics()

    def phases(self, num_steps: int) -> Phases:
        return self.of.phases(num_steps)

    def revise(self, view: RankView) -> np.ndarray | None:
        return self.of.revise(replace(view, importance_LR=_redirect(view, self.source_L(view))))


def _redirect(view: RankView, source_L: np.ndarray) -> np.ndarray:
    """Importances (L, R) with site l's components at the levels of site `source_L[l]`'s, in their own order.

    Only components that are active or were ever measured count. Where the two sites have unequal numbers of them,
    levels are read off at the same share of the way from the most to the least important one.
    """
    counts_LR = view.exists_LR & (view.active_LR | (view.importance_LR != 0))
    found_LR = np.zeros_like(view.importance_LR)
    for site, source in enumerate(source_L):
        own_R = np.flatnonzero(counts_LR[site])
        levels_R = np.sort(view.importance_LR[source, counts_LR[source]])[::-1]
        if own_R.size and levels_R.size:
            places = np.round(np.linspace(0, levels_R.size - 1, own_R.size)).astype(int)
            order_R = own_R[np.argsort(-view.importance_LR[site, own_R], kind="stable")]
            found_LR[site, order_R] = levels_R[places]
    return found_LR
