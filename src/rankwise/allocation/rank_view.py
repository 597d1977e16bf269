"""What a strategy that moves ranks while training may see: plain arrays, no torch.

L = sites in forward order, R = places for components at the roomiest site. Place j of site l holds a component, or is
free, or does not exist because the site has fewer places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.allocation.sites import Site


@dataclass(frozen=True, kw_only=True)
class RankView:
    """One run after one of its optimizer steps. Arrays follow the order of `sites`."""

    sites: Sequence[Site]
    step: int
    """Optimizer steps done, from 1."""
    num_steps: int
    """Optimizer steps of the whole run."""
    budget_params: int
    """Adapter parameters that may be stored at the end."""
    start_params: int
    """Adapter parameters that were active at the first step."""
    min_rank: int
    """No site may go below."""
    max_rank_L: np.ndarray
    """No site may go above: the smaller of what the study allows and what the layer can hold."""
    places_L: np.ndarray
    """Places for components at each site; a site's places are the first of its row."""
    active_LR: np.ndarray
    """Bool: which components take part now."""
    importance_LR: np.ndarray
    """How much each component matters now, in the measure that the strategy asked for; zero where there is none.
    Gathered by the engine over the steps so far, so the rule itself keeps no state."""

    @property
    def costs_L(self) -> np.ndarray:
        """Parameters of one component at each site."""
        return np.array([site.cost for site in self.sites])

    @property
    def exists_LR(self) -> np.ndarray:
        """Bool: which places there are."""
        return np.arange(self.active_LR.shape[1]) < self.places_L[:, None]
