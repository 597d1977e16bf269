"""What a strategy may know about the layers it distributes ranks over: plain values, no torch.

L = sites in forward order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np

SiteKind = Literal["attention", "mlp", "other"]


class Signal(StrEnum):
    """A quantity that a probe can measure per site before training."""

    GRADIENT_RMS = "gradient_rms"
    """Root mean square over the entries of dLoss/dW, averaged over probe batches: (L,), nats per unit weight."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One linear layer that can be adapted."""

    name: str
    """Full module name in the base model, as in `model.named_modules()`."""
    kind: SiteKind
    """Which part of the block it belongs to; `other` is outside both (an output head)."""
    layer: int
    """Index of the decoder block, from 0."""
    in_features: int
    out_features: int

    @property
    def leaf(self) -> str:
        """The last part of the name, such as `q_proj`."""
        return self.name.rpartition(".")[2]

    @property
    def cost(self) -> int:
        """Parameters of one component: a down row and an up column."""
        return self.in_features + self.out_features

    @property
    def max_rank(self) -> int:
        """The rank beyond which a product of two matrices gains nothing."""
        return min(self.in_features, self.out_features)


@dataclass(frozen=True, kw_only=True)
class SiteView:
    """All that a strategy sees. Arrays follow the order of `sites`."""

    sites: Sequence[Site]
    signals: Mapping[Signal, np.ndarray] = field(default_factory=dict)
    """Only what the strategy's `needs` named; each array has L as its first axis."""

    @property
    def layers_L(self) -> np.ndarray:
        return np.array([site.layer for site in self.sites])

    @property
    def depth_L(self) -> np.ndarray:
        """Depth of each site's block: 0 for the first, 1 for the last (0 where there is only one)."""
        layers = self.layers_L
        return (layers - layers.min()) / max(1, layers.max() - layers.min())

    @property
    def costs_L(self) -> np.ndarray:
        return np.array([site.cost for site in self.sites])

    @property
    def kinds(self) -> tuple[SiteKind, ...]:
        return tuple(site.kind for site in self.sites)
