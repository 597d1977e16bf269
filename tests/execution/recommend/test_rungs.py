"""Successive halving as pure functions: lengths, who goes on, and with which learning rates."""

import math

import pytest

from rankwise.execution.recommend.rungs import choose_finalists, halve, next_rates, rung_epochs
from tests.execution.recommend.arms import make_score


@pytest.mark.parametrize(
    ("num_arms", "num_finalists", "steps_per_epoch", "wanted"),
    [
        (13, 4, 100, (0.6667, 2.0)),
        (36, 4, 100, (0.2222, 0.6667, 2.0)),
        (4, 4, 100, (0.6667, 2.0)),  # one short rung at least: it is where learning rates are thinned out
        (1, 4, 100, (0.6667, 2.0)),
        (13, 4, 12, (0.6667, 2.0)),  # 8 steps
        (13, 4, 10, (2.0,)),  # 7 steps would be too few
        (36, 4, 12, (0.6667, 2.0)),
    ],
)
def test_each_rung_is_three_times_as_long_and_the_last_is_full(num_arms, num_finalists, steps_per_epoch, wanted):
    assert rung_epochs(2.0, steps_per_epoch=steps_per_epoch, num_arms=num_arms, num_finalists=num_finalists) == wanted


def test_the_best_third_of_each_group_goes_on_in_the_order_of_the_list():
    uniform = [make_score(rank=rank, loss=loss) for rank, loss in ((8, 1.3), (16, 1.1), (4, 1.5), (32, 1.2))]
    uneven = [make_score(name, loss=loss) for name, loss in (("linear_decay", 1.9), ("empirical", 1.8))]
    kept = halve([uneven[0], *uniform, uneven[1]])
    assert [score.arm.name for score in kept] == ["uniform r16", "uniform r32", "empirical r8"]


def test_an_arm_that_diverged_at_every_rate_does_not_go_on():
    broken = make_score("linear_decay", losses={1e-3: math.inf, 2e-3: math.inf})
    assert halve([make_score(), broken]) == [make_score()]
    assert not broken.is_usable


@pytest.mark.parametrize(
    ("losses", "may_leave", "wanted"),
    [
        ({1e-3: 1.2, 2e-3: 1.0, 4e-3: 1.1}, True, (1e-3, 2e-3, 4e-3)),
        ({1e-3: 1.2, 2e-3: 1.1, 4e-3: 1.0}, True, (2e-3, 4e-3, 8e-3)),
        ({1e-3: 1.0, 2e-3: 1.1, 4e-3: 1.2}, True, (5e-4, 1e-3, 2e-3)),
        ({1e-3: 1.2, 2e-3: 1.1, 4e-3: 1.0}, False, (2e-3, 4e-3)),
        ({1e-3: 1.0, 2e-3: 1.1, 4e-3: 1.2}, False, (1e-3, 2e-3)),
        ({1e-3: 1.0}, True, (1e-3,)),
        ({1e-3: 1.0}, False, (1e-3,)),
    ],
)
def test_the_best_rate_goes_on_with_both_neighbours_beyond_the_edge_where_it_lies_there(losses, may_leave, wanted):
    assert next_rates(make_score(losses=losses), may_leave=may_leave) == pytest.approx(wanted)


def test_the_finalists_are_the_best_of_each_group_and_the_best_others():
    scores = [
        make_score(rank=8, loss=1.0),
        make_score("linear_decay", loss=1.8),
        make_score(rank=16, loss=1.1),
        make_score("empirical", loss=1.9),
    ]
    assert [s.arm.name for s in choose_finalists(scores, 2)] == ["uniform r8", "linear_decay r8"]
    assert [s.arm.name for s in choose_finalists(scores, 3)] == ["uniform r8", "linear_decay r8", "uniform r16"]
    assert choose_finalists(scores, 9) == scores
    assert [s.arm.name for s in choose_finalists([scores[1], scores[3]], 1)] == ["linear_decay r8"]
