"""The rank map of a profile: one rank everywhere, as far as each layer can use it."""

from collections.abc import Sequence

from rankwise.allocation import RankMap, Site
from rankwise.allocation.rank_map import Scaling
from rankwise.errors import AllocationError


def uniform_map(sites: Sequence[Site], rank: int) -> RankMap:
    """`rank` at every site; fewer where a site's inputs or outputs are fewer, because more components cannot help."""
    ranks = tuple(min(rank, site.in_features, site.out_features) for site in sites)
    return RankMap(
        sites=tuple(sites),
        ranks=ranks,
        scales=tuple(Scaling().at(of_site) for of_site in ranks),
        budget_params=sum(of_site * site.cost for of_site, site in zip(ranks, sites, strict=True)),
    )


def check_ranks(ranks: Sequence[int], sites: Sequence[Site], model: str) -> None:
    """Refuse what no layer can have.

    Raises:
        AllocationError: a rank is negative, or above the inputs and outputs of every layer.
    """
    most = max(min(site.in_features, site.out_features) for site in sites)
    for rank in ranks:
        if not 0 <= rank <= most:
            raise AllocationError(
                f"--rank {rank} is not possible on {model}: its widest layer has {most:,} components at most. Give "
                f"ranks from 0 (the base alone) to {most:,}."
            )
