"""Ideal rank linear in depth, from the first block to the last.

Which end deserves more is disputed: early layers look necessary, late ones move most in fine-tuning, so both directions
are here. With a single block all sites have the depth of the first, which makes the ranks uniform.
"""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from rankwise.allocation.sites import SiteView
from rankwise.allocation.strategies.base import Strategy


class LinearDecay(Strategy):
    """More rank in the first blocks, less in the last."""

    first: float = Field(1.5, gt=0, allow_inf_nan=False)
    """Ideal rank of the first block's sites, relative to the other end."""
    last: float = Field(0.5, ge=0, allow_inf_nan=False)
    """Ideal rank of the last block's sites."""

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.last > self.first:
            raise ValueError(f"last ({self.last}) is above first ({self.first}); that is linear_growth")
        return self

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return _line(self.first, self.last, sites)


class LinearGrowth(Strategy):
    """Less rank in the first blocks, more in the last."""

    first: float = Field(0.5, ge=0, allow_inf_nan=False)
    """Ideal rank of the first block's sites, relative to the other end."""
    last: float = Field(1.5, gt=0, allow_inf_nan=False)
    """Ideal rank of the last block's sites."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last ({self.last}) is below first ({self.first}); that is linear_decay")
        return self

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        ideal_L = _line(self.first, self.last, sites)
        return ideal_L if ideal_L.any() else np.ones_like(ideal_L)  # first = 0 and a single block


def _line(first: float, last: float, sites: SiteView) -> np.ndarray:
    return (1 - sites.depth_L) * first + sites.depth_L * last
