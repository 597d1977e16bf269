"""What every initialisation is: a pure function from one site and what was measured there to its first matrices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch

from rankwise.allocation.rank_map import RankMap
from rankwise.allocation.sites import Site

Measured = Literal["nothing", "weights", "activations", "gradients"]
Matrices: TypeAlias = tuple[np.ndarray, np.ndarray]
"""`down` (rank, in) and `up` (out, rank), float32."""


@dataclass(frozen=True, kw_only=True)
class SiteStart:
    """All that an initialisation may look at."""

    site: Site
    rank: int
    """Above zero."""
    scale: float
    """What `up · down` is multiplied with in the layer's output."""
    seed: int
    measured: torch.Tensor | None = None
    """Float32; of `weights` the frozen weight (out, in), of `gradients` its mean gradient (out, in), of `activations`
    the right singular vectors of the inputs (at least rank, in), largest singular value first."""


@dataclass(frozen=True, kw_only=True)
class InitRule:
    """One value of the setting `init`."""

    matrices: Callable[[SiteStart], Matrices]
    needs: Measured = "nothing"
    """What must be measured at every site first."""
    subtracted: bool = False
    """See `InitialAdapter.subtracted`."""
    starts_at_base: bool = True
    """Whether the model is the bare base before the first step."""


@dataclass(frozen=True, kw_only=True)
class InitialAdapter:
    """Matrices that a slot starts from, where they are not drawn from its seed alone."""

    tensors: Mapping[str, Matrices]
    """Per site name, for the sites that have components."""
    subtracted: bool
    """Whether the initial product is taken off the layer's output for good, by frozen copies of it, so that the first
    forward pass is the base model's although `up` is not zero: PiSSA, OLoRA, LoRA-GA."""
    starts_at_base: bool = True
    """Whether the first forward pass is the base model's."""


def initial_adapter(
    rule: InitRule, rank_map: RankMap, seed: int, measured: Mapping[str, torch.Tensor]
) -> InitialAdapter:
    """The first matrices of all sites of `rank_map`.

    Raises:
        AllocationError: the rule cannot fill as many components as a site was given.
    """
    tensors = {
        site.name: rule.matrices(
            SiteStart(site=site, rank=rank, scale=scale, seed=seed, measured=measured.get(site.name))
        )
        for site, rank, scale in zip(rank_map.sites, rank_map.ranks, rank_map.scales, strict=True)
        if rank
    }
    return InitialAdapter(tensors=tensors, subtracted=rule.subtracted, starts_at_base=rule.starts_at_base)
