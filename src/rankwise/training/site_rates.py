"""What a run's learning rate is multiplied with at each site: a pure function of its settings and its rank map."""

from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.allocation import RankMap, Site
from rankwise.study.config import LrFactors, TrainSettings


@dataclass(frozen=True)
class SiteRates:
    """Factors of one site's two matrices."""

    down: float = 1.0
    up: float = 1.0


def site_rates(train: TrainSettings, rank_map: RankMap) -> Mapping[str, SiteRates]:
    """Per site name, for the sites that have components.

    `lora_plus_ratio` (Hayou et al., arXiv:2402.12354) multiplies every `up`; `lr_factors` multiply both matrices of a
    site by its depth, its kind and its rank.
    """
    factor_of = _layer_wise(train.lr_factors, rank_map)
    return {name: SiteRates(factor, factor * train.lora_plus_ratio) for name, factor in factor_of.items()}


def _layer_wise(factors: LrFactors | None, rank_map: RankMap) -> dict[str, float]:
    adapted = [(site, rank) for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True) if rank]
    if factors is None:
        return {site.name: 1.0 for site, _ in adapted}
    layers = [site.layer for site in rank_map.sites]
    first, span = min(layers), max(1, max(layers) - min(layers))
    mean_rank = sum(rank for _, rank in adapted) / len(adapted)

    def factor(site: Site, rank: int) -> float:
        depth = (site.layer - first) / span
        by_depth = factors.first + (factors.last - factors.first) * depth
        by_kind = {"attention": factors.attention, "mlp": factors.mlp}.get(site.kind, 1.0)
        return float(by_depth * by_kind * (rank / mean_rank) ** factors.rank_power)

    return {site.name: factor(site, rank) for site, rank in adapted}
