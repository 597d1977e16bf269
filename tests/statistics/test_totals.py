"""Letters: E test examples, S sums."""

import math

import numpy as np
import pytest
from scipy import stats

from rankwise.statistics.totals import bootstrap_totals_interval, share_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def ratio(totals):
    return totals[..., 0] / totals[..., 1]


def losses_and_tokens(num_examples, seed=0):
    draw = rng(seed)
    tokens_E = draw.integers(1, 20, num_examples)
    return np.stack([tokens_E * draw.gamma(4.0, 0.5, num_examples), tokens_E], axis=1)


def test_of_a_ratio_it_is_scipys_bootstrap_of_paired_values():
    sums_ES = losses_and_tokens(60)
    found = bootstrap_totals_interval(sums_ES, ratio, level=0.9, rng=rng(1))
    expected = stats.bootstrap(
        (sums_ES[:, 0], sums_ES[:, 1]),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        n_resamples=4999,
        confidence_level=0.9,
        rng=rng(2),
    ).confidence_interval
    tolerance = 0.05 * (expected.high - expected.low)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=tolerance)
    assert found.low < ratio(sums_ES.sum(axis=0)) < found.high
    assert (found.n, found.level) == (60, 0.9)


def test_it_covers_about_as_often_as_it_says():
    truth = 4.0 * 0.5
    found = [
        bootstrap_totals_interval(losses_and_tokens(80, s), ratio, level=0.9, rng=rng(10_000 + s), num_resamples=600)
        for s in range(200)
    ]
    covered = np.mean([interval.low <= truth <= interval.high for interval in found])
    assert 0.83 <= covered <= 0.96


def test_the_same_generator_gives_the_same_interval_whatever_the_batches(monkeypatch):
    sums_ES = losses_and_tokens(30)
    first = bootstrap_totals_interval(sums_ES, ratio, level=0.95, rng=rng())
    assert bootstrap_totals_interval(sums_ES, ratio, level=0.95, rng=rng()) == first
    monkeypatch.setattr("rankwise.statistics.totals._BATCH_VALUES", 30 * 4999)
    one_batch = bootstrap_totals_interval(sums_ES, ratio, level=0.95, rng=rng())
    assert (one_batch.low, one_batch.high) == pytest.approx((first.low, first.high), rel=1e-6)


def test_examples_that_are_all_equal_give_the_value():
    found = bootstrap_totals_interval(np.tile([3.0, 2.0], (8, 1)), ratio, level=0.95, rng=rng())
    assert (found.low, found.high) == (1.5, 1.5)
    assert "equal" in found.method


def test_too_few_examples_give_none():
    found = bootstrap_totals_interval(losses_and_tokens(5), ratio, level=0.95, rng=rng())
    assert math.isnan(found.low)
    assert "fewer than 6" in found.method


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_totals_interval([[np.nan, 1.0]] * 8, ratio, level=0.95, rng=rng())


def test_a_share_of_nothing_is_not_certainly_nothing():
    none, all_of_them = share_interval(0, 200, level=0.95), share_interval(200, 200, level=0.95)
    assert none.low == 0
    assert none.high == pytest.approx(0.0188, abs=1e-4)  # z^2 / (n + z^2)
    assert all_of_them.low == pytest.approx(1 - none.high)
