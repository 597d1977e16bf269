"""Control: another strategy's preferences, dealt out to the sites at random.

The distribution of preferences stays; which site has which is lost. If the shuffled map trains as well as the original,
the strategy's gain came from having uneven ranks, not from knowing where to put them.

Preferences are permuted and the budget is then spent on them, because permuted integer ranks would cost another number
of parameters wherever sites differ in size. All sites take part, so the link to depth, kind and size is cut alike.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteView
from rankwise.allocation.strategies.base import Strategy
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

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        names = [site.name for site in sites.sites]
        ticket_L = [stream(self.draw, "shuffled", name).random() for name in names]
        shuffled_L = np.empty(len(names))
        shuffled_L[np.argsort(ticket_L)] = self.of.ideal_ranks(sites)[np.argsort(names)]
        return shuffled_L
