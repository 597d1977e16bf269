"""What every allocation strategy keeps. In a test of your own: `check_strategy(MyStrategy(first=2.0))`.

Each check raises AssertionError with the strategy's name and what it broke. L = sites in forward order.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import yaml
from pydantic import ValidationError

from rankwise.allocation.allocate import allocate, bounds_of
from rankwise.allocation.budget import resolve_budget
from rankwise.allocation.rank_map import Scaling
from rankwise.allocation.rank_view import RankView
from rankwise.allocation.sites import Signal, Site, SiteKind, SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.streams import stream
from rankwise.testing.simulated_run import SimulatedRun, distinct

_BLOCK: tuple[tuple[str, SiteKind, int, int], ...] = (
    ("self_attn.q_proj", "attention", 64, 64),
    ("self_attn.k_proj", "attention", 64, 32),
    ("self_attn.o_proj", "attention", 64, 64),
    ("mlp.up_proj", "mlp", 64, 172),
    ("mlp.down_proj", "mlp", 172, 64),
)

_COLUMNS = 32
"""Values that a spectrum has per site."""


def example_view(num_layers: int = 4, signal_of: Callable[[int], np.ndarray] | None = None) -> SiteView:
    """A small decoder's sites with every signal there is, and the budget of a uniform rank 8.

    Args:
        num_layers: blocks of five sites; 0 for a single site.
        signal_of: gives as many values of a signal as it is asked for; None: positive, all different, the same at each
            call. Of a spectrum each row is put in order, and an explained variance adds up to 1 at most.
    """
    sites = [
        Site(name=f"model.layers.{layer}.{name}", kind=kind, layer=layer, in_features=wide, out_features=high)
        for layer, (name, kind, wide, high) in product(range(max(1, num_layers)), _BLOCK)
    ][: None if num_layers else 1]
    make = signal_of or (lambda num: stream(0, "contract").lognormal(size=num))

    def values_of(signal: Signal) -> np.ndarray:
        if not signal.is_spectrum:
            return make(len(sites))
        rows = np.sort(make(len(sites) * _COLUMNS).reshape(len(sites), _COLUMNS))[:, ::-1]
        return rows / max(rows.sum(axis=1).max(), 1.0) if signal is Signal.ACTIVATION_VARIANCE else rows.copy()

    return SiteView(
        sites=tuple(sites),
        signals={signal: _frozen(values_of(signal)) for signal in Signal},
        budget_params=resolve_budget(sites, rank=8),
    )


def check_strategy(strategy: Strategy) -> None:
    """Runs every check on one configured strategy."""
    for check in STRATEGY_CHECKS:
        check(strategy)


def says_what_it_is(strategy: Strategy) -> None:
    """Its class and its file have a docstring of their own: the rule, and where it was published."""
    kind = type(strategy)
    _expect(bool(vars(kind).get("__doc__")), strategy, "its class has no docstring")
    _expect(bool(sys.modules[kind.__module__].__doc__), strategy, "its file has no docstring")


def gives_preferences(strategy: Strategy) -> None:
    """One finite, non-negative number per site, not all zero: for one site and for many, whatever the signals say."""
    signals = {"distinct": None, "zero": np.zeros, "equal": np.ones}
    for num_layers, (told, signal_of) in product((0, 1, 2, 48), signals.items()):
        view = example_view(num_layers, signal_of)
        ideal_L = np.asarray(strategy.ideal_ranks(view))
        place = f"with {len(view.sites)} sites and {told} signals"
        _expect(ideal_L.shape == (len(view.sites),), strategy, f"gave shape {ideal_L.shape} {place}")
        _expect(bool(np.isfinite(ideal_L).all()), strategy, f"gave a value that is not finite {place}")
        _expect(bool((ideal_L >= 0).all()), strategy, f"gave a negative value {place}")
        _expect(bool(ideal_L.any()), strategy, f"gave zero for all sites {place}")


def spends_the_budget_within_bounds(strategy: Strategy) -> None:
    """At any budget nothing more fits: the residual is below every component that a site could still take."""
    view = example_view()
    if strategy.mover() is not None:
        return  # starts above its budget on purpose; `ends_within_the_budget` looks at where it ends
    for rank, min_rank, max_rank in ((1, 1, None), (2, 0, 3), (8, 1, None), (8, 2, 12), (30, 1, None)):
        budget = resolve_budget(view.sites, rank=rank)
        rank_map = allocate(
            strategy, view, budget_params=budget, scaling=Scaling(), min_rank=min_rank, max_rank=max_rank
        )
        low_L, high_L = bounds_of(strategy, replace(view, budget_params=budget), min_rank, max_rank)
        for got, site, least, most in zip(rank_map.ranks, view.sites, low_L, high_L, strict=True):
            _expect(least <= got <= most, strategy, f"rank {got} at {site.name} is outside {least} to {most}")
            _expect(min_rank <= least <= most <= (max_rank or most), strategy, "widened the bounds of the budget")
        open_costs = [
            site.cost for got, site, most in zip(rank_map.ranks, view.sites, high_L, strict=True) if got < most
        ]
        _expect(
            0 <= rank_map.residual_params < min(open_costs, default=sys.maxsize),
            strategy,
            f"left {rank_map.residual_params} of {budget} parameters",
        )


def answers_the_same_each_time(strategy: Strategy) -> None:
    """The same view gives the same answer, from this object, from an equal one, and after other views."""
    twin = type(strategy).model_validate(strategy.model_dump(mode="json"))
    first_L = strategy.ideal_ranks(example_view())
    strategy.ideal_ranks(example_view(2))
    for other in (strategy, twin):
        _expect(np.array_equal(first_L, other.ideal_ranks(example_view())), strategy, "gave two answers to one view")


def leaves_its_view_untouched(strategy: Strategy) -> None:
    """Neither the view's arrays nor its sites change; the arrays are read-only here, so writing fails at once."""
    view = example_view()
    ideal_L = strategy.ideal_ranks(view)
    _expect(view.sites == example_view().sites, strategy, "changed the sites of its view")
    shares = any(np.shares_memory(ideal_L, values) for values in view.signals.values())
    _expect(not shares, strategy, "gave an array of its view away as its answer; give a new one")


def follows_a_reordering(strategy: Strategy) -> None:
    """A site's preference does not depend on its place in the list: draws belong to site names, not to turns."""
    view = example_view()
    order = stream(0, "reordering").permutation(len(view.sites))
    moved = SiteView(
        sites=tuple(view.sites[i] for i in order),
        signals={signal: _frozen(values[order]) for signal, values in view.signals.items()},
        budget_params=view.budget_params,
    )
    same = np.allclose(strategy.ideal_ranks(view)[order], strategy.ideal_ranks(moved), rtol=1e-12, atol=0)
    _expect(same, strategy, "gave a site another preference when the sites came in another order")


def asks_for_what_it_reads(strategy: Strategy) -> None:
    """The signals that it requires are enough for it."""
    view = example_view()
    required = {signal: values for signal, values in view.signals.items() if signal in strategy.required_signals()}
    try:
        ideal_L = strategy.ideal_ranks(replace(view, signals=required))
    except KeyError as error:
        raise AssertionError(f"{type(strategy).__name__} reads {error}, which `needs` does not name.") from error
    _expect(np.array_equal(ideal_L, strategy.ideal_ranks(view)), strategy, "reads signals that `needs` does not name")


def shows_what_it_goes_by(strategy: Strategy) -> None:
    """Where it has a signal to be shown, that is one finite number per site with a name, from what it needs."""
    for num_layers, signal_of in product((0, 4), (None, np.zeros)):
        view = example_view(num_layers, signal_of)
        needed = {signal: view.signals[signal] for signal in strategy.required_signals()}
        if not needed:
            return
        found = strategy.site_signal(replace(view, signals=needed))
        if found is None:
            continue
        shape, size = np.shape(found.values_L), len(view.sites)
        _expect(shape == (size,), strategy, f"shows a signal of shape {shape} for {size} sites")
        _expect(bool(np.isfinite(found.values_L).all()), strategy, "shows a signal that is not finite")
        _expect(bool(found.name), strategy, "shows a signal without a name")


def round_trips_through_text(strategy: Strategy) -> None:
    """Its settings survive JSON and YAML, so a stored study builds the same strategy again."""
    settings = strategy.model_dump(mode="json")
    for text, load in ((json.dumps(settings), json.loads), (yaml.safe_dump(settings), yaml.safe_load)):
        again = type(strategy).model_validate(load(text))
        _expect(again == strategy, strategy, f"became {again!r} after a round trip through {text!r}")


def refuses_unknown_settings(strategy: Strategy) -> None:
    """A misspelt setting is an error, never ignored."""
    settings = {**strategy.model_dump(mode="json"), "no_such_setting": 1}
    try:
        type(strategy).model_validate(settings)
    except ValidationError:
        return
    raise AssertionError(f"{type(strategy).__name__} accepted the setting no_such_setting; keep extra='forbid'.")


def cannot_be_changed(strategy: Strategy) -> None:
    """It is frozen, so it can be part of a run's identity."""
    _expect(type(strategy).model_config.get("frozen") is True, strategy, "is not frozen")


def ends_within_the_budget(strategy: Strategy) -> None:
    """A dynamic strategy spends the budget at the end of its schedule, whatever the importances say, and keeps to the
    places that there are on the way."""
    mover = strategy.mover()
    if mover is None:
        return
    importances = (distinct, lambda step, shape: np.zeros(shape), lambda step, shape: np.ones(shape))
    bounds = ((1, 1, None), (4, 0, None), (4, 2, 6))
    for num_layers, told, (rank, min_rank, max_rank) in product((0, 2, 12), importances, bounds):
        view = example_view(num_layers)
        run = SimulatedRun(view=view, rank=rank, min_rank=min_rank, max_rank=max_rank, importances=told)
        place = f"with {len(view.sites)} sites at rank {rank}"
        limit_L, active_LR = run.limits_L(strategy), None
        for seen, active_LR in run.revisions(strategy, mover):
            _expect(active_LR.shape == seen.active_LR.shape, strategy, f"gave shape {active_LR.shape} {place}")
            _expect(active_LR.dtype == bool, strategy, f"gave {active_LR.dtype} instead of bool {place}")
            _expect(not (active_LR & ~seen.exists_LR).any(), strategy, f"used places that do not exist {place}")
            _expect(bool((active_LR.sum(axis=1) >= min_rank).all()), strategy, f"went below min_rank {place}")
        _expect(active_LR is not None, strategy, f"had no step at which ranks could move {place}")
        assert active_LR is not None
        rank_L = active_LR.sum(axis=1)
        _expect(bool((rank_L <= limit_L).all()), strategy, f"ended above max_rank {place}")
        residual = run.budget_params - int(rank_L @ view.costs_L)
        open_costs = view.costs_L[rank_L < limit_L]
        _expect(0 <= residual < min(open_costs, default=sys.maxsize), strategy, f"ended {residual} off {place}")


def revises_the_same_each_time(strategy: Strategy) -> None:
    """The same view gives the same revision, and the arrays of the view (read-only here) are left alone."""
    mover, twin = strategy.mover(), type(strategy).model_validate(strategy.model_dump(mode="json")).mover()
    if mover is None or twin is None:
        return
    for view, _ in SimulatedRun(view=example_view()).revisions(strategy, mover):
        first, again = mover.revise(view), twin.revise(view)
        _expect(
            np.array_equal(_or_active(first, view), _or_active(again, view)),
            strategy,
            f"gave two revisions to one view at step {view.step}",
        )


def _or_active(answer_LR: np.ndarray | None, view: RankView) -> np.ndarray:
    return view.active_LR if answer_LR is None else answer_LR


STRATEGY_CHECKS: Sequence[Callable[[Strategy], None]] = (
    says_what_it_is,
    gives_preferences,
    spends_the_budget_within_bounds,
    answers_the_same_each_time,
    leaves_its_view_untouched,
    follows_a_reordering,
    asks_for_what_it_reads,
    shows_what_it_goes_by,
    ends_within_the_budget,
    revises_the_same_each_time,
    round_trips_through_text,
    refuses_unknown_settings,
    cannot_be_changed,
)
"""Every check, for a test that reports each by itself."""


def _frozen(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


def _expect(kept: bool, strategy: Strategy, broken: str) -> None:
    if not kept:
        raise AssertionError(f"{type(strategy).__name__}: {broken}.")
