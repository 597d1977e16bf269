"""The same rank everywhere: what LoRA does by default, and the baseline of every comparison.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
"""

import numpy as np

from rankwise.allocation.sites import SiteView
from rankwise.allocation.strategies.base import Strategy


class Uniform(Strategy):
    """The same rank at every site."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return np.ones(len(sites.sites))
