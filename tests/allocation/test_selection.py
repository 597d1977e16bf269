"""One threshold over all sites, against brute force and against plain sorting."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.allocation.selection import keep_most_important
from rankwise.errors import AllocationError


def test_equal_costs_keep_the_globally_largest() -> None:
    importance_LR = np.random.default_rng(0).permutation(40).reshape(8, 5).astype(float)
    kept_LR = keep_most_important(importance_LR, np.ones((8, 5), bool), np.full(8, 7), 7 * 13 + 3)
    assert set(importance_LR[kept_LR]) == set(range(27, 40))


@given(st.integers(0, 10_000), st.integers(0, 2), st.booleans())
def test_the_budget_is_kept_and_nothing_more_fits(seed: int, min_rank: int, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    num_sites, num_places = rng.integers(1, 8), rng.integers(1, 7)
    importance_LR = rng.lognormal(size=(num_sites, num_places)).round(1)  # with ties
    candidate_LR = rng.random((num_sites, num_places)) < 0.8
    cost_L = rng.choice([40, 64, 96, 105], size=num_sites)
    max_rank_L = rng.integers(1, num_places + 1, size=num_sites)
    high_L = np.minimum(candidate_LR.sum(axis=1), max_rank_L)
    low_L = np.minimum(high_L, min_rank)
    budget = int(rng.integers(low_L @ cost_L, high_L @ cost_L + 200))
    kept_LR = keep_most_important(importance_LR, candidate_LR, cost_L, budget, min_rank, max_rank_L, exact=exact)
    rank_L = kept_LR.sum(axis=1)
    assert not (kept_LR & ~candidate_LR).any()
    assert (low_L <= rank_L).all()
    assert (rank_L <= high_L).all()
    residual = budget - int(rank_L @ cost_L)
    assert residual >= 0
    if exact:
        assert residual < min(cost_L[rank_L < high_L], default=np.inf)
    for site in range(num_sites):  # within a site the most important stay
        left = importance_LR[site, candidate_LR[site] & ~kept_LR[site]]
        assert not left.size or not rank_L[site] or importance_LR[site, kept_LR[site]].min() >= left.max()


def test_unequal_costs_spend_what_brute_force_can() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        cost_L = np.array([3, 5, 8])
        importance_LR = rng.random((3, 4))
        budget = int(rng.integers(12, 40))
        kept_LR = keep_most_important(importance_LR, np.ones((3, 4), bool), cost_L, budget)
        spendings = {int(np.array(ranks) @ cost_L) for ranks in itertools.product(range(5), repeat=3)}
        best = max(spending for spending in spendings if spending <= budget)
        assert int(kept_LR.sum(axis=1) @ cost_L) == best


def test_the_repair_stays_near_the_threshold_and_moves_what_was_close_to_it() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        cost_L = rng.choice([40, 64, 96], size=24)
        importance_LR = rng.lognormal(size=(24, 8))
        budget = int(cost_L.sum() * 4)
        kept_LR = keep_most_important(importance_LR, np.ones((24, 8), bool), cost_L, budget)
        assert budget - int(kept_LR.sum(axis=1) @ cost_L) < 8, "an exact solution is near with so many sites"
        plain_L = _threshold_counts(importance_LR, cost_L, budget)
        assert np.abs(kept_LR.sum(axis=1) - plain_L).sum() <= 4
        moved = np.flatnonzero(kept_LR.sum(axis=1) != plain_L)
        order = list(np.argsort(-importance_LR, axis=None) // 8)
        near = set(order[int(plain_L.sum()) - 24 : int(plain_L.sum()) + 24])
        assert set(moved) <= near


def _threshold_counts(importance_LR: np.ndarray, cost_L: np.ndarray, budget: int) -> np.ndarray:
    counts_L, spent = np.zeros(len(cost_L), int), 0
    for place in np.argsort(-importance_LR, axis=None):
        site = place // importance_LR.shape[1]
        if spent + cost_L[site] > budget:
            break
        spent += cost_L[site]
        counts_L[site] += 1
    return counts_L


def test_ties_are_shared_out_over_the_sites() -> None:
    kept_LR = keep_most_important(np.zeros((6, 4)), np.ones((6, 4), bool), np.full(6, 10), 150)
    assert sorted(kept_LR.sum(axis=1)) == [2, 2, 2, 3, 3, 3]


def test_what_cannot_be_ordered_or_afforded_is_refused() -> None:
    ones = np.ones((2, 2), bool)
    with pytest.raises(AllocationError, match="not finite"):
        keep_most_important(np.array([[1.0, np.nan], [1.0, 1.0]]), ones, np.array([5, 5]), 10)
    with pytest.raises(AllocationError, match="does not cover"):
        keep_most_important(np.ones((2, 2)), ones, np.array([5, 5]), 9, 1)
