"""A rank map: how many components each site has, and how each site's product is scaled."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from rankwise.allocation.peft_patterns import layer_patterns
from rankwise.allocation.sites import Site
from rankwise.errors import AllocationError

if TYPE_CHECKING:
    from peft import LoraConfig


class Scaling(BaseModel, frozen=True, extra="forbid"):
    """How strongly a site's low-rank product is added to the base layer's output."""

    rule: Literal["alpha_over_r", "rslora", "constant"] = "alpha_over_r"
    """`alpha_over_r`: alpha / rank of the site (Hu et al., arXiv:2106.09685); `rslora`: alpha / sqrt(rank)
    (Kalajdzievski, arXiv:2312.03732); `constant`: `scale` at every site whatever its rank."""
    alpha: float = Field(16.0, gt=0)
    """Numerator of the first two rules."""
    scale: float = Field(2.0, gt=0)
    """The factor of `constant`."""

    def at(self, rank: int) -> float:
        """The factor of a site of this rank; 0 for a site without components."""
        if rank == 0:
            return 0.0
        match self.rule:
            case "alpha_over_r":
                return self.alpha / rank
            case "rslora":
                return self.alpha / math.sqrt(rank)
            case "constant":
                return self.scale


@dataclass(frozen=True, kw_only=True)
class RankMap:
    """Ranks and scales of all sites, in forward order."""

    sites: tuple[Site, ...]
    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    budget_params: int
    """What was allowed; `params` is what is used."""
    places: tuple[int, ...] | None = None
    """Of a dynamic strategy, the components that each site may hold while training; `ranks` are those that it starts
    with. None: the ranks stay."""

    def __post_init__(self) -> None:
        assert len(self.sites) == len(self.ranks) == len(self.scales)
        assert len({site.name for site in self.sites}) == len(self.sites)

    @property
    def params(self) -> int:
        """Stored adapter parameters: sum of rank x (in + out)."""
        return sum(rank * site.cost for site, rank in zip(self.sites, self.ranks, strict=True))

    def scale_of(self, name: str) -> float:
        """The scale of one site; 0 where the map does not have it."""
        return next((c for s, c in zip(self.sites, self.scales, strict=True) if s.name == name), 0.0)

    @property
    def held_ranks(self) -> tuple[int, ...]:
        """Components that memory is held for at each site."""
        return self.places or self.ranks

    @property
    def held_params(self) -> int:
        """Adapter parameters that memory is held for while training."""
        return sum(rank * site.cost for site, rank in zip(self.sites, self.held_ranks, strict=True))

    def with_ranks(self, ranks: Mapping[str, int]) -> "RankMap":
        """The same sites at the same scales with other ranks; 0 where `ranks` does not name a site.

        What a run stores may differ from what it was allocated: a subtracted initial product doubles each rank, and a
        dynamic strategy moves them.
        """
        return replace(self, ranks=tuple(ranks.get(site.name, 0) for site in self.sites), places=None)

    @property
    def residual_params(self) -> int:
        """Budget left unspent; negative only where a dynamic strategy starts above it."""
        return self.budget_params - self.params

    def grid(self) -> tuple[list[str], list[int], np.ndarray]:
        """The ranks as a table, for heat maps.

        Returns:
            Labels of the rows in forward order: the site's leaf name, with as much of its path as tells it from its
            neighbours (`q_proj`, but `attn.c_proj` and `mlp.c_proj`); the layers, ascending, for the columns; the ranks
            (num_labels, num_layers), float64, NaN where a layer has no such site.
        """
        label_of = _short_labels(self.sites)
        labels = list(dict.fromkeys(label_of[site.name] for site in self.sites))
        layers = sorted({site.layer for site in self.sites})
        ranks = np.full((len(labels), len(layers)), np.nan)
        for site, rank in zip(self.sites, self.ranks, strict=True):
            ranks[labels.index(label_of[site.name]), layers.index(site.layer)] = rank
        return labels, layers, ranks

    def to_peft(self) -> "LoraConfig":
        """The same allocation as a `peft.LoraConfig`.

        One escaped, `^`-anchored, full module name per site in `rank_pattern` and `alpha_pattern`, because PEFT takes
        the first pattern whose end matches and applies nothing, silently, where none does (huggingface/peft#3582).
        Sites of rank 0 are left out of `target_modules`: PEFT cannot express them.
        """
        from peft import LoraConfig

        return LoraConfig(**self.to_peft_dict())

    def to_peft_dict(self) -> dict[str, Any]:
        """The arguments of `to_peft`, without importing peft (and so torch).

        Raises:
            AllocationError: every site has rank 0.
        """
        active = [(s, r, c) for s, r, c in zip(self.sites, self.ranks, self.scales, strict=True) if r > 0]
        if not active:
            raise AllocationError("A rank map without any component cannot become a PEFT configuration.")
        return {
            "task_type": "CAUSAL_LM",
            "r": max(rank for _, rank, _ in active),
            "lora_alpha": max(rank * scale for _, rank, scale in active),
            "target_modules": [site.name for site, _, _ in active],
            "rank_pattern": layer_patterns({site.name: rank for site, rank, _ in active}),
            "alpha_pattern": layer_patterns({site.name: scale * rank for site, rank, scale in active}),
            "lora_dropout": 0.0,
            "bias": "none",
        }


def _short_labels(sites: Sequence[Site]) -> dict[str, str]:
    """Per site the shortest ending of its name that no other site of any layer needs to be told apart by."""
    length_of_leaf = dict.fromkeys((site.leaf for site in sites), 0)
    labels: dict[str, str] = {}
    crowded = set(length_of_leaf)
    while crowded:
        for leaf in crowded:
            length_of_leaf[leaf] += 1
        labels = {site.name: ".".join(site.name.split(".")[-length_of_leaf[site.leaf] :]) for site in sites}
        count = Counter((site.layer, labels[site.name]) for site in sites)
        crowded = {site.leaf for site in sites if count[site.layer, labels[site.name]] > 1}
    return labels
