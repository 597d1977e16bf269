"""Each strategy's rule, and what a study file may say about it. The contract runs in tests/testing."""

import re
from pathlib import Path

import numpy as np
import pytest

from rankwise.allocation import STRATEGIES, Scaling, Signal, SiteView, allocate, build_strategy, resolve_budget
from rankwise.allocation.strategies import name_of
from rankwise.errors import AllocationError
from rankwise.testing import example_view

PAGE = Path(__file__).parents[2] / "docs" / "add-a-strategy.md"
VIEW = example_view(5)
IS_ATTENTION_L = np.array([kind == "attention" for kind in VIEW.kinds])


def preferences(name: str, view: SiteView = VIEW, **settings) -> np.ndarray:
    return build_strategy(name, settings).ideal_ranks(view)


def ranks(name: str, rank: int = 8, view: SiteView = VIEW, **settings) -> np.ndarray:
    strategy = build_strategy(name, settings)
    return np.array(
        allocate(strategy, view, budget_params=resolve_budget(view.sites, rank=rank), scaling=Scaling()).ranks
    )


def by_layer(values_L: np.ndarray) -> list[float]:
    rows = values_L.reshape(5, -1)
    assert (rows == rows[:, :1]).all()
    return rows[:, 0].tolist()


def test_uniform_is_the_same_rank_everywhere():
    assert set(ranks("uniform", rank=7).tolist()) == {7}


def test_linear_strategies_go_from_first_to_last_and_mirror_each_other():
    assert by_layer(preferences("linear_decay")) == [1.5, 1.25, 1.0, 0.75, 0.5]
    assert by_layer(preferences("linear_growth")) == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert by_layer(ranks("linear_decay")) == [12, 10, 8, 6, 4]
    assert by_layer(preferences("linear_decay", first=1, last=0)) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_growth_from_zero_is_uniform_where_there_is_only_one_block():
    assert preferences("linear_growth", example_view(1), first=0).tolist() == [1.0] * 5


def test_a_kind_gets_its_ratio():
    np.testing.assert_array_equal(preferences("attention_heavy", ratio=3), np.where(IS_ATTENTION_L, 3.0, 1.0))
    np.testing.assert_array_equal(preferences("mlp_heavy"), np.where(IS_ATTENTION_L, 1.0, 2.0))


def test_empirical_is_proportional_to_the_gradient_and_to_its_power():
    gradient_L = VIEW.signals[Signal.GRADIENT_RMS]
    for power in (1.0, 0.5, 2.0):
        ratio_L = preferences("empirical", power=power) / gradient_L**power
        np.testing.assert_allclose(ratio_L, ratio_L[0], rtol=1e-12)


@pytest.mark.parametrize("level", [1e-200, 1e200])
def test_empirical_does_not_care_about_the_scale_of_the_loss(level):
    tiny = SiteView(sites=VIEW.sites, signals={Signal.GRADIENT_RMS: VIEW.signals[Signal.GRADIENT_RMS] * level})
    np.testing.assert_array_equal(ranks("empirical", view=tiny, power=2), ranks("empirical", power=2))


def test_random_is_log_uniform_within_its_contrast():
    drawn = np.concatenate([preferences("random", draw=draw, contrast=9.0) for draw in range(200)])
    share = np.log(drawn) / np.log(9.0)
    assert 0 <= share.min() < 0.01
    assert 0.99 < share.max() <= 1
    histogram, _ = np.histogram(share, bins=5, range=(0, 1))
    # 25 sites in 200 draws: 1000 per bin expected, standard deviation 28.
    assert np.abs(histogram - 1000).max() < 5 * 28


def test_random_draws_differ_and_a_site_keeps_its_draw_among_other_sites():
    assert not np.array_equal(preferences("random", draw=0), preferences("random", draw=1))
    fewer = SiteView(sites=VIEW.sites[3:9])
    np.testing.assert_array_equal(preferences("random", fewer), preferences("random")[3:9])


def test_shuffled_deals_out_the_same_preferences_to_other_sites():
    original_L, shuffled_L = preferences("empirical"), preferences("shuffled", of="empirical")
    np.testing.assert_array_equal(np.sort(original_L), np.sort(shuffled_L))
    assert (original_L == shuffled_L).sum() < 5
    assert not np.array_equal(shuffled_L, preferences("shuffled", of="empirical", draw=1))


def test_every_site_is_as_likely_to_get_any_preference():
    first_got = [preferences("shuffled", of="linear_decay", draw=draw)[0] for draw in range(500)]
    _, counts = np.unique(first_got, return_counts=True)
    assert counts.size == 5
    assert np.abs(counts - 100).max() < 5 * 9  # standard deviation 8.9


def test_inverted_reverses_the_order_and_keeps_the_preferences():
    original_L, inverted_L = preferences("empirical"), preferences("inverted", of="empirical")
    np.testing.assert_array_equal(np.sort(original_L), np.sort(inverted_L))
    np.testing.assert_array_equal(np.argsort(original_L), np.argsort(inverted_L)[::-1])


def test_inverted_decay_is_growth_and_uniform_stays_uniform():
    np.testing.assert_allclose(preferences("inverted", of="linear_decay"), preferences("linear_growth"))
    assert set(ranks("inverted", of="uniform").tolist()) == {8}


def test_sites_that_were_equal_stay_equal_when_inverted():
    inverted_L = preferences("inverted", of={"strategy": "attention_heavy", "ratio": 4.0})
    (attention,), (mlp,) = set(inverted_L[IS_ATTENTION_L]), set(inverted_L[~IS_ATTENTION_L])
    # Fifteen attention sites share ten ones and five fours; the ten MLP sites get fours.
    assert (attention, mlp) == (2.0, 4.0)


def test_inverting_survives_zeros():
    inverted_L = preferences("inverted", of={"strategy": "linear_decay", "first": 1, "last": 0})
    assert by_layer(inverted_L) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_controls_need_what_the_strategy_they_distort_needs():
    for control in ("shuffled", "inverted"):
        assert build_strategy(control, {"of": "empirical"}).required_signals() == {Signal.GRADIENT_RMS}
        assert build_strategy(control, {"of": "linear_decay"}).required_signals() == frozenset()
        assert STRATEGIES[control].is_control


def test_a_control_is_stored_with_all_settings_of_what_it_distorts():
    stored = build_strategy("shuffled", {"of": {"strategy": "linear_decay", "first": 2.0}, "draw": 3}).model_dump(
        mode="json"
    )
    assert stored == {"of": {"strategy": "linear_decay", "first": 2.0, "last": 0.5}, "draw": 3}
    assert build_strategy("shuffled", stored) == build_strategy("shuffled", stored)


def test_every_strategy_knows_its_name_and_has_defaults():
    for name in STRATEGIES:
        assert name_of(build_strategy(name, {})) == name


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("unifrom", {}, ["'unifrom'", "did you mean 'uniform'", *STRATEGIES]),
        ("linear_decay", {"frist": 2}, ["'frist'", "did you mean 'first'", "first, last"]),
        ("linear_decay", {"first": 0.1}, ["last (0.5)", "first (0.1)", "linear_growth"]),
        ("linear_growth", {"first": 3}, ["first (3.0)", "linear_decay"]),
        ("linear_decay", {"first": "high"}, ["first", "'high'", "number"]),
        ("linear_decay", {"first": float("nan")}, ["first", "nan", "finite"]),
        ("attention_heavy", {"ratio": 0.5}, ["ratio", "0.5", "greater than or equal to 1"]),
        ("empirical", {"power": 0}, ["power", "greater than 0"]),
        ("random", {"draw": -1, "contrast": 1}, ["draw = -1", "contrast = 1"]),
        ("uniform", {"rank": 8}, ["uniform", "'rank'", "none"]),
        ("shuffled", {"of": "linear_dekay"}, ["of = 'linear_dekay'", "did you mean 'linear_decay'"]),
        ("shuffled", {"of": "random"}, ["of = 'random'", "control of a control"]),
        ("inverted", {"of": {"strategy": "shuffled"}}, ["control of a control"]),
        ("inverted", {"of": {"strategy": "linear_decay", "fist": 1}}, ["'fist'", "did you mean 'first'"]),
        ("inverted", {"of": {"first": 1}}, ["'strategy'"]),
        ("inverted", {"of": 3}, ["of = 3", "name of a strategy"]),
    ],
)
def test_what_is_not_a_strategy_or_a_setting_is_named_with_what_is(name, settings, words):
    with pytest.raises(AllocationError) as error:
        build_strategy(name, settings)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_the_page_lists_every_strategy_with_its_settings_and_defaults():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert list(rows) == list(STRATEGIES)
    for name, settings in rows.items():
        assert re.findall(r"`(\w+)`", settings) == list(STRATEGIES[name].model_fields)
        for setting, told in re.findall(r"`(\w+)` ([\w.]+)", settings):
            assert str(STRATEGIES[name].model_fields[setting].default) == told


def test_the_page_lists_every_signal_with_its_shape():
    rows = dict(re.findall(r"^\| `Signal\.(\w+)` \| \((L, K|L,)\)", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == {signal.name: "L, K" if signal.is_spectrum else "L," for signal in Signal}
