"""Rank in proportion to how much a site's weights matter to the loss: the mean of |W * G|, weight times gradient.

He et al., "GoRA: Gradient-driven Adaptive Low Rank Adaptation", arXiv:2502.12171, section 3.2. With importances I_i,
their shares a_i = I_i / sum(I) and sites of m_i outputs and n_i inputs, r_i = b a_i / sqrt(m_i + n_i), where
b = r sum(sqrt(m_i + n_i)), rounded and clipped to r_min..r_max. G is the mean gradient over some batches: the paper
takes 32 or 64, here it is the eight that every probe sees.

The square root lets the paper's own budget come out wrong by some 10 %, and clipping is not repaired. Here the same
preferences, a_i / sqrt(m_i + n_i), are scaled until the budget in parameters is spent. The bounds are those of the
published runs, 4 and 32 at r = 8. Where every importance is zero, ranks are uniform.

Only the ranks are GoRA's; its initialisation is a setting of its own.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteView
from rankwise.allocation.strategies.base import Strategy, relative_to_largest


class Gora(Strategy):
    """Rank where weights are large and the loss pulls at them."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.GRADIENT_SENSITIVITY})

    least: float = Field(0.5, ge=0, le=1)
    """Smallest rank of a site, as a multiple of the mean rank."""
    most: float = Field(4.0, ge=1, allow_inf_nan=False)
    """Largest rank of a site, as a multiple of the mean rank."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        importance_L = np.asarray(sites.signals[Signal.GRADIENT_SENSITIVITY], dtype=np.float64)
        return relative_to_largest(importance_L / np.sqrt(sites.costs_L))

    def rank_bounds(self, sites: SiteView) -> tuple[int, int]:
        return round(self.least * sites.mean_rank), round(self.most * sites.mean_rank)
