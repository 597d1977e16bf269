"""The budget solver against brute force, against scipy, and by its promised properties."""

import time
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from rankwise.allocation.budget import fit, resolve_budget, scale_to_budget
from rankwise.allocation.rounding import UNIT, near_allowance
from rankwise.allocation.sites import Site
from rankwise.errors import AllocationError

PHI_2 = np.tile([5120, 5120, 5120, 5120, 12800, 12800], 32)
LLAMA = np.tile([4096, 2304, 2304, 4096, 7680, 7680, 7680], 32)
COPRIME = np.tile([1021, 517, 519, 1023, 2579, 2581, 2591], 32)
preference = st.one_of(st.just(0.0), st.integers(1, 4).map(float), st.floats(1e-3, 1e3))


@st.composite
def instances(draw, max_sites: int, max_rank: int, max_cost: int):
    """(ideal, cost, budget, low, high) that `fit` accepts."""
    num = draw(st.integers(1, max_sites))
    ideal_L = draw(st.lists(preference, min_size=num, max_size=num).filter(any))
    cost_L = np.array(draw(st.lists(st.integers(1, max_cost), min_size=num, max_size=num)))
    low_L = np.array(draw(st.lists(st.integers(0, 2), min_size=num, max_size=num)))
    high_L = low_L + np.array(draw(st.lists(st.integers(0, max_rank - 2), min_size=num, max_size=num)))
    budget = draw(st.integers(int(low_L @ cost_L), int(high_L @ cost_L) + max_cost))
    return np.array(ideal_L), cost_L, budget, low_L, high_L


def exhaustive(ideal_L, cost_L, budget, low_L, high_L) -> tuple[int, int]:
    """Largest spending near the real ranks and the least squared deviation that reaches it, from all integer ranks."""
    target_L = np.rint(scale_to_budget(ideal_L, cost_L, budget, low_L, high_L) * UNIT).astype(np.int64)
    ranks_NL = np.array(list(product(*(range(low, high + 1) for low, high in zip(low_L, high_L, strict=True)))))
    spent_N = ranks_NL @ cost_L
    deviation_N = (ranks_NL**2 * UNIT - 2 * ranks_NL * target_L).sum(axis=1)
    allowed_N = (spent_N <= budget) & (spent_N > budget - cost_L.max())
    near_N = allowed_N & (deviation_N <= deviation_N[allowed_N].min() + near_allowance(cost_L.size))
    most = spent_N[near_N].max()
    return int(most), int(deviation_N[near_N & (spent_N == most)].min())


def deviation_of(ranks_L, ideal_L, cost_L, budget, low_L, high_L) -> int:
    target_L = np.rint(scale_to_budget(ideal_L, cost_L, budget, low_L, high_L) * UNIT).astype(np.int64)
    return int((ranks_L**2 * UNIT - 2 * ranks_L * target_L).sum())


def nothing_fits(spent, cost_L, budget, ranks_L, high_L) -> bool:
    return not ((ranks_L < high_L) & (cost_L <= budget - spent)).any()


@settings(max_examples=120, deadline=None)
@given(instances(max_sites=12, max_rank=40, max_cost=300))
def test_never_above_the_budget_within_bounds_and_nothing_more_fits(instance):
    _, cost_L, budget, low_L, high_L = instance
    ranks_L = fit(*instance)
    assert ranks_L.dtype == np.int64
    assert (low_L <= ranks_L).all()
    assert (ranks_L <= high_L).all()
    assert ranks_L @ cost_L <= budget
    assert nothing_fits(ranks_L @ cost_L, cost_L, budget, ranks_L, high_L)


@settings(max_examples=120, deadline=None)
@given(instances(max_sites=4, max_rank=7, max_cost=30))
def test_spends_and_deviates_as_exhaustive_search_does(instance):
    _, cost_L, budget, _, high_L = instance
    ranks_L = fit(*instance)
    if budget >= high_L @ cost_L:
        assert (ranks_L == high_L).all()
        return
    most, least_deviation = exhaustive(*instance)
    assert ranks_L @ cost_L >= most
    if ranks_L @ cost_L == most:
        assert deviation_of(ranks_L, *instance) == least_deviation


def test_components_are_added_beyond_the_near_ones_while_any_fits():
    """The nearest real ranks are 4, 4, 4.5; only fifty more of the cheap component use the last 500 parameters."""
    assert fit(np.array([4.0, 4.0, 4.5]), np.array([10, 1000, 1000]), 8540, 1, 100).tolist() == [54, 4, 4]


def test_awkward_costs_do_not_turn_one_preference_into_another():
    """Exact solutions with costs of 1024 and 1877 lie 1877 and 1024 components apart; the one at hand is uniform."""
    cost_L = np.tile([1024] * 4 + [1877] * 3, 8)
    favoured_L = np.where(cost_L == 1024, 2.0, 1.0)
    budget = 8 * int(cost_L.sum())
    ranks_L = fit(favoured_L, cost_L, budget, 1, 100)
    assert 0 <= budget - ranks_L @ cost_L < 1024
    assert 1.7 < ranks_L[cost_L == 1024].mean() / ranks_L[cost_L == 1877].mean() < 2.3


@settings(max_examples=80, deadline=None)
@given(instances(max_sites=8, max_rank=30, max_cost=100), st.randoms(use_true_random=False))
def test_a_reordering_of_the_sites_reorders_the_ranks(instance, random):
    """Sites of equal cost and real rank may trade places, so they are compared as a group."""
    ideal_L, cost_L, budget, low_L, high_L = instance
    order = list(range(len(ideal_L)))
    random.shuffle(order)
    moved = (ideal_L[order], cost_L[order], budget, low_L[order], high_L[order])
    real_L = high_L if budget >= high_L @ cost_L else np.round(scale_to_budget(*instance), 5)
    before, after = defaultdict(list), defaultdict(list)
    for place, rank in enumerate(fit(*instance)):
        before[cost_L[place], real_L[place]].append(rank)
    for place, rank in zip(order, fit(*moved), strict=True):
        after[cost_L[place], real_L[place]].append(rank)
    assert {key: sorted(ranks) for key, ranks in before.items()} == {key: sorted(ranks) for key, ranks in after.items()}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=60),
    st.integers(1, 64),
    st.floats(1e-6, 1e6),
    st.integers(0, 1),
)
def test_equal_preferences_give_exactly_the_budgets_rank(costs, rank, level, low):
    cost_L = np.array(costs)
    ranks_L = fit(np.full(len(costs), level), cost_L, rank * int(cost_L.sum()), low, 64)
    assert ranks_L.tolist() == [rank] * len(costs)


@settings(max_examples=80, deadline=None)
@given(instances(max_sites=10, max_rank=40, max_cost=300))
def test_real_ranks_are_proportional_where_no_bound_holds_and_spend_the_budget(instance):
    """scipy's root finder looks for the same level."""
    ideal_L, cost_L, budget, low_L, high_L = instance
    wanted_L = ideal_L > 0
    if budget > np.where(wanted_L, high_L, low_L) @ cost_L:
        return
    real_L = scale_to_budget(*instance)
    assert real_L @ cost_L == pytest.approx(budget, rel=1e-12)

    def overspent(log_level):
        return np.clip(np.exp(log_level) * ideal_L, low_L, high_L) @ cost_L - budget

    if overspent(-40) < 0 < overspent(40):
        level = np.exp(brentq(overspent, -40, 40, xtol=1e-13))
        np.testing.assert_allclose(real_L, np.clip(level * ideal_L, low_L, high_L), rtol=1e-6, atol=1e-9)


def test_what_clipping_takes_is_given_to_the_others():
    """Proportional ranks would be 32, 4, 4, 4 (44 components); the first may have 8, so 36 are left for three."""
    assert fit(np.array([8.0, 1, 1, 1]), np.full(4, 10), 440, 1, np.array([8, 99, 99, 99])).tolist() == [8, 12, 12, 12]


def test_sites_without_preference_grow_only_when_the_others_are_full():
    zero_first = np.array([0.0, 0.0, 1.0])
    assert fit(zero_first, np.full(3, 5), 5 * 8, 1, 6).tolist() == [1, 1, 6]
    assert fit(zero_first, np.full(3, 5), 5 * 12, 1, 6).tolist() == [3, 3, 6]


def test_a_remainder_is_spread_over_the_sites_and_not_gathered_at_the_front():
    ranks_L = fit(np.ones(24), np.full(24, 7), 7 * (24 * 2 + 6), 1, 9)
    extra = np.flatnonzero(ranks_L == 3)
    assert extra.size == 6
    assert np.diff(extra, prepend=0, append=24).max() <= 6


def test_a_budget_above_all_full_sites_leaves_the_rest():
    assert fit(np.array([1.0, 2.0]), np.array([3, 5]), 1000, 1, np.array([4, 6])).tolist() == [4, 6]


@pytest.mark.parametrize("cost_L", [PHI_2, LLAMA, COPRIME], ids=["phi-2", "tinyllama", "coprime"])
def test_real_shapes_are_spent_to_the_last_parameter_in_little_time(cost_L):
    depth_L = np.repeat(np.linspace(0, 1, 32), cost_L.size // 32)
    started = time.process_time()
    for ideal_L in (
        1.5 - depth_L,
        np.where(cost_L < 5000, 2.0, 1.0),
        np.random.default_rng(0).lognormal(size=cost_L.size),
    ):
        assert fit(ideal_L, cost_L, 8 * int(cost_L.sum()), 1, 512) @ cost_L == 8 * cost_L.sum()
    assert time.process_time() - started < 2.0  # measured: 0.01 s, coprime 0.15 s


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, 2.0], [10, 10], 15, 1, 8), ["15", "20", "min_rank"]),
        (([1.0, np.nan], [10, 10], 50, 1, 8), ["site 1", "nan"]),
        (([1.0, -1.0], [10, 10], 50, 1, 8), ["site 1", "-1.0"]),
        (([0.0, 0.0], [10, 10], 50, 1, 8), ["zero"]),
        (([], [], 50, 1, 8), ["one value per site", "(0,)"]),
        (([[1.0]], [10], 50, 1, 8), ["shape (1, 1)"]),
        (([1.0, 1.0], [10], 50, 1, 8), ["cost_L"]),
        (([1.0, 1.0], [10, 0], 50, 1, 8), ["cost_L", "at least 1"]),
        (([1.0, 1.0], [10, 10], 50, 4, np.array([8, 3])), ["min_rank 4", "site 1", "max_rank 3"]),
        (([1.0, 1.0], [10, 10], 50, 0.5, 8), ["min_rank", "0.5"]),
    ],
)
def test_arguments_that_cannot_be_spent_are_named(arguments, words):
    ideal, cost, *rest = arguments
    with pytest.raises(AllocationError) as error:
        fit(np.array(ideal), np.array(cost), *rest)
    assert all(word in str(error.value) for word in words), str(error.value)


SITES = [
    Site(name="a.q_proj", kind="attention", layer=0, in_features=64, out_features=64),
    Site(name="a.k_proj", kind="attention", layer=0, in_features=64, out_features=8),
]


def test_a_budget_is_the_same_number_however_it_is_stated():
    assert resolve_budget(SITES, rank=4) == 4 * (128 + 72)
    assert resolve_budget(SITES, params=801) == 801
    assert resolve_budget(SITES, fraction=0.0125, base_params=64_099) == 801


def test_a_rank_above_some_but_not_all_layers_is_a_budget():
    assert resolve_budget(SITES, rank=64) == 64 * 200
    assert fit(np.ones(2), np.array([128, 72]), 64 * 200, 1, np.array([64, 8])).tolist() == [64, 8]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"rank": 65}, ["rank 65", "64"]),
        ({"rank": 0}, ["rank 0"]),
        ({"params": 199}, ["199", "200", "2 sites"]),
        ({"fraction": 0.001, "base_params": 64_000}, ["0.001", "64 parameters", "200"]),
        ({"fraction": 1.5, "base_params": 64_000}, ["1.5"]),
        ({"fraction": 0.5}, ["base_params"]),
        ({}, ["exactly one"]),
        ({"rank": 2, "params": 900}, ["exactly one", "rank=2", "params=900"]),
    ],
)
def test_a_budget_that_cannot_be_is_named_with_what_is_allowed(stated, words):
    with pytest.raises(AllocationError) as error:
        resolve_budget(SITES, **stated)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_budget_without_sites_is_refused():
    with pytest.raises(AllocationError, match="no site"):
        resolve_budget([], rank=4)
