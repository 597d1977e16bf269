"""The size of a race against the time there is; the clock is a table of costs."""

from dataclasses import replace

import pytest

from rankwise.errors import PackError
from rankwise.execution.recommend.effort import (
    ALL_ARMS,
    DEFAULT,
    EFFORTS,
    Effort,
    choose_effort,
    efforts_of,
    rechoose_effort,
)
from rankwise.execution.recommend.question import Question
from rankwise.statistics.power import smallest_decidable_n
from tests.execution.recommend.arms import make_question

NUM_ARMS = 13


class FakeClock:
    """A first rung of 1 s an arm; a second for each confirming run."""

    def __init__(self, question: Question, speed: float = 1.0) -> None:
        self.question = question
        self.speed = speed

    def first_rung_s(self, effort: Effort, num_proposed: int) -> float:
        return self.speed * min(effort.num_arms, num_proposed)

    def rest_s(self, effort: Effort, num_proposed: int) -> float:
        return self.speed * (effort.num_finalists * effort.num_seeds + 16 * effort.asks_budgets)

    def total_s(self, effort: Effort, num_proposed: int) -> float:
        return self.first_rung_s(effort, num_proposed) + self.rest_s(effort, num_proposed)

    def lengths(self, effort: Effort, num_proposed: int) -> tuple[float, ...]:
        return (1.0, 3.0)


def test_every_effort_costs_no_more_than_the_one_before_and_can_still_show_a_difference():
    clock = FakeClock(make_question())
    costs = [clock.total_s(effort, NUM_ARMS) for effort in EFFORTS]
    assert costs == sorted(costs, reverse=True)
    for effort in EFFORTS:
        num_pairs = effort.num_finalists * (effort.num_finalists - 1) // 2
        assert effort.num_seeds >= smallest_decidable_n(num_pairs, 0.95)


def test_the_time_decides_the_effort_and_no_time_means_the_default():
    clock = FakeClock(make_question())
    assert choose_effort(clock, NUM_ARMS, None) == DEFAULT
    assert choose_effort(clock, NUM_ARMS, 10_000) == EFFORTS[0]
    assert choose_effort(clock, NUM_ARMS, 13 + 32 + 16) == DEFAULT
    assert choose_effort(clock, NUM_ARMS, 13 + 32 + 15) == replace(DEFAULT, asks_budgets=False)
    assert choose_effort(clock, NUM_ARMS, 16) == EFFORTS[-1]
    with pytest.raises(PackError, match=r"15.0 s is too short.*16.0 s"):
        choose_effort(clock, NUM_ARMS, 15)


def test_seeds_that_were_asked_for_are_kept_with_as_many_finalists_as_they_can_tell_apart():
    by_seeds = {num: efforts_of(make_question(num_seeds=num)) for num in (3, 6, 7, 8, 20)}
    assert {num: efforts[0].num_finalists for num, efforts in by_seeds.items()} == {3: 2, 6: 2, 7: 3, 8: 4, 20: 4}
    assert all(effort.num_seeds == num for num, efforts in by_seeds.items() for effort in efforts)
    assert choose_effort(FakeClock(make_question(num_seeds=20)), NUM_ARMS, None) == replace(DEFAULT, num_seeds=20)


def test_after_the_first_rung_only_what_is_left_changes():
    slow = FakeClock(make_question(), speed=3.0)
    assert rechoose_effort(slow, DEFAULT, NUM_ARMS, 150) == DEFAULT
    assert rechoose_effort(slow, DEFAULT, NUM_ARMS, 100) == replace(DEFAULT, asks_budgets=False)
    least = rechoose_effort(slow, DEFAULT, NUM_ARMS, 1)
    assert (least.num_finalists, least.num_seeds, least.num_arms) == (3, 7, ALL_ARMS), "all arms were raced already"
    assert rechoose_effort(slow, EFFORTS[-1], NUM_ARMS, 1) == EFFORTS[-1]
