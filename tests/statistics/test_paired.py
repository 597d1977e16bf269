"""Letters: S seeds."""

import itertools
import math
import pickle

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from rankwise.statistics.multiplicity import holm
from rankwise.statistics.paired import _monte_carlo_p, _sign_flip, compare_paired, smallest_p


def compare(treatment_S, baseline_S, *, margin=0.01, seed=0):
    return compare_paired(
        treatment_S, baseline_S, level=0.95, equivalence_margin=margin, rng=np.random.default_rng(seed)
    )


def two_arms(n, *, shift=0.0, luck=0.1, seed=0):
    source = np.random.default_rng(seed)
    baseline_S = source.normal(3.0, luck, size=n)
    return baseline_S + shift + source.normal(0.0, 0.02, size=n), baseline_S


def brute_force_p(difference_S):
    observed = abs(sum(difference_S))
    patterns = itertools.product((1, -1), repeat=len(difference_S))
    sums = [abs(sum(sign * value for sign, value in zip(signs, difference_S, strict=True))) for signs in patterns]
    return sum(value >= observed - 1e-12 for value in sums) / len(sums)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 10])
@pytest.mark.parametrize("shift", [0.0, 0.015])
def test_p_is_the_share_of_sign_patterns_at_least_as_extreme(n, shift):
    treatment_S, baseline_S = two_arms(n, shift=shift, seed=n)
    found = compare(treatment_S, baseline_S)
    assert found.p_value == pytest.approx(brute_force_p(treatment_S - baseline_S))
    assert f"all {2**n:,} sign patterns" in found.method


def test_p_counts_ties_between_patterns():
    differences = [0.1, 0.1, 0.1, -0.1, 0.2]
    assert compare(differences, np.zeros(5)).p_value == pytest.approx(brute_force_p(differences))


@pytest.mark.parametrize("n", [2, 5, 8])
def test_seeds_that_all_agree_give_the_smallest_p(n):
    found = compare(np.linspace(1, 2, n), np.zeros(n))
    assert found.p_value == found.smallest_p == 2 / 2**n


def test_more_than_sixteen_seeds_are_tested_by_random_patterns():
    treatment_S, baseline_S = two_arms(18, shift=0.008, seed=3)
    found = compare(treatment_S, baseline_S)
    assert "99,999 random sign patterns" in found.method
    assert found.p_value == pytest.approx(stats.ttest_rel(treatment_S, baseline_S).pvalue, rel=0.15)
    assert found.smallest_p == smallest_p(18) == 2e-5


@pytest.mark.parametrize("shift", [0.0, 0.01, -0.012])
def test_random_patterns_count_as_all_patterns_and_as_scipy_does(shift):
    treatment_S, baseline_S = two_arms(12, shift=shift, seed=4)
    difference_S = treatment_S - baseline_S
    found = _monte_carlo_p(difference_S, np.random.default_rng(0))
    by_scipy = stats.permutation_test(
        (difference_S,), np.mean, permutation_type="samples", vectorized=True, n_resamples=3999, rng=1
    ).pvalue
    assert found == pytest.approx(brute_force_p(difference_S), abs=0.005)
    assert found == pytest.approx(by_scipy, abs=0.03)


@pytest.mark.parametrize("n", [17, 200])
def test_many_seeds_that_all_agree_give_the_smallest_p_and_equal_arms_the_largest(n):
    assert compare(np.linspace(1, 2, n), np.zeros(n)).p_value == smallest_p(n)
    assert compare(np.ones(n), np.ones(n)).p_value == 1.0


def test_equivalence_is_statsmodels_tost():
    treatment_S, baseline_S = two_arms(7, shift=0.004)
    found = compare(treatment_S, baseline_S, margin=0.02)
    assert found.equivalence_p == pytest.approx(ttost_paired(treatment_S, baseline_S, -0.02, 0.02)[0])


def test_mean_spread_and_effect_size_follow_their_formulas():
    treatment_S, baseline_S = two_arms(9, shift=0.03)
    difference_S, found = treatment_S - baseline_S, compare(treatment_S, baseline_S)
    assert found.mean_difference == pytest.approx(np.mean(difference_S))
    assert found.sd_of_differences == pytest.approx(np.std(difference_S, ddof=1))
    cohens_d = np.mean(difference_S) / np.std(difference_S, ddof=1)
    assert found.effect_size == pytest.approx(cohens_d * (1 - 3 / (4 * 8 - 1)), rel=2e-3)
    assert found.interval.low < found.mean_difference < found.interval.high
    assert found.n == found.interval.n == 9


def test_effect_size_is_unbiased_for_normal_differences():
    source, num_free = np.random.default_rng(0), 4
    found = [compare_effect(source.normal(0.8, 1.0, size=num_free + 1)) for _ in range(500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.1)  # without the correction 1.0


def compare_effect(difference_S):
    return compare(difference_S, np.zeros(len(difference_S))).effect_size


def test_probability_of_improvement_is_the_share_of_lower_seeds_and_half_the_ties():
    assert compare([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 5.0]).probability_of_improvement == 0.625


def test_pairing_removes_the_luck_that_seeds_share():
    treatment_S, baseline_S = two_arms(8, shift=-0.05, luck=0.3)
    assert compare(treatment_S, baseline_S).p_value == 2 / 256
    assert stats.ttest_ind(treatment_S, baseline_S).pvalue > 0.1


def test_one_seed_gives_a_difference_and_nothing_else():
    found = compare([2.0], [2.5])
    assert (found.mean_difference, found.p_value, found.smallest_p) == (-0.5, 1.0, 1.0)
    assert all(map(math.isnan, (found.sd_of_differences, found.effect_size, found.equivalence_p, found.interval.low)))


def test_equal_arms_are_equivalent_without_an_effect_size():
    found = compare([2.0, 2.1, 2.2], [2.0, 2.1, 2.2])
    assert (found.p_value, found.equivalence_p, found.probability_of_improvement) == (1.0, 0.0, 0.5)
    assert math.isnan(found.effect_size)


def test_a_constant_difference_beyond_the_margin_is_not_equivalent():
    assert compare([2.5, 3.5, 4.5], [2.0, 3.0, 4.0], margin=0.5).equivalence_p == 1.0
    assert compare([2.5, 3.5, 4.5], [2.0, 3.0, 4.0], margin=0.51).equivalence_p == 0.0


def test_exchanging_the_arms_mirrors_the_comparison():
    treatment_S, baseline_S = two_arms(8, shift=0.01)
    one, other = compare(treatment_S, baseline_S), compare(baseline_S, treatment_S)
    assert one.mean_difference == -other.mean_difference
    assert (one.p_value, one.equivalence_p) == (other.p_value, pytest.approx(other.equivalence_p))
    assert one.probability_of_improvement == 1 - other.probability_of_improvement


# At 8 seeds and 5 comparisons Holm's first step admits only p = 2 / 256, so at most 3.9 % of null studies reject;
# without adjustment about 19 % of these do.
def test_null_studies_are_rejected_no_more_often_than_the_level_allows():
    source, num_studies, num_rejected = np.random.default_rng(1), 200, 0
    for _ in range(num_studies):
        baseline_S = source.normal(3.0, 0.02, size=8)
        p_M = [_sign_flip(source.normal(3.0, 0.02, size=8) - baseline_S, source)[0] for _ in range(5)]
        if min(p_M) <= 0.05:  # adjustment only raises p
            num_rejected += int(holm(p_M, level=0.95).rejected_M.any())
    assert num_rejected / num_studies < 0.09


@pytest.mark.parametrize(
    ("treatment", "baseline", "words"),
    [
        ([1.0, math.nan], [1.0, 2.0], "treatment holds 1 of 2 values that are not finite"),
        ([1.0, 2.0], [1.0, math.inf], "baseline holds 1 of 2"),
        ([1.0, 2.0], [1.0], "treatment has 2 values and baseline 1"),
        ([], [], "treatment must be a non-empty array"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(treatment, baseline, words):
    with pytest.raises(ValueError, match=words):
        compare(treatment, baseline)


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_that_is_not_positive_is_refused(margin):
    with pytest.raises(ValueError, match="equivalence_margin must be a positive number"):
        compare([1.0, 2.0], [2.0, 3.0], margin=margin)


def test_a_comparison_survives_pickling():
    found = compare(*two_arms(8))
    assert pickle.loads(pickle.dumps(found)) == found
