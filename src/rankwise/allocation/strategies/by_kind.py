"""Ideal rank decided by the part of the block: attention against MLP.

Attention-only LoRA was the first recommendation (Hu et al., arXiv:2106.09685, section 7.1); later measurements at equal
parameters favour the MLP (Schulman et al., "LoRA Without Regret", Thinking Machines 2025). Where only one of the two is
adapted, the ranks are uniform.
"""

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import SiteKind, SiteView
from rankwise.allocation.strategies.base import Strategy


class AttentionHeavy(Strategy):
    """More rank at attention sites than anywhere else."""

    ratio: float = Field(2.0, ge=1, allow_inf_nan=False)
    """Ideal rank of an attention site, as a multiple of that of any other site."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return _favour("attention", self.ratio, sites)


class MlpHeavy(Strategy):
    """More rank at MLP sites than anywhere else."""

    ratio: float = Field(2.0, ge=1, allow_inf_nan=False)
    """Ideal rank of an MLP site, as a multiple of that of any other site."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return _favour("mlp", self.ratio, sites)


def _favour(kind: SiteKind, ratio: float, sites: SiteView) -> np.ndarray:
    return np.array([ratio if site.kind == kind else 1.0 for site in sites.sites])
