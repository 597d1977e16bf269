"""Components go where they explain most of the variance of what enters a site.

Paischer et al., "Parameter Efficient Fine-tuning via Explained Variance Adaptation" (EVA), arXiv:2410.07170, section 3.
The explained variance ratios of all sites' inputs are sorted together, and each one that is taken, from the largest
down, adds a component to its site, at most `rho` x r of them. Ratios, not variances: a site with large activations is
not favoured, one with few directions is.

The paper stops after L x r components, which are cheaper or dearer than a uniform rank r; `rank_sum` does that. Under a
budget in parameters it stops where the parameters of the components do not fit any more. Sites that read the same
input (q, k and v) have equal ratios and are served alike. A site may get nothing; the budget's `min_rank` decides
whether it then keeps one component. Where no input varies, ranks are uniform.

Only the ranks are EVA's. Its initialisation is a setting of its own, as is the scale, which EVA keeps the same for all.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteSignal, SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.allocation.strategies.components import take_in_order

LARGEST_RHO = 4.0
"""The probe measures this many times the mean rank of components, whatever `rho` is, so that arms share it."""


class Eva(Strategy):
    """Rank where few more directions of the input would explain much of it."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ACTIVATION_VARIANCE})

    rho: float = Field(2.0, ge=1, le=LARGEST_RHO)
    """Largest rank of a site, as a multiple of the mean rank; 1 makes the ranks uniform."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        _, most = self.rank_bounds(sites)
        ratios_LK = np.asarray(sites.signals[Signal.ACTIVATION_VARIANCE], dtype=np.float64)[:, :most]
        return take_in_order(ratios_LK, sites.costs_L, sites.budget)

    def rank_bounds(self, sites: SiteView) -> tuple[int, int]:
        return 0, max(1, round(self.rho * sites.mean_rank))

    def site_signal(self, sites: SiteView) -> SiteSignal:
        """What the last component of a uniform rank would explain: sites above the cut of all ratios get more."""
        ratios_LK = np.asarray(sites.signals[Signal.ACTIVATION_VARIANCE], dtype=np.float64)
        component = min(max(1, round(sites.mean_rank)), ratios_LK.shape[1])
        name = f"input variance explained by component {component} (share)"
        return SiteSignal(name=name, values_L=ratios_LK[:, component - 1])


def rank_sum(ratios_LK: np.ndarray, rank: int, rho: float = 2.0) -> np.ndarray:
    """The ranks (L,) of the paper, and of `peft.initialize_lora_eva_weights`: a budget of L x rank components.

    Beside ours, where a component costs what it stores. Of equal ratios the first sites' are taken.

    Args:
        ratios_LK: explained variance ratios, largest first.
        rank: the mean rank.
        rho: the largest rank of a site, as a multiple of `rank`; rounded.
    """
    candidates_LK = ratios_LK[:, : round(rank * rho)]
    order = np.argsort(-candidates_LK, axis=None, kind="stable")[: rank * len(ratios_LK)]
    return np.bincount(order // candidates_LK.shape[1], minlength=len(ratios_LK))
