"""A strategy and a budget make a rank map."""

import math
from dataclasses import replace

import numpy as np

from rankwise.allocation.budget import fit
from rankwise.allocation.rank_map import RankMap, Scaling
from rankwise.allocation.sites import SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.errors import AllocationError


def allocate(
    strategy: Strategy,
    view: SiteView,
    *,
    budget_params: int,
    scaling: Scaling,
    min_rank: int = 1,
    max_rank: int | None = None,
) -> RankMap:
    """Asks `strategy` for its preferences and spends the budget on them.

    Of a dynamic strategy this is where the run starts: within its multiple of the budget, with the places that it may
    grow into.

    Args:
        strategy: the rule.
        view: the sites, and the signals that `strategy.required_signals()` names.
        budget_params: stored adapter parameters; the strategy sees them in its view.
        scaling: how the scale of a site follows from its rank.
        min_rank: no site gets fewer components.
        max_rank: no site gets more; None: up to the layer's own rank, which holds in any case.

    Raises:
        AllocationError: a signal is missing or not finite, the strategy's answer breaks its contract, or the budget
            does not cover `min_rank` at every site.
    """
    view = replace(view, budget_params=budget_params)
    _check_signals(strategy, view)
    ideal_L = _checked_answer(strategy, view)
    low_L, high_L = bounds_of(strategy, view, min_rank, max_rank)
    mover = strategy.mover()
    spent = budget_params if mover is None else int(budget_params * mover.mechanics().start_factor)
    ranks = tuple(int(rank) for rank in fit(ideal_L, view.costs_L, spent, low_L, high_L))
    scales = tuple(scaling.at(rank) for rank in ranks)
    places = None
    if mover is not None:
        room = mover.mechanics().room_factor
        places = tuple(min(int(high), math.ceil(rank * room)) for rank, high in zip(ranks, high_L, strict=True))
    return RankMap(sites=tuple(view.sites), ranks=ranks, scales=scales, budget_params=budget_params, places=places)


def bounds_of(strategy: Strategy, view: SiteView, min_rank: int, max_rank: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest rank of each site, int64 (L,): the budget's bounds, and within them the strategy's own.

    A bound of the strategy that would keep the budget from being spent (where layers are narrow, or a budget of few
    parameters is rounded) does not count.

    Raises:
        AllocationError: a layer cannot hold `min_rank` components.
    """
    high_L = np.array([min(site.max_rank, max_rank or site.max_rank) for site in view.sites])
    narrow = next((site for site, high in zip(view.sites, high_L, strict=True) if high < min_rank), None)
    if narrow is not None:
        raise AllocationError(
            f"budget: min_rank {min_rank} is above the largest rank allowed at {narrow.name} ({narrow.in_features} x "
            f"{narrow.out_features}, max_rank {max_rank}). Lower min_rank, raise max_rank, or leave that layer out."
        )
    low_L = np.full_like(high_L, min_rank)
    least, most = strategy.rank_bounds(view)
    if most is not None:
        capped_L = np.minimum(high_L, max(most, min_rank))
        high_L = capped_L if capped_L @ view.costs_L >= view.budget else high_L
    raised_L = np.clip(least, low_L, high_L)
    return (raised_L if raised_L @ view.costs_L <= view.budget else low_L), high_L


def _check_signals(strategy: Strategy, view: SiteView) -> None:
    if not view.sites:
        raise AllocationError("There is no site to allocate ranks to. Choose targets that match linear layers.")
    for signal in sorted(strategy.required_signals()):
        name = type(strategy).__name__
        if signal not in view.signals:
            raise AllocationError(f"{name} needs the signal {signal}, which was not measured. Probe the model first.")
        values = np.asarray(view.signals[signal])
        if values.shape[:1] != (len(view.sites),):
            raise AllocationError(f"{name}: signal {signal} has shape {values.shape} for {len(view.sites)} sites.")
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(view.sites), -1)).all(axis=1))
        if bad.size:
            raise AllocationError(
                f"{name}: signal {signal} is not finite at {view.sites[bad[0]].name} and {bad.size - 1} more sites. "
                "The probe overflowed; use dtype float32 or bfloat16, or look for broken examples."
            )


def _checked_answer(strategy: Strategy, view: SiteView) -> np.ndarray:
    """Preferences (L,) that are finite, non-negative and not all zero."""
    ideal_L, name = np.asarray(strategy.ideal_ranks(view)), type(strategy).__name__
    wanted = (len(view.sites),)
    if ideal_L.shape != wanted or not np.issubdtype(ideal_L.dtype, np.number) or np.iscomplexobj(ideal_L):
        raise AllocationError(
            f"{name}.ideal_ranks gave {ideal_L.dtype} of shape {ideal_L.shape}; it must give real numbers of shape "
            f"{wanted}, one per site."
        )
    bad = np.flatnonzero(~np.isfinite(ideal_L) | (ideal_L < 0))
    if bad.size:
        raise AllocationError(
            f"{name}.ideal_ranks gave {ideal_L[bad[0]]} for {view.sites[bad[0]].name}; preferences are finite and not "
            "negative."
        )
    if not ideal_L.any():
        raise AllocationError(f"{name}.ideal_ranks gave zero for every site; at least one preference must be positive.")
    return ideal_L
