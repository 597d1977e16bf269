"""Whether one seed would have told the same."""

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.ordering import ordering_section


def test_clear_effects_are_ordered_alike_by_every_seed(full_study):
    comparison = compare_arms(full_study)
    found = comparison.ordering
    assert found is not None
    assert "uniform-r16" not in found.arms  # its budget is another one
    assert found.tau.value > 0.5  # three of the five arms lie within the noise
    assert found.tau.low > 0
    assert found.p < 0.01
    assert found.first_frac["empirical"] == 1
    text = ordering_section(comparison)
    assert "Kendall's tau 0." in text or "Kendall's tau 1." in text
    assert "empirical 100" in text


def test_two_arms_or_one_seed_have_no_order(build_study):
    arms = ({"name": "uniform", "strategy": "uniform", "rank": 8, "effect": 0.0},) * 1
    one = build_study(arms, num_seeds=3, num_layers=1)
    assert compare_arms(one).ordering is None
    assert ordering_section(compare_arms(one)) == ""
