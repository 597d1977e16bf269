"""Cut a trained adapter to a smaller budget: the globally largest singular values of scale · up · down stay.

One wide run holds the whole curve of budgets: an `AdapterSpectrum` is computed once and cut as often as wanted.

    spectrum = AdapterSpectrum.of(tensors, scales)
    smaller = [spectrum.truncate(budget_params) for budget_params in (50_000, 100_000, 200_000)]

The decomposition never forms an (out, in) matrix: with up = Q S and downᵀ = P T (QR), the singular values of up · down
are those of the small product S · Tᵀ. By the Eckart-Young theorem what stays of each site is its best approximation of
that rank. PARA, arXiv:2604.27796, compresses adapters so.

L = sites, R = components of the widest site.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rankwise.allocation.selection import keep_most_important

Tensors = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per site name `down` (rank, in) and `up` (out, rank)."""


@dataclass(frozen=True, kw_only=True)
class SiteSpectrum:
    """scale · up · down of one site as left · diag(values) · right."""

    left: np.ndarray
    """Orthonormal columns (out, rank), float64."""
    values: np.ndarray
    """Singular values (rank,), descending; a trailing zero is a component that adds nothing."""
    right: np.ndarray
    """Orthonormal rows (rank, in), float64."""
    scale: float

    @classmethod
    def of(cls, down: np.ndarray, up: np.ndarray, scale: float) -> "SiteSpectrum":
        left, left_core = np.linalg.qr(up.astype(np.float64))
        right, right_core = np.linalg.qr(down.astype(np.float64).T)
        inner_left, values, inner_right = np.linalg.svd(left_core @ right_core.T)
        return cls(left=left @ inner_left, values=abs(scale) * values, right=inner_right @ right.T, scale=scale)

    @property
    def cost(self) -> int:
        """Parameters of one component."""
        return len(self.left) + self.right.shape[1]

    def components(self, kept_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`down` and `up` in float32 of the chosen components, both of equal norm, to be used at the same scale."""
        root = np.sqrt(self.values[kept_R] / abs(self.scale))
        down = root[:, None] * self.right[kept_R]
        up = np.sign(self.scale) * self.left[:, kept_R] * root
        return down.astype(np.float32), np.ascontiguousarray(up, dtype=np.float32)


@dataclass(frozen=True)
class AdapterSpectrum:
    """The singular values and vectors of all sites of one trained adapter."""

    sites: dict[str, SiteSpectrum]

    @classmethod
    def of(cls, tensors: Tensors, scales: Mapping[str, float]) -> "AdapterSpectrum":
        """Of an adapter as `read_peft_folder` or `AdapterTrained` gives it, with the scale of each of its sites."""
        return cls({name: SiteSpectrum.of(down, up, scales[name]) for name, (down, up) in tensors.items()})

    @property
    def values_LR(self) -> np.ndarray:
        """Singular values of scale · up · down in the order of the sites, zero where a site has fewer."""
        values_LR = np.zeros((len(self.sites), max((site.values.size for site in self.sites.values()), default=0)))
        for row, site in zip(values_LR, self.sites.values(), strict=True):
            row[: site.values.size] = site.values
        return values_LR

    def truncate(self, budget_params: int, *, min_rank: int = 0) -> Tensors:
        """The adapter of at most `budget_params` parameters, at the same scales.

        One threshold on the singular values of all sites decides, repaired so that the budget is spent exactly where a
        solution is near (`keep_most_important`). A site that keeps nothing is left out. A budget above what the adapter
        stores gives all of it.

        Raises:
            AllocationError: the budget does not cover `min_rank`.
        """
        rank_L = np.array([site.values.size for site in self.sites.values()])
        values_LR = self.values_LR
        kept_LR = keep_most_important(
            values_LR,
            np.arange(values_LR.shape[1]) < rank_L[:, None],
            np.array([site.cost for site in self.sites.values()]),
            budget_params,
            min_rank,
        )
        return {
            name: site.components(kept_R[: site.values.size])
            for (name, site), kept_R in zip(self.sites.items(), kept_LR, strict=True)
            if kept_R.any()
        }
