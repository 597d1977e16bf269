from dataclasses import replace

import numpy as np
import pytest

from rankwise.statistics.intervals import Interval
from rankwise.statistics.paired import PairedComparison, compare_paired
from rankwise.statistics.verdict import verdict


def comparison(mean, low, high, *, equivalence_p=0.9, margin=0.005, n=8, sd=0.01):
    return PairedComparison(
        mean_difference=mean,
        interval=Interval(low=low, high=high, level=0.95, n=n, method="given"),
        p_value=0.01,
        smallest_p=2 / 2**n,
        sd_of_differences=sd,
        effect_size=mean / sd,
        probability_of_improvement=0.5,
        equivalence_margin=margin,
        equivalence_p=equivalence_p,
        n=n,
        level=0.95,
        method="given",
    )


@pytest.mark.parametrize(
    ("given", "adjusted_p", "word"),
    [
        pytest.param(comparison(-0.03, -0.04, -0.02), 0.03, "better", id="significant, lower"),
        pytest.param(comparison(0.03, 0.02, 0.04), 0.03, "worse", id="significant, higher"),
        pytest.param(comparison(-0.03, -0.04, -0.02), 0.05, "better", id="p exactly at the level"),
        pytest.param(comparison(-0.03, -0.04, -0.02), 0.06, "undecided", id="not significant after Holm"),
        pytest.param(comparison(-0.03, -0.07, 0.01), 0.03, "undecided", id="significant, interval holds zero"),
        pytest.param(
            comparison(0.0, -0.002, 0.002, equivalence_p=0.01), 1.0, "practically the same", id="small, not significant"
        ),
        pytest.param(
            comparison(-0.003, -0.004, -0.002, equivalence_p=0.01), 0.03, "practically the same", id="small and real"
        ),
        pytest.param(
            comparison(0.0, -0.02, 0.02, equivalence_p=0.01), 1.0, "undecided", id="interval beyond the margin"
        ),
        pytest.param(comparison(0.0, -0.004, 0.004, equivalence_p=0.06), 1.0, "undecided", id="TOST does not reject"),
        pytest.param(
            comparison(0.0, float("nan"), float("nan"), equivalence_p=0.01), 0.01, "undecided", id="no interval"
        ),
    ],
)
def test_each_word_has_its_conditions(given, adjusted_p, word):
    found = verdict(given, adjusted_p, num_comparisons=5)
    assert found.word == word
    assert found.sentence.startswith(word)
    assert (found.seeds_to_decide is not None) == (word == "undecided")
    assert found.n == 8


def test_a_real_difference_within_the_margin_is_said_to_be_both():
    real = verdict(comparison(-0.003, -0.004, -0.002, equivalence_p=0.01), 0.03)
    assert "there is a difference, and it is smaller than 0.005" in real.sentence
    none = verdict(comparison(0.0, -0.004, 0.004, equivalence_p=0.01), 1.0)
    assert "any difference is smaller than 0.005" in none.sentence


def test_the_number_of_seeds_that_would_decide_follows_spread_and_size():
    def seeds(mean, sd):
        return verdict(comparison(mean, -0.1, 0.1, sd=sd), 1.0, num_comparisons=5).seeds_to_decide

    assert seeds(0.0, 0.01) == seeds(0.004, 0.01) == seeds(-0.005, 0.01) > seeds(0.01, 0.01)
    assert seeds(0.0, 0.02) > 3 * seeds(0.0, 0.01)


def test_more_seeds_than_there_are_is_always_the_answer():
    found = verdict(comparison(-0.03, -0.04, 0.001, sd=0.001), 1.0)
    assert found.seeds_to_decide == 9


def test_too_few_seeds_for_the_family_are_named():
    found = verdict(comparison(-0.5, -0.6, -0.4, n=3, sd=0.01), 1.0, num_comparisons=5)
    assert found.sentence.startswith("undecided at 3 seeds; fewer than 8 cannot show any difference in a family of 5")
    assert found.seeds_to_decide == 8


def test_one_seed_is_undecided_without_a_guess():
    one = compare_paired([1.0], [2.0], level=0.95, equivalence_margin=0.01, rng=np.random.default_rng(0))
    found = verdict(one, 1.0)
    assert (found.word, found.seeds_to_decide) == ("undecided", None)
    assert found.sentence.startswith("undecided at 1 seed;")


def test_identical_arms_are_practically_the_same():
    losses = np.linspace(3.0, 3.1, 8)
    same = compare_paired(losses, losses, level=0.95, equivalence_margin=0.01, rng=np.random.default_rng(0))
    assert verdict(same, 1.0).word == "practically the same"


def test_a_wider_interval_in_its_place_withholds_the_claim():
    better = comparison(-0.03, -0.04, -0.02)
    assert verdict(better, 0.03).word == "better"
    over_examples = Interval(low=-0.07, high=0.01, level=0.95, n=8, method="crossed bootstrap")
    assert verdict(replace(better, interval=over_examples), 0.03).word == "undecided"


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_an_adjusted_p_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match="adjusted_p must lie between 0 and 1"):
        verdict(comparison(-0.03, -0.04, -0.02), p)
