"""Control: another strategy's preferences, dealt out to the sites at random.

The distribution of preferences stays; which site has which is lost. If the shuffled map trains as well as the original,
the strategy's gain came from having uneven ranks, not from knowing where to put them.

Preferences are permuted and the budget is then spent on them, because permuted integer ranks would cost another number
of parameters wherever sites differ in size. All sites take part, so the link to depth, kind and size is cut alike.
Of a dynamic strategy the importances are permuted, at each revision in the same way (see `redirected`).
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.sites import Signal, Site, SiteSignal, SiteView
from rankwise.allocation.strategies.base import RankMover, Strategy
from rankwise.allocation.strategies.redirected import Redirected
from rankwise.allocation.strategies.wrapped import Wrapped
from rankwise.streams import stream


class Shuffled(Strategy):
    """Another strategy's preferences permuted over all sites, whatever the order in which the sites are listed."""

    is_control: ClassVar[bool] = True

    of: Wrapped = Field("empirical", validate_default=True)
    """The strategy to permute; its probe is needed too."""
    draw: int = Field(0, ge=0)
    """Which of the permutations."""

    def required_signals(self) -> frozenset[Signal]:
        return self.of.required_signals()

    def rank_bounds(self, sites: SiteView) -> tuple[int, int | None]:
        return self.of.rank_bounds(sites)

    def site_signal(self, sites: SiteView) -> SiteSignal | None:
        return self.of.site_signal(sites)

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return self.of.ideal_ranks(sites)[self._source(sites.sites)]

    def mover(self) -> RankMover | None:
        moved = self.of.mover()
        return Redirected(moved, self._source_of_view) if moved else None

    def _source_of_view(self, view: RankView) -> np.ndarray:
        return self._source(view.sites)

    def _source(self, sites: Sequence[Site]) -> np.ndarray:
        """Whose preference each site gets: by name, so that the order in which sites are listed plays no part."""
        names = [site.name for site in sites]
        ticket_L = [stream(self.draw, "shuffled", name).random() for name in names]
        source_L = np.empty(len(names), dtype=int)
        source_L[np.argsort(ticket_L)] = np.argsort(names)
        return source_L
