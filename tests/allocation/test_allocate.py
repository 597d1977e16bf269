"""A strategy and a budget become a rank map, or an error that names the strategy."""

from dataclasses import replace

import numpy as np
import pytest

from rankwise.allocation import (
    STRATEGIES,
    Scaling,
    Signal,
    SiteView,
    Strategy,
    allocate,
    build_strategy,
    resolve_budget,
)
from rankwise.errors import AllocationError
from rankwise.testing import example_view

VIEW = example_view(3)
BUDGET = resolve_budget(VIEW.sites, rank=8)


class Answers(Strategy):
    """Gives what it is told."""

    answer: object

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return self.answer


MOVERS = [name for name in STRATEGIES if build_strategy(name, {}).mover()]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in MOVERS])
def test_every_static_strategy_spends_a_uniform_budget_to_the_last_parameter(name):
    rank_map = allocate(build_strategy(name, {}), VIEW, budget_params=BUDGET, scaling=Scaling())
    assert rank_map.params == sum(rank * site.cost for rank, site in zip(rank_map.ranks, VIEW.sites, strict=True))
    assert (rank_map.params, rank_map.residual_params, rank_map.budget_params) == (BUDGET, 0, BUDGET)


@pytest.mark.parametrize(
    ("name", "start", "held"),
    [("adalora", 12, 12), ("elastic", 8, 16), ("l1", 12, 12), ("truncate", 16, 16)],
)
def test_a_dynamic_strategy_starts_uniform_at_its_multiple_of_the_budget(name, start, held):
    rank_map = allocate(build_strategy(name, {}), VIEW, budget_params=BUDGET, scaling=Scaling(alpha=16))
    assert set(rank_map.ranks) == {start}
    assert set(rank_map.held_ranks) == {held}
    assert set(rank_map.scales) == {16 / start}
    assert rank_map.params == BUDGET * start // 8
    assert rank_map.held_params == BUDGET * held // 8
    assert rank_map.budget_params == BUDGET


def test_a_dynamic_strategy_stays_within_the_largest_rank():
    rank_map = allocate(build_strategy("elastic", {}), VIEW, budget_params=BUDGET, scaling=Scaling(), max_rank=9)
    assert set(rank_map.held_ranks) == {9}


def test_scales_follow_each_sites_own_rank():
    decay = build_strategy("linear_decay", {})
    for scaling in (Scaling(alpha=32), Scaling(rule="rslora", alpha=8), Scaling(rule="constant", scale=3)):
        rank_map = allocate(decay, VIEW, budget_params=BUDGET, scaling=scaling)
        expected = {"alpha_over_r": lambda r: 32 / r, "rslora": lambda r: 8 / r**0.5, "constant": lambda r: 3}
        assert rank_map.scales == pytest.approx([expected[scaling.rule](rank) for rank in rank_map.ranks])


def test_a_dropped_site_has_no_scale():
    steep = build_strategy("linear_decay", {"first": 1, "last": 0})
    rank_map = allocate(steep, VIEW, budget_params=BUDGET, scaling=Scaling(rule="constant"), min_rank=0)
    last = [
        (rank, scale)
        for site, rank, scale in zip(VIEW.sites, rank_map.ranks, rank_map.scales, strict=True)
        if site.layer == 2
    ]
    assert last == [(0, 0.0)] * 5


def test_no_site_gets_more_than_its_layer_can_hold_or_than_is_allowed():
    favoured = build_strategy("attention_heavy", {"ratio": 50.0})
    budget = resolve_budget(VIEW.sites, rank=24)
    free = allocate(favoured, VIEW, budget_params=budget, scaling=Scaling())
    assert {rank for site, rank in zip(VIEW.sites, free.ranks, strict=True) if site.leaf == "k_proj"} <= {31, 32}
    capped = allocate(favoured, VIEW, budget_params=budget, scaling=Scaling(), max_rank=30)
    assert max(capped.ranks) == 30
    assert capped.residual_params < min(site.cost for site in VIEW.sites)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.ones(3), ["(3,)", "(15,)"]),
        (np.ones((15, 1)), ["(15, 1)"]),
        (np.full(15, "x"), ["real numbers"]),
        (np.full(15, 1j), ["complex"]),
        (np.r_[np.ones(14), np.inf], ["inf", "model.layers.2.mlp.down_proj"]),
        (np.r_[-1.0, np.ones(14)], ["-1.0", "model.layers.0.self_attn.q_proj"]),
        (np.zeros(15), ["zero for every site"]),
    ],
)
def test_an_answer_that_breaks_the_contract_names_the_strategy(answer, words):
    with pytest.raises(AllocationError) as error:
        allocate(Answers(answer=answer), VIEW, budget_params=BUDGET, scaling=Scaling())
    assert all(word in str(error.value) for word in ["Answers", *words]), str(error.value)


@pytest.mark.parametrize(
    ("signals", "words"),
    [
        ({}, ["gradient_rms", "not measured"]),
        ({Signal.GRADIENT_RMS: np.ones(4)}, ["(4,)", "15 sites"]),
        (
            {Signal.GRADIENT_RMS: np.r_[np.ones(5), np.nan, np.ones(9)]},
            ["not finite", "model.layers.1.self_attn.q_proj"],
        ),
    ],
)
def test_a_signal_that_cannot_be_used_is_named(signals, words):
    empirical = build_strategy("empirical", {})
    with pytest.raises(AllocationError) as error:
        allocate(empirical, replace(VIEW, signals=signals), budget_params=BUDGET, scaling=Scaling())
    assert all(word in str(error.value) for word in ["Empirical", *words]), str(error.value)


def test_bounds_that_no_layer_can_keep_are_named():
    uniform = build_strategy("uniform", {})
    with pytest.raises(AllocationError, match=r"min_rank 40.*model\.layers\.0\.self_attn\.k_proj \(64 x 32"):
        allocate(uniform, VIEW, budget_params=10**6, scaling=Scaling(), min_rank=40)
    with pytest.raises(AllocationError, match=r"min_rank 3 .*max_rank 2"):
        allocate(uniform, VIEW, budget_params=BUDGET, scaling=Scaling(), min_rank=3, max_rank=2)
    with pytest.raises(AllocationError, match="no site"):
        allocate(uniform, SiteView(sites=()), budget_params=BUDGET, scaling=Scaling())
