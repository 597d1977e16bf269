import itertools
import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from rankwise.statistics.power import minimum_detectable_difference, seeds_needed, smallest_decidable_n


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("num_comparisons", [1, 2, 5, 9, 40])
def test_one_seed_fewer_than_the_smallest_decidable_number_could_not_reject(level, num_comparisons):
    n = smallest_decidable_n(num_comparisons, level)
    assert 2 / 2**n <= (1 - level) / num_comparisons < 2 / 2 ** (n - 1)


def test_the_usual_family_of_five_needs_eight_seeds():
    assert smallest_decidable_n(5, 0.95) == 8
    assert smallest_decidable_n(1, 0.95) == 6


def test_with_many_seeds_the_power_is_that_of_the_t_test():
    found = minimum_detectable_difference(0.02, 40, level=0.95)
    assert found.difference == pytest.approx(0.02 * TTestPower().solve_power(nobs=40, alpha=0.05, power=0.8), rel=1e-3)
    assert seeds_needed(1.0, 0.3, level=0.95).n == math.ceil(TTestPower().solve_power(0.3, alpha=0.05, power=0.8))


# At 8 seeds in a family of five all seeds must agree: the stated power is exact. One seed more it is optimistic.
@pytest.mark.parametrize(("n", "low", "high"), [(8, 0.77, 0.83), (9, 0.66, 0.8), (11, 0.74, 0.83)])
def test_the_detectable_difference_is_detected_as_often_as_stated(n, low, high):
    effect = minimum_detectable_difference(1.0, n, level=0.95, num_comparisons=5).difference
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    differences = np.random.default_rng(n).normal(effect, 1.0, size=(1000, n))
    sums = np.abs(differences @ signs.T)
    p_values = (sums >= np.abs(differences.sum(axis=1, keepdims=True)) - 1e-9).mean(axis=1)
    assert low < (p_values <= 0.05 / 5).mean() < high


@pytest.mark.parametrize("num_comparisons", [1, 5, 9])
@pytest.mark.parametrize("n", [9, 10, 12, 16, 17, 18, 30, 200])
def test_seeds_needed_undoes_the_detectable_difference(n, num_comparisons):
    difference = minimum_detectable_difference(0.02, n, level=0.95, num_comparisons=num_comparisons).difference
    assert seeds_needed(0.02, -1.0001 * difference, level=0.95, num_comparisons=num_comparisons).n == n
    assert seeds_needed(0.02, 0.9999 * difference, level=0.95, num_comparisons=num_comparisons).n == n + 1


def test_too_few_seeds_detect_nothing_however_large():
    assert minimum_detectable_difference(0.02, 7, level=0.95, num_comparisons=5).difference is None
    assert seeds_needed(0.02, 1000.0, level=0.95, num_comparisons=5).n == 8
    assert seeds_needed(0.0, 1e-9, level=0.95, num_comparisons=5).n == 8


def test_more_seeds_or_fewer_comparisons_detect_less():
    def detect(n, m):
        return minimum_detectable_difference(1.0, n, level=0.95, num_comparisons=m).difference

    by_seeds = [detect(n, 5) for n in range(8, 40)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    by_family = [detect(12, m) for m in range(1, 30)]
    assert by_family == sorted(by_family)


def test_a_tiny_difference_needs_very_many_seeds():
    assert seeds_needed(1.0, 1e-4, level=0.95).n == pytest.approx((1.959964 + 0.841621) ** 2 * 1e8, rel=1e-3)


def test_results_state_their_assumptions():
    found = seeds_needed(0.02, 0.01, level=0.9, power=0.9, num_comparisons=3)
    assert (found.sd_of_differences, found.difference, found.level, found.power) == (0.02, 0.01, 0.9, 0.9)
    assert "sign-flip" in found.method


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: seeds_needed(0.02, 0.0, level=0.95), "difference must be finite and not zero"),
        (lambda: seeds_needed(-0.02, 0.1, level=0.95), "sd_of_differences .* got -0.02"),
        (lambda: seeds_needed(math.nan, 0.1, level=0.95), "sd_of_differences .* got nan"),
        (lambda: seeds_needed(0.02, 0.1, level=0.95, power=1.0), "power .* got 1.0"),
        (lambda: seeds_needed(0.02, 0.1, level=1.0), "level .* got 1.0"),
        (lambda: minimum_detectable_difference(0.02, 0, level=0.95), "n must be at least 1, got 0"),
        (lambda: smallest_decidable_n(0, 0.95), "num_comparisons must be at least 1, got 0"),
        (lambda: smallest_decidable_n(10_000, 0.95), "declare fewer comparisons"),
    ],
)
def test_impossible_questions_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
