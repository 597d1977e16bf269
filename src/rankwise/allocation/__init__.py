"""Where a parameter budget goes: sites, strategies, the exact budget solver and rank maps. numpy and pydantic only."""

from rankwise.allocation.allocate import allocate
from rankwise.allocation.budget import fit, resolve_budget
from rankwise.allocation.peft_patterns import check_patterns
from rankwise.allocation.rank_map import RankMap, Scaling
from rankwise.allocation.sites import Signal, Site, SiteKind, SiteView
from rankwise.allocation.strategies import STRATEGIES, build_strategy
from rankwise.allocation.strategies.base import Strategy

__all__ = [
    "STRATEGIES",
    "RankMap",
    "Scaling",
    "Signal",
    "Site",
    "SiteKind",
    "SiteView",
    "Strategy",
    "allocate",
    "build_strategy",
    "check_patterns",
    "fit",
    "resolve_budget",
]
