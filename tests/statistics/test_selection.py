"""Letters: R candidate rates, S tuning seeds."""

import math
import subprocess
import sys

import numpy as np
import pytest

from rankwise.statistics.selection import choose_learning_rate

RATES = [1e-4, 3e-4, 1e-3]


def test_the_smallest_mean_loss_wins():
    found = choose_learning_rate([[3.0, 3.2], [2.9, 3.0], [2.5, 3.6]], RATES)
    assert (found.rate, found.index, found.num_seeds, found.at_edge) == (3e-4, 1, 2, False)
    assert found.mean_losses_R == pytest.approx([3.1, 2.95, 3.05])


@pytest.mark.parametrize("diverged", [math.nan, math.inf])
def test_a_rate_that_diverged_on_one_seed_is_never_chosen(diverged):
    found = choose_learning_rate([[3.0, 3.2], [2.9, 3.0], [0.1, diverged]], RATES)
    assert found.rate == 3e-4
    assert math.isinf(found.mean_losses_R[2])


def test_of_equal_rates_the_smaller_is_taken_wherever_it_stands():
    assert choose_learning_rate([[3.0], [2.0], [2.0]], RATES).rate == 3e-4
    assert choose_learning_rate([[2.0], [2.0], [3.0]], RATES[::-1]).rate == 3e-4


@pytest.mark.parametrize(("losses", "at_edge"), [([1, 2, 3], True), ([2, 1, 3], False), ([3, 2, 1], True)])
def test_a_choice_at_the_end_of_the_list_is_flagged(losses, at_edge):
    found = choose_learning_rate(np.array(losses, dtype=float)[:, None], RATES)
    assert found.at_edge is at_edge


def test_the_ends_are_those_of_size_not_of_order():
    assert choose_learning_rate([[1.0], [2.0], [3.0]], [3e-4, 1e-3, 1e-4]).at_edge is False


def test_the_only_candidate_is_no_edge():
    assert choose_learning_rate([[2.0, 2.1]], [1e-4]).at_edge is False


def test_nothing_but_divergence_is_an_error_that_names_the_rates():
    with pytest.raises(ValueError, match=r"every learning rate diverged.*0\.0001, 0\.0003, 0\.001.*smaller"):
        choose_learning_rate([[math.nan], [math.inf], [math.nan]], RATES)


@pytest.mark.parametrize("losses", [[[1.0], [2.0]], [1.0, 2.0, 3.0], np.empty((3, 0))])
def test_losses_that_do_not_fit_the_rates_are_refused(losses):
    with pytest.raises(ValueError, match=r"\(rates, tuning seeds\)"):
        choose_learning_rate(losses, RATES)


def test_choosing_needs_neither_scipy_nor_statsmodels():
    code = "import sys, rankwise.statistics.selection; print({'scipy', 'statsmodels', 'torch'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
