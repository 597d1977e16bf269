"""Control: another strategy's preferences in reverse order. If this trains as well, the order did not matter.

The site that the strategy likes best gets the preference of the one it likes least, and so on inwards. Rank order, not
the reciprocal: the set of preferences stays the one that the strategy and its `shuffled` control have, so the three
differ in nothing but who gets what, and a preference of zero or an outlier does no harm. Sites that the strategy likes
equally stay equal: they share the mean of the preferences they would get.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.allocation.strategies.wrapped import Wrapped


class Inverted(Strategy):
    """Another strategy's preferences, the largest where it has the smallest."""

    is_control: ClassVar[bool] = True

    of: Wrapped = Field("empirical", validate_default=True)
    """The strategy to invert; its probe is needed too."""

    def required_signals(self) -> frozenset[Signal]:
        return self.of.required_signals()

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        ideal_L = self.of.ideal_ranks(sites)
        _, level_L, num_equal = np.unique(ideal_L, return_inverse=True, return_counts=True)
        descending_L = np.sort(ideal_L)[::-1]
        first = np.cumsum(num_equal) - num_equal
        return (np.add.reduceat(descending_L, first) / num_equal)[level_L]
