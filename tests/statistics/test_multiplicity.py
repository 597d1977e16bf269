"""Letters: M comparisons."""

import numpy as np
import pytest

from rankwise.statistics.multiplicity import holm


def holm_as_published(p_M, alpha):
    """Holm 1979: go through the p-values from the smallest, compare with alpha / (those left), stop at the first miss."""
    rejected_M = np.zeros(len(p_M), dtype=bool)
    for step, index in enumerate(np.argsort(p_M)):
        if p_M[index] > alpha / (len(p_M) - step):
            break
        rejected_M[index] = True
    return rejected_M


@pytest.mark.parametrize("seed", range(8))
def test_rejections_are_those_of_the_published_procedure(seed):
    p_M = np.random.default_rng(seed).beta(0.4, 4.0, size=6)
    found = holm(p_M, level=0.95)
    assert found.rejected_M.tolist() == holm_as_published(p_M, 0.05).tolist()
    assert (found.adjusted_p_M <= 0.05).tolist() == found.rejected_M.tolist()


def test_adjusted_p_are_in_the_order_given():
    assert holm([0.04, 0.01, 0.03], level=0.95).adjusted_p_M == pytest.approx([0.06, 0.03, 0.06])


def test_one_comparison_is_left_as_it_is():
    found = holm([0.03], level=0.95)
    assert found.adjusted_p_M == pytest.approx([0.03])
    assert (found.num_comparisons, found.method) == (1, "Holm over 1 comparison")


def test_a_comparison_that_could_not_be_made_still_counts():
    assert holm([0.02, 1.0, 1.0], level=0.95).adjusted_p_M[0] == pytest.approx(0.06)


@pytest.mark.parametrize(("p_M", "words"), [([], "non-empty"), ([0.1, float("nan")], "1 of 2"), ([1.2], "0 and 1")])
def test_what_is_no_family_of_p_values_is_refused(p_M, words):
    with pytest.raises(ValueError, match=words):
        holm(p_M, level=0.95)
