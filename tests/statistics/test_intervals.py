"""Letters: N values, S seeds, E test examples."""

import math

import numpy as np
import pytest
from scipy import stats

from rankwise.statistics import intervals
from rankwise.statistics.intervals import (
    Interval,
    bootstrap_mean_interval,
    hierarchical_bootstrap_interval,
    t_mean_interval,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def width(interval):
    return interval.high - interval.low


def test_t_interval_is_scipys():
    values = rng().normal(2.0, 0.3, size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = t_mean_interval(values, level=0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.n, found.level) == (7, 0.9)


def test_bootstrap_of_many_values_agrees_with_the_t_interval():
    values = rng().normal(size=300)
    found, expected = bootstrap_mean_interval(values, level=0.95, rng=rng()), t_mean_interval(values, level=0.95)
    assert "BCa" in found.method
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.08 * width(expected))


def test_bootstrap_of_skewed_values_reaches_further_into_the_tail():
    values = np.exp(rng().normal(size=40))
    found, mean = bootstrap_mean_interval(values, level=0.95, rng=rng()), values.mean()
    assert found.high - mean > 1.2 * (mean - found.low)


def test_bootstrap_follows_shift_and_scale():
    values = rng().normal(size=8)
    plain = bootstrap_mean_interval(values, level=0.95, rng=rng(1), num_resamples=999)
    moved = bootstrap_mean_interval(3 + 10 * values, level=0.95, rng=rng(1), num_resamples=999)
    assert (moved.low, moved.high) == pytest.approx((3 + 10 * plain.low, 3 + 10 * plain.high), abs=0.01 * width(moved))


@pytest.mark.parametrize(("n", "level", "method"), [(5, 0.95, "t"), (6, 0.95, "BCa"), (3, 0.8, "t"), (4, 0.8, "BCa")])
def test_too_few_values_for_a_bootstrap_get_students_t(n, level, method):
    found = bootstrap_mean_interval(rng().normal(size=n), level=level, rng=rng(), num_resamples=199)
    assert method in found.method
    if method == "t":
        assert found == t_mean_interval(rng().normal(size=n), level=level)


# 95 % +- 4.5 standard errors of 500 studies. A plain BCa bootstrap covers in 79 % (n = 4) and 88 % (n = 8).
@pytest.mark.parametrize("n", [4, 8])
def test_bootstrap_covers_the_truth_as_often_as_it_says(n):
    source, num_studies = rng(n), 500
    covered = sum(
        not bootstrap_mean_interval(source.normal(size=n), level=0.95, rng=source, num_resamples=399).excludes(0.0)
        for _ in range(num_studies)
    )
    assert 0.905 < covered / num_studies < 0.99


def test_one_value_has_no_interval():
    for found in (bootstrap_mean_interval([1.5], level=0.95, rng=rng()), t_mean_interval([1.5], level=0.95)):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert (found.n, found.method) == (1, "none: one value")
        assert not found.excludes(0.0)
        assert not found.lies_within(10.0)


def test_equal_values_give_that_value_and_say_so():
    found = bootstrap_mean_interval([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3], level=0.95, rng=rng())
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))
    assert "equal" in found.method
    zeros = bootstrap_mean_interval(np.zeros(8), level=0.95, rng=rng())
    assert (zeros.low, zeros.high) == (0.0, 0.0)


def test_the_generator_alone_decides_the_resamples():
    values = rng().normal(size=9)
    first, again, other = (
        bootstrap_mean_interval(values, level=0.95, rng=rng(seed), num_resamples=199) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0], [[1.0, 2.0]]])
def test_incomplete_values_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        bootstrap_mean_interval(values, level=0.95, rng=rng())


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_impossible_levels_are_refused(level):
    with pytest.raises(ValueError, match=f"between 0 and 1.*{level}"):
        bootstrap_mean_interval([1.0, 2.0], level=level, rng=rng())


@pytest.mark.parametrize(
    ("low", "high", "excludes_zero", "within_one"),
    [(0.1, 0.2, True, True), (-0.2, -0.1, True, True), (-0.1, 0.1, False, True), (0.5, 1.5, True, False)],
)
def test_an_interval_knows_where_it_lies(low, high, excludes_zero, within_one):
    interval = Interval(low=low, high=high, level=0.95, n=8, method="given")
    assert interval.excludes(0.0) is excludes_zero
    assert interval.lies_within(1.0) is within_one


def test_seeds_that_differ_as_a_whole_give_the_interval_over_seeds():
    per_seed_S, tokens_E = rng().normal(0.1, 0.02, size=10), rng().integers(5, 60, size=100)
    found = hierarchical_bootstrap_interval(
        per_seed_S[:, None] * tokens_E, np.zeros((10, 100)), tokens_E, level=0.95, rng=rng()
    )
    expected = t_mean_interval(per_seed_S, level=0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02 * width(expected))
    assert found.n == 10


def test_examples_that_differ_alike_in_all_seeds_are_not_averaged_away():
    """The reason for a crossed design: more seeds on the same examples know no more about other examples."""
    tokens_E = rng().integers(5, 60, size=400)
    effect_E = rng(1).normal(0.0, 0.5, size=400) * tokens_E
    ratio = effect_E.sum() / tokens_E.sum()
    standard_error = np.std(effect_E - ratio * tokens_E, ddof=1) / tokens_E.mean() / math.sqrt(400)
    for num_seeds in (2, 8):
        loss_SE = np.tile(effect_E, (num_seeds, 1))
        found = hierarchical_bootstrap_interval(
            loss_SE + 7, np.full_like(loss_SE, 7.0), tokens_E, level=0.95, rng=rng()
        )
        assert width(found) == pytest.approx(2 * 1.966 * standard_error, rel=0.05)
        assert (found.low + found.high) / 2 == pytest.approx(ratio)


# 95 % +- 4.5 standard errors of 300 studies; a plain percentile interval covers in 75 % (seeds) to 94 % (examples).
@pytest.mark.parametrize(("seed_sd", "example_sd"), [(1.0, 0.0), (1.0, 3.0), (0.05, 3.0)])
def test_crossed_interval_of_few_seeds_covers_the_truth(seed_sd, example_sd):
    source, num_studies, covered = rng(5), 300, 0
    for _ in range(num_studies):
        tokens_E = source.integers(5, 60, size=40)
        effect_SE = (
            source.normal(0, seed_sd, (3, 1)) + source.normal(0, example_sd, 40) + source.normal(0, 0.3, (3, 40))
        )
        found = hierarchical_bootstrap_interval(
            effect_SE * tokens_E, np.zeros((3, 40)), tokens_E, level=0.95, rng=source, num_resamples=399
        )
        covered += not found.excludes(0.0)
    assert 0.89 < covered / num_studies < 0.995


def test_batches_do_not_change_the_distribution(monkeypatch):
    loss_SE, tokens_E = rng().normal(size=(6, 30)), np.full(30, 10)
    whole = hierarchical_bootstrap_interval(loss_SE, np.zeros((6, 30)), tokens_E, level=0.95, rng=rng(1))
    monkeypatch.setattr(intervals, "_BATCH_VALUES", 30_000)
    parts = hierarchical_bootstrap_interval(loss_SE, np.zeros((6, 30)), tokens_E, level=0.95, rng=rng(2))
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.1 * width(whole))


def test_one_seed_and_equal_arms_are_said_to_give_no_interval():
    loss_SE, tokens_E = rng().normal(size=(4, 20)), np.full(20, 10)
    one = hierarchical_bootstrap_interval(loss_SE[:1], loss_SE[1:2], tokens_E, level=0.95, rng=rng())
    assert math.isnan(one.low)
    assert one.method == "none: one seed"
    same = hierarchical_bootstrap_interval(loss_SE, loss_SE, tokens_E, level=0.95, rng=rng())
    assert (same.low, same.high) == (0.0, 0.0)
    assert "equal" in same.method


def test_losses_and_tokens_that_do_not_fit_together_are_refused():
    loss_SE, tokens_E = np.ones((4, 20)), np.full(20, 10)
    with pytest.raises(ValueError, match=r"\(4, 20\) and baseline losses \(4, 19\)"):
        hierarchical_bootstrap_interval(loss_SE, loss_SE[:, 1:], tokens_E, level=0.95, rng=rng())
    with pytest.raises(ValueError, match="19 counts for 20 examples"):
        hierarchical_bootstrap_interval(loss_SE, loss_SE, tokens_E[1:], level=0.95, rng=rng())
    with pytest.raises(ValueError, match=r"must be positive.*smallest 0"):
        hierarchical_bootstrap_interval(loss_SE, loss_SE, tokens_E * (np.arange(20) > 0), level=0.95, rng=rng())
    broken_SE = loss_SE.copy()
    broken_SE[2, 3] = math.nan
    with pytest.raises(ValueError, match="baseline losses holds 1 of 80"):
        hierarchical_bootstrap_interval(loss_SE, broken_SE, tokens_E, level=0.95, rng=rng())
