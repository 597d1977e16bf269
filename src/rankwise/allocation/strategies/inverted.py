"""Control: another strategy's preferences in reverse order. If this trains as well, the order did not matter.

The site that the strategy likes best gets the preference of the one it likes least, and so on inwards. Rank order, not
the reciprocal: the set of preferences stays the one that the strategy and its `shuffled` control have, so the three
differ in nothing but who gets what, and a preference of zero or an outlier does no harm. Sites that the strategy likes
equally stay equal: they share the mean of the preferences they would get. Of a dynamic strategy the importances are
inverted at each revision: the site whose components matter most on average is shown those of the one where they matter
least (see `redirected`).
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.sites import Signal, SiteSignal, SiteView
from rankwise.allocation.strategies.base import RankMover, Strategy
from rankwise.allocation.strategies.redirected import Redirected
from rankwise.allocation.strategies.wrapped import Wrapped


class Inverted(Strategy):
    """Another strategy's preferences, the largest where it has the smallest."""

    is_control: ClassVar[bool] = True

    of: Wrapped = Field("empirical", validate_default=True)
    """The strategy to invert; its probe is needed too."""

    def required_signals(self) -> frozenset[Signal]:
        return self.of.required_signals()

    def rank_bounds(self, sites: SiteView) -> tuple[int, int | None]:
        return self.of.rank_bounds(sites)

    def site_signal(self, sites: SiteView) -> SiteSignal | None:
        return self.of.site_signal(sites)

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        ideal_L = self.of.ideal_ranks(sites)
        _, level_L, num_equal = np.unique(ideal_L, return_inverse=True, return_counts=True)
        descending_L = np.sort(ideal_L)[::-1]
        first = np.cumsum(num_equal) - num_equal
        return (np.add.reduceat(descending_L, first) / num_equal)[level_L]

    def mover(self) -> RankMover | None:
        moved = self.of.mover()
        return Redirected(moved, _opposites) if moved else None


def _opposites(view: RankView) -> np.ndarray:
    """For each site the one at the other end of the order of mean importance, by name among equals: (L,)."""
    total_L = np.where(view.active_LR, view.importance_LR, 0.0).sum(axis=1)
    mean_L = total_L / np.maximum(1, view.active_LR.sum(axis=1))
    name_L = np.argsort(np.argsort([site.name for site in view.sites]))
    order_L = np.lexsort((name_L, mean_L))
    source_L = np.empty_like(order_L)
    source_L[order_L] = order_L[::-1]
    return source_L
