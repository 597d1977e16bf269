"""S = seeds, E = test examples."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from rankwise.reporting.comparison import compare_arms


@pytest.fixture(scope="module")
def comparison(full_study):
    return compare_arms(full_study)


@pytest.fixture(scope="module")
def trio(full_study):
    """The full study cut down to three arms, for tests that change it."""
    kept = ("uniform", "empirical", "random")
    arms = [settings for settings in full_study.study["arms"] if settings["name"] in kept]
    runs = tuple(run for run in full_study.runs if run.arm in kept)
    return replace(full_study, study={**full_study.study, "arms": arms}, runs=runs)


def losses(results, arm):
    return {run.seed: run.scores["test_loss"] for run in results.reported(arm)}


def with_losses(results, shift_of_arm, noise_of_arm):
    """The same study, each arm's test loss its baseline's plus a constant and some noise, scored without examples."""
    base = losses(results, "uniform")

    def moved(run):
        if run.purpose != "report":
            return run
        wiggle = np.random.default_rng([run.seed, len(run.arm)]).standard_normal()
        loss = base[run.seed] + shift_of_arm[run.arm] + noise_of_arm.get(run.arm, 0.001) * wiggle
        return replace(run, scores={**run.scores, "test_loss": loss}, example_loss_nats=None)

    return replace(results, runs=tuple(map(moved, results.runs)))


def test_differences_are_the_arm_minus_the_baseline_seed_by_seed(full_study, comparison):
    found = comparison.arm("empirical").difference
    mine, theirs = losses(full_study, "empirical"), losses(full_study, "uniform")
    assert found.seeds == tuple(sorted(mine))
    assert found.per_seed == tuple(mine[seed] - theirs[seed] for seed in found.seeds)
    assert found.estimate.value == pytest.approx(np.mean(found.per_seed))
    assert found.estimate.low < found.estimate.value < found.estimate.high
    assert found.improvement_frac == np.mean(np.array(found.per_seed) < 0)


def test_p_is_the_share_of_sign_patterns_and_is_adjusted_over_all_arms_but_the_baseline(comparison):
    arms = [arm for arm in comparison.arms if not arm.is_baseline]
    for arm in arms:
        patterns = np.array(list(product([-1, 1], repeat=5))) @ np.array(arm.difference.per_seed)
        observed = abs(sum(arm.difference.per_seed))
        assert arm.difference.p == pytest.approx(np.mean(np.abs(patterns) >= observed - 1e-12))
    adjusted = multipletests([arm.difference.p for arm in arms], method="holm")[1]
    assert [arm.difference.p_holm for arm in arms] == pytest.approx(list(adjusted))
    assert comparison.family == tuple(arm.name for arm in arms)


def test_a_comparison_that_cannot_be_made_yet_stays_in_the_family(build_study):
    def status_of(arm, purpose, rate, seed):
        return "pending" if arm in ("random", "empirical") and purpose == "report" else "finished"

    comparison = compare_arms(build_study(status_of=status_of))
    known = [arm.difference.p for arm in comparison.arms if arm.difference]
    adjusted = multipletests([*known, 1.0, 1.0], method="holm")[1][: len(known)]
    assert [arm.difference.p_holm for arm in comparison.arms if arm.difference] == pytest.approx(list(adjusted))
    assert comparison.arm("random").difference is None


def test_every_verdict_is_reached(build_study):
    shifts = {"uniform": 0.0, "linear_decay": 0.05, "empirical": -0.05, "random": 0.0, "attention_heavy": 0.004}
    study = build_study(num_seeds=8, num_layers=1)
    arms = [settings for settings in study.study["arms"] if settings["name"] in shifts]
    study = replace(
        study,
        study={**study.study, "arms": arms},
        runs=tuple(run for run in study.runs if run.arm in shifts),
    )
    comparison = compare_arms(with_losses(study, shifts, {"uniform": 0.0, "attention_heavy": 0.01}))
    outcomes = {arm.name: arm.difference.outcome for arm in comparison.arms if arm.difference}
    assert outcomes["linear_decay"] == "worse"
    assert outcomes["empirical"] == "better"
    assert outcomes["random"] == "practically the same"
    undecided = comparison.arm("attention_heavy").difference
    assert undecided.outcome == "undecided"
    assert undecided.seeds_to_decide > 8


def test_the_interval_is_over_seeds_and_examples_where_every_run_scored_the_same_ones(comparison):
    found = comparison.arm("empirical").difference.estimate
    assert "5 seeds and 80 examples" in found.method


@pytest.mark.parametrize(
    "change",
    [
        {"example_loss_nats": None},
        {"example_answer_tokens": np.full(80, 3)},
        {"example_loss_nats": np.full(80, np.nan)},
    ],
)
def test_the_interval_is_over_seeds_alone_where_one_run_scored_others(trio, change):
    runs = list(trio.runs)
    index = next(i for i, run in enumerate(runs) if run.arm == "empirical" and run.purpose == "report")
    runs[index] = replace(runs[index], **change)
    comparison = compare_arms(replace(trio, runs=tuple(runs)))
    assert "examples" not in comparison.arm("empirical").difference.estimate.method
    assert "examples" in comparison.arm("random").difference.estimate.method


def test_diverged_and_missing_seeds_leave_the_pairs_and_are_named(build_study):
    def status_of(arm, purpose, rate, seed):
        fates = {("empirical", 2): "diverged", ("empirical", 4): "failed", ("uniform", 5): "pending"}
        return fates.get((arm, seed), "finished")

    comparison = compare_arms(build_study(status_of=status_of))
    arm = comparison.arm("empirical")
    assert arm.difference.seeds == (1, 3)
    assert (arm.finished_seeds, arm.diverged_seeds, arm.missing_seeds) == ((1, 3, 5), (2,), (4,))
    assert arm.test_loss.num == 3
    assert len(arm.run_ids) == 3
    warnings = "\n".join(comparison.warnings)
    assert "empirical: 1 of 5 runs diverged (seed 2)" in warnings
    assert "empirical: 1 of 5 runs are missing (1 failed)" in warnings
    assert "uniform: 1 of 5 runs are missing (1 pending)" in warnings


def test_a_finished_run_whose_test_loss_is_no_number_is_in_no_mean(trio):
    runs = [
        replace(run, scores={**run.scores, "test_loss": float("nan")})
        if run.arm == "empirical" and run.purpose == "report" and run.seed == 1
        else run
        for run in trio.runs
    ]
    assert compare_arms(replace(trio, runs=tuple(runs))).arm("empirical").difference.seeds == (2, 3, 4, 5)


def test_nothing_is_invented_for_a_study_without_runs(build_study):
    comparison = compare_arms(build_study(tuned=False, status_of=lambda *_: "pending"))
    for arm in comparison.arms:
        assert (arm.test_loss, arm.difference, arm.ranks, arm.params, arm.wall_s, arm.learning_rate) == (None,) * 6
        assert [score.status for score in arm.seeds] == ["absent"] * 5
    assert comparison.minimum_detectable_nats is None


def test_one_seed_has_no_interval_no_p_and_no_verdict(build_study):
    comparison = compare_arms(build_study(num_seeds=1))
    found = comparison.arm("empirical").difference
    assert (found.estimate.low, found.p, found.p_holm, found.p_equivalence, found.effect_size) == (None,) * 5
    assert found.outcome == "undecided"
    assert any("One seed" in sentence for sentence in comparison.warnings)


def test_another_budget_is_compared_and_flagged(comparison):
    assert comparison.arm("uniform-r16").deviations == ("different budget",)
    assert comparison.arm("uniform-r16").difference is not None
    assert any("uniform-r16 has a different budget" in sentence for sentence in comparison.warnings)
    assert comparison.arm("linear_decay").deviations == ()


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("data", {"source": "alpaca", "max_tokens": 256}, "data"),
        ("base", {"model": "nano", "quantization": "nf4"}, "base model or quantization"),
        ("train", {"learning_rates": [1e-4, 3e-4, 1e-3], "epochs": 5, "batch_size": 4}, "training"),
        ("train", {"learning_rates": [3e-4], "epochs": 3, "batch_size": 4}, "learning rates"),
        ("scaling", {"rule": "rslora", "alpha": 16.0}, "scaling"),
    ],
)
def test_what_differs_beside_the_allocation_is_flagged(trio, key, value, word):
    arms = [
        {**settings, key: value} if settings["name"] == "empirical" else settings for settings in trio.study["arms"]
    ]
    changed = replace(trio, study={**trio.study, "arms": arms})
    assert compare_arms(changed).arm("empirical").deviations == (f"different {word}",)


def test_arms_that_differ_alike_share_a_sentence(trio):
    rates = {"learning_rates": [3e-4], "epochs": 3, "batch_size": 4}
    arms = [
        settings if settings["name"] == "uniform" else {**settings, "train": rates} for settings in trio.study["arms"]
    ]
    warnings = compare_arms(replace(trio, study={**trio.study, "arms": arms})).warnings
    assert sum("have different learning rates than the baseline: their" in sentence for sentence in warnings) == 1


def test_a_learning_rate_at_the_end_of_the_list_is_flagged(trio):
    def arm_at(rate):
        chosen = {**trio.chosen_learning_rates, "random": rate}
        return compare_arms(replace(trio, chosen_learning_rates=chosen)).arm("random")

    assert [arm_at(rate).learning_rate_edge for rate in (1e-4, 3e-4, 1e-3)] == ["lowest", None, "highest"]
    assert arm_at(1e-3).test_loss is None  # its runs were trained at another rate, so they are not its result


def test_tuning_shows_every_rate_with_its_runs(build_study):
    def status_of(arm, purpose, rate, seed):
        if (arm, purpose, rate) != ("random", "tuning", 1e-3):
            return "finished"
        return "diverged" if seed == 1001 else "pending"

    study = build_study(status_of=status_of)
    points = compare_arms(study).arm("random").tuning
    assert [point.learning_rate for point in points] == [1e-4, 3e-4, 1e-3]
    assert [point.chosen for point in points] == [False, True, False]
    assert (points[2].validation_losses, points[2].mean) == ((), None)
    assert (points[2].num_diverged, points[2].num_missing) == (1, 1)
    runs = {run.id: run for run in study.runs}
    assert points[0].validation_losses == tuple(runs[i].scores["validation_loss"] for i in points[0].run_ids)


def test_controls_are_known_and_their_absence_is_a_warning(comparison, trio):
    assert comparison.arm("random").is_control
    assert not any("No control" in sentence for sentence in comparison.warnings)
    arms = [settings for settings in trio.study["arms"] if settings["name"] != "random"]
    without = replace(trio, study={**trio.study, "arms": arms})
    assert any("No control" in sentence for sentence in compare_arms(without).warnings)


def test_unspent_budget_that_could_buy_a_component_is_a_warning(trio):
    def poorer(run):
        return replace(run, residual_params=5000) if run.arm == "empirical" and run.params else run

    comparison = compare_arms(replace(trio, runs=tuple(map(poorer, trio.runs))))
    assert any("empirical: 5,000 parameters of the budget are unspent" in text for text in comparison.warnings)
    assert not any("unspent" in text for text in compare_arms(trio).warnings)


def test_scales_that_follow_the_ranks_are_a_warning(comparison):
    (text,) = [text for text in comparison.warnings if "scale of the product" in text]
    assert text.startswith("linear_decay, attention_heavy, empirical, random:")


def test_a_rank_that_was_not_realised_is_a_warning(trio):
    runs = list(trio.runs)
    index = next(i for i, run in enumerate(runs) if run.purpose == "report")
    first, *rest = runs[index].sites
    runs[index] = replace(runs[index], sites=(replace(first, realised_rank=1), *rest))
    comparison = compare_arms(replace(trio, runs=tuple(runs)))
    assert any(runs[index].id in text and "planned rank at 1 sites" in text for text in comparison.warnings)


def test_one_learning_rate_for_all_is_a_warning(build_study):
    comparison = compare_arms(build_study(rates=(3e-4,)))
    assert any("No learning rate was tuned" in text for text in comparison.warnings)
    assert comparison.arm("uniform").learning_rate == 3e-4


def test_the_same_results_give_the_same_numbers_and_the_seed_moves_only_intervals(trio):
    first, again, other = compare_arms(trio), compare_arms(trio), compare_arms(trio, rng_seed=1)
    assert first == again
    before, after = first.arm("empirical").difference, other.arm("empirical").difference
    assert before.estimate.low != after.estimate.low
    assert (before.per_seed, before.p) == (after.per_seed, after.p)


def test_costs_are_means_and_largest_over_finished_runs(full_study, comparison):
    arm = comparison.arm("empirical")
    runs = full_study.reported("empirical")
    assert arm.wall_s == pytest.approx(np.mean([run.wall_s for run in runs]))
    assert arm.probe_wall_s == pytest.approx(1.4)
    assert arm.predicted_wall_s == pytest.approx(8.7)
    assert arm.peak_memory_bytes == max(run.peak_memory_bytes for run in runs)
    assert arm.run_ids == tuple(run.id for run in runs)
