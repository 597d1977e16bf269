"""The front against brute force, and its certainty where it is known."""

import numpy as np
import pytest

from rankwise.statistics.pareto import not_dominated, pareto_front


def test_the_front_is_what_a_loop_over_pairs_finds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.integers(0, 5, size=(8, 2)).astype(float)  # small numbers, so that ties occur
        expected = [not any(all(q <= p) and any(q < p) for q in points) for p in points]
        assert not_dominated(points[:, 0], points[:, 1]).tolist() == expected


def test_a_clear_front_is_certain_and_a_tie_is_even():
    noise = np.random.default_rng(1).normal(0, 1e-3, size=(4, 8))
    clear = pareto_front([1, 2, 3, 3], np.array([3.0, 2.0, 1.0, 4.0])[:, None] + noise, rng=np.random.default_rng(2))
    assert clear.is_on_front_A.tolist() == [True, True, True, False]
    assert clear.on_front_frac_A.tolist() == [1, 1, 1, 0]
    flipped = np.tile([1.0, -1.0], 4)
    even = pareto_front([1, 1], np.stack([flipped, -flipped]), rng=np.random.default_rng(3), num_resamples=2000)
    assert even.on_front_frac_A.sum() >= 1
    assert even.on_front_frac_A == pytest.approx([0.64, 0.64], abs=0.05)  # half, and the 27 % of exact ties for both


def test_the_cheapest_of_equal_losses_is_the_front():
    front = pareto_front([5, 1, 3], np.ones((3, 6)), rng=np.random.default_rng(4), num_resamples=10)
    assert front.is_on_front_A.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="2 costs"):
        pareto_front([1, 2], np.ones((3, 4)), rng=np.random.default_rng(5))
