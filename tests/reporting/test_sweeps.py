"""Answers in words for arms that differ in one setting alone, and the figure of what loss costs."""

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.figures.loss_against_params import draw_loss_against_params
from rankwise.reporting.figures.pareto import cost_axes, draw_pareto
from rankwise.reporting.sweeps_section import answers_section
from rankwise.reporting.values import SoloCost

RANKS = tuple(
    {"name": f"rank-{rank}", "strategy": "uniform", "rank": rank, "effect": effect}
    for rank, effect in ((4, 0.3), (2, 0.5), (8, 0.2), (16, 0.19))
)
SETS = (
    {"name": "all-linear", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "attention", "strategy": "uniform", "rank": 8, "effect": 0.1},
    {"name": "mlp", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "attention-r4", "strategy": "uniform", "rank": 4, "effect": 0.2},
)
BITS = (
    {"name": "none-r8", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "nf4-r8", "strategy": "uniform", "rank": 8, "effect": 0.05},
    {"name": "none-r16", "strategy": "uniform", "rank": 16, "effect": -0.1},
    {"name": "nf4-r16", "strategy": "uniform", "rank": 16, "effect": -0.04},
)


def with_settings(results, change):
    """The study with `change(arm settings)` merged into each arm's."""
    arms = [arm | change(arm["name"]) for arm in results.study["arms"]]
    return replace(results, study={**results.study, "arms": arms})


def alone(results, wall_s):
    """Each arm's first reported seed trained alone, in `wall_s(arm)` seconds."""
    first = results.study["seeds"][0]
    runs = [
        replace(run, pack_slots=1, wall_s=wall_s(run.arm), peak_memory_bytes=int(wall_s(run.arm) * 2**20))
        if run.seed == first
        else run
        for run in results.runs
    ]
    return replace(results, runs=tuple(runs))


@pytest.fixture(scope="module")
def ranks(build_study):
    return build_study(RANKS, num_seeds=8, num_layers=2)


@pytest.fixture(scope="module")
def sets(build_study):
    targets = {"attention": "attention", "attention-r4": "attention", "mlp": ["up_proj", "down_proj"]}
    study = build_study(SETS, num_seeds=8, num_layers=2)
    return with_settings(study, lambda arm: {"targets": targets.get(arm, "all-linear")})


@pytest.fixture(scope="module")
def bits(build_study):
    study = build_study(BITS, num_seeds=8, num_layers=2)
    return with_settings(study, lambda arm: {"base": {"model": "nano", "quantization": arm.split("-")[0]}})


def losses(results, arm):
    return np.array([run.scores["test_loss"] for run in results.reported(arm)])


def test_a_study_of_uniform_maps_needs_no_control(ranks):
    assert not any("No control" in sentence for sentence in compare_arms(ranks).warnings)


def test_each_rank_is_set_against_the_next_lower_and_the_last_against_the_first(ranks):
    (sweep,) = compare_arms(ranks).sweeps
    assert list(sweep.levels) == ["rank-2", "rank-4", "rank-8", "rank-16"], "in rising order, whatever the file's"
    pairs = [(c.arm, c.reference) for c in sweep.contrasts]
    assert pairs == [*((b, a) for a, b in itertools.pairwise(sweep.levels)), ("rank-16", "rank-2")]
    for contrast in sweep.contrasts:
        expected = (losses(ranks, contrast.arm) - losses(ranks, contrast.reference)).mean()
        assert contrast.estimate.value == pytest.approx(expected)
        assert contrast.estimate.low < expected < contrast.estimate.high


def test_against_the_baseline_a_contrast_is_the_arms_own_difference(sets):
    comparison = compare_arms(sets)
    contrast = comparison.sweeps[0].contrast("attention", "all-linear")
    assert contrast.estimate == comparison.arm("attention").difference.estimate


def test_the_bend_is_the_gain_of_the_upper_half_minus_that_of_the_lower(ranks):
    (sweep,) = compare_arms(ranks).sweeps
    lower = (losses(ranks, "rank-2") - losses(ranks, "rank-8")) / 2
    upper = losses(ranks, "rank-8") - losses(ranks, "rank-16")
    assert sweep.bend.value == pytest.approx((upper - lower).mean())
    assert sweep.bend.high < 0


def test_the_answer_about_ranks_says_gain_steps_rates_and_costs(ranks):
    comparison = compare_arms(alone(ranks, lambda arm: 10.0 + len(arm)))
    text = answers_section(comparison)
    (sweep,) = comparison.sweeps
    overall = sweep.contrast("rank-16", "rank-2").estimate
    assert f"**Rank 2 to 16** lowers test loss by {-overall.value:.4f} [" in text
    assert f"{overall.value / 3:.4f}".replace("-", "−") + " per doubling of the rank" in text
    last = sweep.contrast("rank-16", "rank-8").estimate.value
    assert f"8 → 16: −{-last:.4f} [" in text
    assert "Doublings buy less as the rank grows" in text
    assert "Best learning rate (alpha / r, alpha 16): 3e-4 at every rank." in text
    assert (
        "a run of rank 2 takes 16 MiB and 16.0 s of wall time, one of rank 16 17 MiB and 17.0 s of wall time." in text
    )


def test_learning_rates_that_differ_are_listed_with_their_ranks(build_study):
    rates = {"rank-4": 1e-3, "rank-2": 1e-3, "rank-8": 3e-4, "rank-16": 3e-4}
    arms = tuple(arm | {"chosen": rates[arm["name"]]} for arm in RANKS)
    text = answers_section(compare_arms(build_study(arms, num_seeds=2, num_layers=1)))
    assert "3e-4 at rank 8, 16; 1e-3 at rank 2, 4: within a factor of 3.33, where ranks differ by a factor of 8" in text
    assert "some lie at the edge of the list" in text


def test_layers_are_compared_at_equal_parameters_and_at_equal_rank(sets):
    comparison = compare_arms(sets)
    held = [sweep.held for sweep in comparison.sweeps]
    budget = comparison.arm("all-linear").budget_params
    assert held == [f"at equal parameters ({budget:,})", "at equal rank (8)"]
    at_params = comparison.sweeps[0]
    assert at_params.levels == {"all-linear": "all-linear", "attention": "attention", "mlp": "up_proj, down_proj"}
    text = answers_section(comparison)
    assert f"**At equal parameters ({budget:,})**, test loss against all-linear" in text
    assert f"attention (rank 8) +{at_params.contrast('attention', 'all-linear').estimate.value:.4f} [+0.0" in text
    assert "mlp (rank 8)" in text
    assert text.index("mlp (rank 8)") < text.index("attention (rank 8)"), "the best first"
    assert "attention-r4" not in text, "no other arm has its budget or its rank"


def test_mlp_is_also_set_against_attention(sets):
    study = with_settings(
        sets, lambda arm: {"targets": {"mlp": "mlp", "attention": "attention"}.get(arm, "all-linear")}
    )
    comparison = compare_arms(study)
    contrast = comparison.sweeps[0].contrast("mlp", "attention")
    assert contrast.estimate.value == pytest.approx((losses(sets, "mlp") - losses(sets, "attention")).mean())
    assert f" mlp against attention: −{-contrast.estimate.value:.4f} [−0.1" in answers_section(comparison)


def test_bits_are_compared_rank_by_rank_with_what_they_save(bits):
    comparison = compare_arms(alone(bits, lambda arm: 40.0 if "nf4" in arm else 20.0))
    assert [sweep.held for sweep in comparison.sweeps] == ["at rank 8", "at rank 16"]
    text = answers_section(comparison)
    assert "**nf4** at rank 8 raises test loss by 0.05" in text
    assert "a run takes 40 MiB and 40.0 s of wall time instead of 20 MiB and 20.0 s of wall time." in text
    assert "**nf4** at rank 16 raises test loss by 0.06" in text


def test_a_difference_that_could_be_nothing_is_not_told_apart(build_study):
    arms = ({**SETS[0]}, {**SETS[1], "effect": 0.0})
    study = with_settings(build_study(arms, num_seeds=8, num_layers=2), lambda arm: {"targets": arm})
    assert "(not told apart)" in answers_section(compare_arms(study))


def test_a_study_of_allocations_has_no_sweep(full_study):
    comparison = compare_arms(full_study)
    assert comparison.sweeps == ()
    assert answers_section(comparison) == ""
    assert cost_axes(comparison) == [], "two budgets and no run alone"


def test_an_unfinished_sweep_says_what_it_can(build_study):
    study = build_study(
        RANKS, num_seeds=3, num_layers=2,
        status_of=lambda arm, purpose, rate, seed: "pending" if arm == "rank-4" and purpose == "report" else "finished",
    )  # fmt: skip
    comparison = compare_arms(study)
    (sweep,) = comparison.sweeps
    assert sweep.bend is None
    assert [(c.arm, c.reference) for c in sweep.contrasts] == [("rank-16", "rank-8"), ("rank-16", "rank-2")]
    assert "Step by step: 8 → 16" in answers_section(comparison)


def test_costs_of_runs_that_were_trained_alone_are_the_arms_own(ranks):
    comparison = compare_arms(alone(ranks, lambda arm: 10.0 + len(arm)))
    assert comparison.arm("rank-16").solo == SoloCost(
        num_runs=1, wall_s=17.0, peak_memory_bytes=17 * 2**20, predicted_memory_bytes=702_545_920
    )
    assert compare_arms(ranks).arm("rank-16").solo is None


def test_the_pareto_figure_has_a_panel_a_known_cost_and_its_numbers(ranks, tmp_path):
    results = alone(ranks, lambda arm: 10.0 + len(arm))
    comparison = compare_arms(results)
    files = draw_pareto(results, comparison, tmp_path)
    with files.csv.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["axis"] for row in rows[::4]] == ["params", "memory", "time"]
    assert {row["arm"] for row in rows} == {arm["name"] for arm in RANKS}
    baseline, other = rows[0], next(row for row in rows if row["arm"] == "rank-16")
    assert baseline["low_nats"] == ""
    assert [row["on_front"] for row in rows[:4]] == ["1"] * 4, "each rank is better than all that cost less"
    assert all(0.8 < float(row["on_front_frac"]) <= 1 for row in rows if row["axis"] == "params")
    assert float(other["low_nats"]) < float(other["test_loss_nats"]) < float(other["high_nats"])
    assert files.png.stat().st_size > 5000
    assert "1 of each arm" in files.caption
    assert draw_loss_against_params(results, comparison, tmp_path) is None, "the first panel shows it"


def test_without_runs_alone_the_figure_says_that_memory_and_time_are_not_known(ranks, tmp_path):
    comparison = compare_arms(ranks)
    assert [axis.name for axis in cost_axes(comparison)] == ["params"]
    assert "--solo-first" in draw_pareto(ranks, comparison, tmp_path).caption
