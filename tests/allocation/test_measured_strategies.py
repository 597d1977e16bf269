"""Rules that read a signal, against their published formulas worked out by hand or by brute force."""

from dataclasses import replace

import numpy as np
import pytest

from rankwise.allocation import Scaling, Signal, Site, SiteView, allocate, build_strategy
from rankwise.allocation.strategies.eva import rank_sum
from rankwise.allocation.strategies.spectrum import effective_rank, stable_rank
from rankwise.errors import AllocationError
from rankwise.testing import example_view

VIEW = example_view(6)
COST_L = VIEW.costs_L
MEASURED = ("eva", "gora", "fisher", "weight_spectrum", "early_gradient_spectrum")
CAPPED = {"eva": 2.0, "gora": 4.0, "fisher": 2.0, "early_gradient_spectrum": 4.0}


def view_of(signal: Signal, values: object, *, costs: object = None, rank: int = 8) -> SiteView:
    """Sites of the given parameters per component (all 64 wide inside), with one signal and a uniform rank's budget."""
    values = np.asarray(values, dtype=np.float64)
    sites = [
        Site(name=f"site{i}", kind="mlp", layer=i, in_features=64, out_features=int(cost) - 64)
        for i, cost in enumerate(np.broadcast_to(128 if costs is None else costs, len(values)))
    ]
    budget = rank * sum(site.cost for site in sites)
    return SiteView(sites=tuple(sites), signals={signal: values}, budget_params=budget)


def ranks(name: str, view: SiteView, *, min_rank: int = 1, **settings: object) -> list[int]:
    assert view.budget_params is not None
    strategy = build_strategy(name, settings)
    return list(allocate(strategy, view, budget_params=view.budget_params, scaling=Scaling(), min_rank=min_rank).ranks)


def ideal(name: str, view: SiteView, **settings: object) -> np.ndarray:
    return build_strategy(name, settings).ideal_ranks(view)


@pytest.mark.parametrize("name", MEASURED)
def test_what_says_nothing_is_uniform(name):
    (signal,) = build_strategy(name, {}).required_signals()
    silent = replace(VIEW, signals={signal: np.zeros_like(VIEW.signals[signal])})
    assert set(ranks(name, silent)) == {8}


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("level", [1e-150, 1e150])
def test_the_scale_of_a_signal_does_not_matter(name, level):
    (signal,) = build_strategy(name, {}).required_signals()
    scaled = replace(VIEW, signals={signal: VIEW.signals[signal] * level})
    assert ranks(name, scaled) == ranks(name, VIEW)


@pytest.mark.parametrize("name", CAPPED)
def test_bounds_are_kept_while_the_budget_is_spent(name):
    (signal,) = build_strategy(name, {}).required_signals()
    rng = np.random.default_rng(0)
    steep = np.sort(rng.lognormal(sigma=3, size=VIEW.signals[signal].shape))[..., ::-1].copy()
    steep = rng.permuted(steep, axis=0) if steep.ndim == 1 else steep / steep.sum(axis=1, keepdims=True)
    view = replace(VIEW, signals={signal: steep})
    for control in (name, "shuffled", "inverted"):
        found = np.array(ranks(control, view, **({} if control == name else {"of": name})))
        assert found.max() <= CAPPED[name] * 8
        assert found.min() >= (4 if name == "gora" else 1)
        assert 0 <= view.budget_params - found @ COST_L < COST_L[found < CAPPED[name] * 8].min()


@pytest.mark.parametrize("name", CAPPED)
def test_a_bound_that_would_leave_budget_unspent_gives_way(name):
    # Half of the sites cannot hold the mean rank, so the others must hold more than the cap of 1 allows.
    cap = {"rho": 1} if name == "eva" else {"most": 1}
    sites = tuple(replace(site, out_features=4 if i % 2 else 64) for i, site in enumerate(VIEW.sites))
    view = replace(VIEW, sites=sites, budget_params=8 * sum(site.cost for site in sites))
    found = np.array(ranks(name, view, **cap))
    assert found.max() > 8
    assert view.budget_params - found @ view.costs_L < view.costs_L.max()


@pytest.mark.parametrize("name", ["eva", "early_gradient_spectrum"])
def test_a_view_without_a_budget_is_refused(name):
    with pytest.raises(AllocationError, match="budget_params"):
        ideal(name, replace(VIEW, budget_params=None))


def test_the_mean_rank_is_the_uniform_rank_that_the_budget_buys():
    assert VIEW.mean_rank == 8
    assert replace(VIEW, budget_params=VIEW.budget_params // 2).mean_rank == 4


RATIOS = [[0.5, 0.3, 0.1, 0.05], [0.4, 0.25, 0.2, 0.0], [0.9, 0.01, 0.0, 0.0]]


def test_eva_takes_the_largest_ratios_of_all_sites():
    # Sorted: .9 .5 .4 .3 .25 .2 | .1 .05 .01; six components at one cost and a mean rank of 2.
    view = view_of(Signal.ACTIVATION_VARIANCE, RATIOS, rank=2)
    assert ranks("eva", view) == rank_sum(np.array(RATIOS), 2).tolist() == [2, 3, 1]
    assert rank_sum(np.array(RATIOS), 2, rho=1.0).tolist() == [2, 2, 2]
    assert ranks("eva", view, rho=1.0) == [2, 2, 2]


def test_eva_counts_parameters_where_the_paper_counts_components():
    # The second site costs three times as much: 1,280 parameters buy .9 .5 .4 .3 .25, and 128 are left.
    view = view_of(Signal.ACTIVATION_VARIANCE, RATIOS, costs=(128, 384, 128), rank=2)
    found = ranks("eva", view)
    assert found[1] == 2
    assert found @ view.costs_L == view.budget_params == 1280
    assert rank_sum(np.array(RATIOS), 2) @ view.costs_L == 1536


def test_eva_takes_components_in_order_until_the_parameters_are_spent():
    ratios_LK = VIEW.signals[Signal.ACTIVATION_VARIANCE]
    order = sorted((-ratios_LK[i, k], i) for i in range(len(COST_L)) for k in range(16))
    counts, left = np.zeros(len(COST_L)), VIEW.budget_params
    for _, site in order:
        if COST_L[site] > left:
            break
        left -= COST_L[site]
        counts[site] += 1
    # Where the next does not fit, a few cheaper ones of other sites may.
    wanted_L = ideal("eva", VIEW)
    assert (wanted_L >= counts).all()
    assert (wanted_L - counts) @ COST_L <= left < COST_L.max()
    assert np.abs(np.array(ranks("eva", VIEW)) - counts).max() <= 1


def test_eva_serves_sites_alike_that_read_the_same_input():
    ratios_LK = np.repeat(VIEW.signals[Signal.ACTIVATION_VARIANCE][:5], 3, axis=0)
    for rank in (2, 5, 8):
        wanted_L = ideal("eva", view_of(Signal.ACTIVATION_VARIANCE, ratios_LK, rank=rank)).reshape(5, 3)
        assert (wanted_L == wanted_L[:, :1]).all()


def test_gora_is_the_papers_formula_where_nothing_is_clipped():
    importance_L = np.random.default_rng(1).uniform(0.8, 1.2, len(COST_L))
    wanted_L = ideal("gora", replace(VIEW, signals={Signal.GRADIENT_SENSITIVITY: importance_L}))
    root_L = np.sqrt(COST_L)
    paper_L = 8 * root_L.sum() * (importance_L / importance_L.sum()) / root_L
    np.testing.assert_allclose(wanted_L / wanted_L.sum(), paper_L / paper_L.sum(), rtol=1e-12)


def test_gora_clips_at_4_and_32_for_a_mean_of_8():
    importance = np.ones(12)
    importance[[2, 5]] = 1e6, 1e-6
    found = ranks("gora", view_of(Signal.GRADIENT_SENSITIVITY, importance))
    assert (max(found), found[2], min(found), found[5]) == (32, 32, 4, 4)
    assert sum(found) == 96
    found = ranks("gora", view_of(Signal.GRADIENT_SENSITIVITY, importance), least=0.25, most=2)
    assert (found[2], found[5]) == (16, 2)


def test_fisher_is_proportional_up_to_twice_the_mean():
    assert ranks("fisher", view_of(Signal.FISHER, [1, 2, 3])) == [4, 8, 12]
    assert ranks("fisher", view_of(Signal.FISHER, [1, 1, 100])) == [4, 4, 16]
    assert ranks("fisher", view_of(Signal.FISHER, [1, 1, 100]), most=1) == [8, 8, 8]


def test_spectra_are_summed_up_as_their_papers_say():
    flat, single = np.ones((1, 5)) * 0.3, np.array([[7.0, 0, 0, 0, 0]])
    for measure in (stable_rank, lambda v: effective_rank(v, power=1), lambda v: effective_rank(v, power=2)):
        assert measure(flat) == pytest.approx(5)
        assert measure(single) == pytest.approx(1)
    two = np.array([[2.0, 1.0]])
    assert stable_rank(two) == pytest.approx(1.25)
    assert effective_rank(two, power=1) == pytest.approx(3 / 2 ** (2 / 3))  # exp(H(2/3, 1/3))
    assert effective_rank(two, power=2) == pytest.approx(5 / 4 ** (4 / 5))  # exp(H(4/5, 1/5))
    assert effective_rank(np.zeros((1, 3)), power=1) == 0


def test_weight_spectrum_follows_the_chosen_measure():
    values = np.array([[1.0, 1, 1, 1], [1, 0.5, 0.5, 0.5], [1, 0, 0, 0]])
    view = view_of(Signal.WEIGHT_SPECTRUM, values)
    np.testing.assert_allclose(4 * ideal("weight_spectrum", view), [4, 1.75, 1])
    expected = effective_rank(values, power=1)
    np.testing.assert_allclose(4 * ideal("weight_spectrum", view, measure="effective_rank"), expected)


def knapsack(worth_L: np.ndarray, cost_L: np.ndarray, budget: int, most: int) -> tuple[list[int], float]:
    """The published allocator: the largest sum of worth / sqrt(k) over all components at exactly this cost."""
    gain = np.concatenate([[0.0], np.cumsum(1 / np.sqrt(np.arange(1, most + 1)))])
    states: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for worth, cost in zip(worth_L, cost_L, strict=True):
        grown: dict[int, tuple[float, list[int]]] = {}
        for spent, (value, chosen) in states.items():
            for rank in range(1, most + 1):
                total, better = spent + int(cost) * rank, value + worth * gain[rank]
                if total <= budget and better > grown.get(total, (-1.0, []))[0]:
                    grown[total] = (better, [*chosen, rank])
        states = grown
    best, chosen = states[budget]
    return chosen, best


@pytest.mark.parametrize("seed", range(12))
def test_early_gradient_spectrum_is_close_to_the_published_knapsack(seed):
    rng = np.random.default_rng(seed)
    decay = rng.uniform(0.6, 0.98, size=8)
    values = decay[:, None] ** np.arange(64)
    costs = rng.choice([128, 192, 256], size=8)
    view = view_of(Signal.GRADIENT_SPECTRUM, values, costs=costs, rank=4)
    found = ranks("early_gradient_spectrum", view)
    worth_L = effective_rank(values, power=2)
    wanted, best = knapsack(worth_L, costs, int(view.budget_params or 0), most=16)
    reached = sum(worth * (1 / np.sqrt(np.arange(1, r + 1))).sum() for worth, r in zip(worth_L, found, strict=True))
    assert np.abs(np.array(found) - wanted).max() <= 1, (found, wanted)
    # Where the order leaves parameters that no component fits, ranks move by one to spend them: up to 2 % of the worth.
    exact = ideal("early_gradient_spectrum", view) @ costs == view.budget_params
    assert reached >= best * (0.999 if exact else 0.98)


def test_a_bound_beyond_all_layers_is_that_of_the_widest():
    assert ranks("early_gradient_spectrum", VIEW, most=1e12) == ranks("early_gradient_spectrum", VIEW, most=8.0)
