"""Agreement of seeds about an order: against brute force over pairs of arms, and on orders that are known."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from rankwise.statistics.orderings import ordering_stability


def agreement(loss_AS: np.ndarray) -> float:
    """Mean over pairs of seeds of (agreeing - disagreeing) pairs of arms over all pairs; no ties."""
    signs = np.array([np.sign(loss_AS[a] - loss_AS[b]) for a, b in combinations(range(len(loss_AS)), 2)])
    return float(np.mean([np.mean(signs[:, s] * signs[:, t]) for s, t in combinations(range(loss_AS.shape[1]), 2)]))


def test_mean_tau_counts_agreeing_pairs():
    loss_AS = np.random.default_rng(0).normal(size=(5, 7))
    assert ordering_stability(loss_AS, level=0.95).mean_tau == pytest.approx(agreement(loss_AS))


def test_the_same_order_on_every_seed_is_one_and_a_reversed_one_minus_one():
    order_A = np.arange(4.0)
    same = ordering_stability(order_A[:, None] + np.linspace(0, 9, 6), level=0.95)
    assert (same.mean_tau, same.interval.low, same.interval.high) == (1.0, 1.0, 1.0)
    assert same.first_frac_A.tolist() == [1, 0, 0, 0]
    reversed_ = ordering_stability(np.column_stack([order_A, order_A[::-1]]), level=0.95)
    assert reversed_.mean_tau == -1
    assert math.isnan(reversed_.interval.low)


def test_friedman_is_scipys_and_ties_say_nothing():
    loss_AS = np.random.default_rng(1).normal(size=(4, 8)) + np.arange(4)[:, None]
    found = ordering_stability(loss_AS, level=0.95)
    assert found.p_value == stats.friedmanchisquare(*loss_AS).pvalue < 0.05
    tied = ordering_stability(np.ones((3, 4)), level=0.95)
    assert (tied.mean_tau, tied.p_value) == (0, 1)
    assert tied.first_frac_A == pytest.approx(1 / 3)


def test_the_interval_covers_the_expected_agreement():
    """Noise three times the steps between four arms; the truth is the mean of many seeds."""
    rng = np.random.default_rng(2)

    def losses(num_seeds: int) -> np.ndarray:
        return np.arange(4.0)[:, None] + 3 * rng.normal(size=(4, num_seeds))

    truth = ordering_stability(losses(200), level=0.95).mean_tau
    found = [ordering_stability(losses(8), level=0.95).interval for _ in range(150)]
    assert 0.88 <= np.mean([not interval.excludes(truth) for interval in found]) <= 1.0


def test_one_seed_has_no_agreement_and_one_arm_no_order():
    one = ordering_stability([[1.0], [2.0], [3.0]], level=0.95)
    assert math.isnan(one.mean_tau)
    assert math.isnan(one.p_value)
    with pytest.raises(ValueError, match="two arms"):
        ordering_stability([[1.0, 2.0]], level=0.95)
