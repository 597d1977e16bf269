"""Rank by how many directions the first gradients point in, seen through the inputs of each site.

Lin, "Early Gradient Spectra and Useful Low-Rank Adaptation", 2026, github.com/GoGoKo699/early-gradient-spectra-lora
(strategy `spectral_effective`). The score s_i of a site is the effective rank, exp of the entropy of the shares of
sigma^2, of its gradient over eight batches, whitened by the second moment of its inputs. The k-th component of a site
is worth s_i / sqrt(k), and the ranks are those of the largest total worth at the parameter budget, between 1 and 4 r.

Published is an exact knapsack. Here components are taken in the order of their worth per parameter, s_i / (c_i sqrt k),
which is the same up to the last few because worths fall along a site. In the large, ranks go with (s_i / c_i)^2: dear
sites get less, and between sites of equal size the score counts squared. Where every gradient is zero, ranks are
uniform.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteSignal, SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.allocation.strategies.components import take_in_order
from rankwise.allocation.strategies.spectrum import effective_rank


class EarlyGradientSpectrum(Strategy):
    """Rank where the whitened gradient has many directions for the parameters they cost."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.GRADIENT_SPECTRUM})

    most: float = Field(4.0, ge=1, allow_inf_nan=False)
    """Largest rank of a site, as a multiple of the mean rank."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        _, most = self.rank_bounds(sites)
        worth_LK = _score(sites)[:, None] / np.sqrt(np.arange(1, most + 1))
        priority_LK = worth_LK / sites.costs_L[:, None]
        priority_LK[:, 0] = np.inf
        return take_in_order(priority_LK, sites.costs_L, sites.budget)

    def rank_bounds(self, sites: SiteView) -> tuple[int, int]:
        widest = max(site.max_rank for site in sites.sites)
        return 1, min(widest, max(1, round(self.most * sites.mean_rank)))

    def site_signal(self, sites: SiteView) -> SiteSignal:
        return SiteSignal(name="effective rank of the whitened gradient (directions)", values_L=_score(sites))


def _score(sites: SiteView) -> np.ndarray:
    """The effective rank of each site's whitened gradient: (L,)."""
    return effective_rank(np.asarray(sites.signals[Signal.GRADIENT_SPECTRUM], dtype=np.float64), power=2)
