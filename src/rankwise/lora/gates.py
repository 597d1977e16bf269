"""A trained factor per component, ΔW = scale · up · diag(gate) · down, for slots whose ranks move while training.

K = slots, R = places for components of a site, C = places of all sites together.

Gates live outside the packed layer: the compute tensors hold gate ⊙ down, and the gradient with respect to that product
splits into those of its factors. So a packed layer costs the same with gates and without, and slots without gates are
multiplied by exactly one.
"""

import numpy as np
import torch

from rankwise.allocation.sites import Site
from rankwise.lora.layout import Layout
from rankwise.streams import stream

TRIPLET_STD = 0.02
"""Of the entries of `down` and `up` where gates start at 0; PEFT's AdaLoRA."""


class Gates:
    """Gates of all slots of a pack, and their gradients; 1 throughout for slots that have none."""

    def __init__(self, num_slots: int, layout: Layout, device: torch.device) -> None:
        self._slices = {}
        first = 0
        for place in layout.places:
            self._slices[place.site.name] = slice(first, first + place.rank)
            first += place.rank
        self.values_KC = torch.ones(num_slots, first, device=device)
        self.grads_KC = torch.zeros_like(self.values_KC)

    def at(self, site: str) -> slice:
        """Where the places of a site lie in a row."""
        return self._slices[site]

    def apply(self, site: str, down_KRD: torch.Tensor) -> torch.Tensor:
        """gate ⊙ down, which the packed layer multiplies with."""
        return down_KRD * self.values_KC[:, self.at(site), None]

    def pull(self, site: str, down_KRD: torch.Tensor, grad_KRD: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to `down`, given that with respect to gate ⊙ down; keeps the gates' own."""
        self.grads_KC[:, self.at(site)] = (grad_KRD * down_KRD).sum(dim=2)
        return grad_KRD * self.values_KC[:, self.at(site), None]


def initial_triplets(site: Site, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`down` (rank, in) and `up` (out, rank) in float32 for components that start with gate 0.

    Normal draws (Zhang et al., arXiv:2303.10512, section 3.1). Row j is the j-th draw of the site's stream, so two arms
    of one seed share every component that they both have.
    """
    down = stream(seed, "init", site.name).standard_normal((rank, site.in_features))
    up = stream(seed, "init up", site.name).standard_normal((rank, site.out_features))
    return (TRIPLET_STD * down).astype(np.float32), (TRIPLET_STD * up.T).astype(np.float32)


def new_triplet(
    down_RD: torch.Tensor, up_FR: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """`down` (in,) and `up` (out,) of one more component: random, of length one, orthogonal to those that are there.

    ElaLoRA's code (Chang et al., arXiv:2504.00254) subtracts the projection as if the others were orthonormal;
    here it is the true one.
    """
    return _orthogonal_to(down_RD, rng), _orthogonal_to(up_FR.T, rng)


def _orthogonal_to(rows_RD: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    drawn_D = torch.from_numpy(rng.standard_normal(rows_RD.shape[1]).astype(np.float32)).to(rows_RD.device)
    basis_DR, _ = torch.linalg.qr(rows_RD.T)
    rest_D = drawn_D - basis_DR @ (basis_DR.T @ drawn_D)
    return rest_D / rest_D.norm().clamp_min(1e-6)
