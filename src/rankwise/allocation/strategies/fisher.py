"""Rank in proportion to the empirical Fisher information of each site's adapter before training.

Sathyavageeswaran, "FIM-LoRA: Task-Informative Rank Allocation for LoRA via Calibration-Time Gradient-Variance
Estimation", arXiv:2605.16800: the squared gradient of `up` (lora_B), averaged over its entries and eight batches, at
up = 0 and a random `down`; ranks proportional to it, between 1 and twice the mean rank.

What is measured here is the mean squared gradient of the frozen weight, and that is the same thing without the noise of
one draw. At up = 0 the gradient of `up` is s G down^T, with G = dLoss/dW (F, D). The entries of PEFT's `down` are
uniform within 1 / sqrt(D), so of variance 1 / (3 D), and the mean over draws of the mean square of the F x r entries is
s^2 |G|^2 / (3 D F): a third of the mean square of G, times a factor that is the same for all sites. `gaussian` initial
weights would add a factor D, which favours wide inputs. Gradients are those of a batch's mean loss, as in the published
code, so this is no per-example Fisher. Beside `empirical`: the square, where that has the root.

Where every gradient is zero, ranks are uniform.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from rankwise.allocation.sites import Signal, SiteView
from rankwise.allocation.strategies.base import Strategy, relative_to_largest


class Fisher(Strategy):
    """Rank where the squared gradient of the adapter would be large."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.FISHER})

    most: float = Field(2.0, ge=1, allow_inf_nan=False)
    """Largest rank of a site, as a multiple of the mean rank; 1 makes the ranks uniform."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return relative_to_largest(np.asarray(sites.signals[Signal.FISHER], dtype=np.float64))

    def rank_bounds(self, sites: SiteView) -> tuple[int, int]:
        return 1, round(self.most * sites.mean_rank)
