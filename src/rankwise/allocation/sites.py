"""What a strategy may know about the layers it distributes ranks over: plain values, no torch.

L = sites in forward order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np

from rankwise.errors import AllocationError

SiteKind = Literal["attention", "mlp", "other"]


class Signal(StrEnum):
    """A quantity that a probe can measure per site before training. K = columns, largest value first, then zeros."""

    GRADIENT_RMS = "gradient_rms"
    """Root mean square over the entries of dLoss/dW, averaged over probe batches: (L,), nats per unit weight."""
    FISHER = "fisher"
    """Mean square over the entries of dLoss/dW, averaged over probe batches: (L,). In expectation three times the mean
    squared gradient of `up` for a `down` drawn by `kaiming`, whatever the site (see the strategy `fisher`)."""
    GRADIENT_SENSITIVITY = "gradient_sensitivity"
    """Mean over the entries of |W * G|, with G the mean of dLoss/dW over the probe batches: (L,), nats."""
    GRADIENT_SPECTRUM = "gradient_spectrum"
    """Singular values of the mean dLoss/dW, whitened by the second moment of the site's inputs: (L, K)."""
    ACTIVATION_VARIANCE = "activation_variance"
    """Explained variance ratios of the inputs at answer tokens: (L, K), each row adds up to at most 1."""
    WEIGHT_SPECTRUM = "weight_spectrum"
    """All singular values of the frozen weight: (L, K). The only signal that needs no examples."""

    @property
    def needs_data(self) -> bool:
        """Whether training examples must go through the model to measure it."""
        return self is not Signal.WEIGHT_SPECTRUM

    @property
    def is_spectrum(self) -> bool:
        """Whether it has a row (K,) per site rather than a number."""
        return self in (Signal.GRADIENT_SPECTRUM, Signal.ACTIVATION_VARIANCE, Signal.WEIGHT_SPECTRUM)

    @property
    def in_words(self) -> str:
        """What it is, with its unit, as the axis of a figure says it."""
        return _IN_WORDS[self]


_IN_WORDS = {
    Signal.GRADIENT_RMS: "RMS gradient (nats per unit weight)",
    Signal.FISHER: "mean squared gradient (nats² per unit weight²)",
    Signal.GRADIENT_SENSITIVITY: "mean |weight × gradient| (nats)",
    Signal.GRADIENT_SPECTRUM: "singular values of the whitened gradient",
    Signal.ACTIVATION_VARIANCE: "explained variance of the input (share)",
    Signal.WEIGHT_SPECTRUM: "singular values of the weight",
}


@dataclass(frozen=True, kw_only=True)
class SiteSignal:
    """What a rule went by at each site, as the one number that its ranks can be held against."""

    name: str
    """What it is, with its unit, as the axis of a figure says it."""
    values_L: np.ndarray
    """float64 (L,)."""


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


def site_group(kind: SiteKind, layer: int, num_layers: int) -> str:
    """The kind and the third of the depth, as traces group sites: `attention.early`, `mlp.late`; `other` for others."""
    return kind if kind == "other" else f"{kind}.{('early', 'middle', 'late')[3 * layer // num_layers]}"


@dataclass(frozen=True, kw_only=True)
class SiteView:
    """All that a strategy sees. Arrays follow the order of `sites`."""

    sites: Sequence[Site]
    signals: Mapping[Signal, np.ndarray] = field(default_factory=dict)
    """Only what the strategy's `needs` named; each array has L as its first axis."""
    budget_params: int | None = None
    """Stored adapter parameters that are to be spent. `allocate` fills it in; None where there is no budget yet."""

    @property
    def budget(self) -> int:
        """`budget_params`, where a strategy cannot do without.

        Raises:
            AllocationError: the view has none.
        """
        if self.budget_params is None:
            raise AllocationError("This strategy depends on the budget; give the view its budget_params.")
        return self.budget_params

    @property
    def mean_rank(self) -> float:
        """The uniform rank that the budget would buy: what published rules call r and bound ranks by."""
        return float(self.budget / self.costs_L.sum())

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
