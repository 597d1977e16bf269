"""Where the matrices of every site lie in one flat row per slot.

K = slots, P = adapter parameters of one slot with padding, R = largest rank of any slot at a site.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from rankwise.allocation.sites import Site


@dataclass(frozen=True)
class Place:
    """Where one site's matrices lie in a row."""

    site: Site
    rank: int
    offset: int

    @property
    def num_params(self) -> int:
        return self.rank * self.site.cost

    def slices(self) -> tuple[slice, slice]:
        """Where `down` and `up` lie in a row."""
        middle = self.offset + self.rank * self.site.in_features
        return slice(self.offset, middle), slice(middle, self.offset + self.num_params)

    def views(self, flat_KP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`down` (K, R, D) and `up` (K, F, R) as views of the flat rows."""
        down, up = self.slices()
        num_slots = flat_KP.shape[0]
        return (
            flat_KP[:, down].view(num_slots, self.rank, self.site.in_features),
            flat_KP[:, up].view(num_slots, self.site.out_features, self.rank),
        )


@dataclass(frozen=True)
class Layout:
    """All sites that any slot adapts, each as wide as the widest slot there."""

    places: tuple[Place, ...]

    @property
    def num_params(self) -> int:
        return sum(place.num_params for place in self.places)

    @classmethod
    def of(cls, ranks_of_slots: Iterable[Mapping[Site, int]]) -> "Layout":
        """Room for the given rank of each site in each slot."""
        widest: dict[Site, int] = {}
        for ranks in ranks_of_slots:
            for site, rank in ranks.items():
                widest[site] = max(rank, widest.get(site, 0))
        return cls(_in_line([Place(site, rank, 0) for site, rank in widest.items() if rank]))

    def widened(self, more: "Layout") -> "Layout":
        """The same sites, each with room for the components of `more` behind its own."""
        extra = {place.site.name: place.rank for place in more.places}
        return Layout(
            _in_line([replace(place, rank=place.rank + extra.get(place.site.name, 0)) for place in self.places])
        )

    def place(self, site: str) -> Place:
        """The place of a site that some slot adapts."""
        return self._by_name[site]

    @cached_property
    def _by_name(self) -> dict[str, Place]:
        return {place.site.name: place for place in self.places}


def _in_line(places: Sequence[Place]) -> tuple[Place, ...]:
    """The places one behind the other."""
    found, offset = [], 0
    for place in places:
        found.append(replace(place, offset=offset))
        offset += place.num_params
    return tuple(found)
