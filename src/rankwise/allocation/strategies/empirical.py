"""Ideal rank proportional to a measured sensitivity: the RMS of the loss gradient with respect to each site's weight.

The root *mean* square, not the norm: a norm grows with the number of entries, so it favours wide matrices whatever they
contribute (under grouped-query attention, narrow key and value projections all but vanish). Where every gradient is
zero nothing was learnt about the sites, and the ranks are uniform.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteView
from rankwise.allocation.strategies.base import Strategy, relative_to_largest


class Empirical(Strategy):
    """Rank where the gradient of a few probe batches is large."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.GRADIENT_RMS})

    power: float = Field(1.0, gt=0, le=4)
    """Exponent on the gradient: below 1 softens the contrast between sites, above 1 sharpens it."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        gradient_L = np.asarray(sites.signals[Signal.GRADIENT_RMS], dtype=np.float64)
        return relative_to_largest(gradient_L) ** self.power
