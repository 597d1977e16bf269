"""Ideal rank proportional to how many directions a site's frozen weight is spread over. Looks at no data.

The stable rank |W|_F^2 / |W|_2^2 (Rudelson and Vershynin, arXiv:math/0503442), or the effective rank, exp of the
entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007). Both are 1 for a weight of one direction and
the full rank for an orthogonal one. The idea, without a paper that it is the rule of: a change may need as many
directions as the weight uses. It is the cheapest allocation that looks at the model, and what signals that need data
must beat. Zero weights have no say: where all are zero, ranks are uniform.
"""

from typing import ClassVar, Literal

import numpy as np

from rankwise.allocation.sites import Signal, SiteSignal, SiteView
from rankwise.allocation.strategies.base import Strategy, relative_to_largest
from rankwise.allocation.strategies.spectrum import effective_rank, stable_rank


class WeightSpectrum(Strategy):
    """Rank where the frozen weight uses many directions."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.WEIGHT_SPECTRUM})

    measure: Literal["stable_rank", "effective_rank"] = "stable_rank"
    """`stable_rank`: squared Frobenius over squared spectral norm; `effective_rank`: exp of the entropy of the singular
    values, which heeds small ones more and differs less between sites."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return relative_to_largest(self._used(sites))

    def site_signal(self, sites: SiteView) -> SiteSignal:
        name = f"{self.measure.replace('_', ' ')} of the weight (directions)"
        return SiteSignal(name=name, values_L=self._used(sites))

    def _used(self, sites: SiteView) -> np.ndarray:
        """Directions that each weight is spread over: (L,)."""
        values_LK = np.asarray(sites.signals[Signal.WEIGHT_SPECTRUM], dtype=np.float64)
        return stable_rank(values_LK) if self.measure == "stable_rank" else effective_rank(values_LK, power=1)
