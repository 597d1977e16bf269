"""Stability of arms: what is counted, and the size of steps that scales and ranks make expect."""

import math
from dataclasses import replace

import pytest

from rankwise.ledger.results import CurvePoint
from rankwise.records import RanksRevised
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.stability import grad_spikes, loss_spikes, step_norms
from rankwise.reporting.stability_section import stability_section


def test_expected_steps_are_those_of_runs_that_step_as_the_formula_says(full_study):
    """The synthetic traces are lr · scale · sqrt(r · out / 3) of each site, times what all arms share."""
    arms = {arm.name: arm.stability for arm in compare_arms(full_study).arms}
    for name in ("uniform-r16", "linear_decay", "attention_heavy", "empirical"):
        for group, measured in arms[name].step_of_group.items():
            multiple = measured / arms["uniform"].step_of_group[group]
            expected = arms[name].expected_of_group[group] / arms["uniform"].expected_of_group[group]
            assert multiple == pytest.approx(expected, rel=1e-6)
    # Scale alpha / r: twice the rank everywhere halves the scale, and the step falls by sqrt(2).
    halved = arms["uniform-r16"].step_of_group["mlp.late"] / arms["uniform"].step_of_group["mlp.late"]
    assert halved == pytest.approx(1 / math.sqrt(2))


def test_the_learning_rate_factor_of_up_makes_larger_steps_expected(full_study):
    def faster(run):
        if run.arm != "linear_decay":
            return run
        return replace(run, sites=tuple(replace(site, lr_factor_up=4.0) for site in run.sites))

    before = compare_arms(full_study).arm("linear_decay").stability
    after = compare_arms(replace(full_study, runs=tuple(map(faster, full_study.runs)))).arm("linear_decay").stability
    for group, expected in before.expected_of_group.items():
        assert after.expected_of_group[group] == pytest.approx(4 * expected)


def test_a_jump_of_the_gradient_is_counted_and_one_of_the_loss(full_study):
    run = full_study.reported("empirical")[0]
    assert 90 in grad_spikes(run)
    curve = list(run.training_curve)
    curve[59] = CurvePoint(step=60, value=curve[59].value + 5)
    assert set(loss_spikes(replace(run, training_curve=tuple(curve)))) >= {60}
    assert 60 not in loss_spikes(run)


def test_runs_that_diverged_are_in_it_with_their_step(build_study):
    study = build_study(status_of=lambda arm, purpose, rate, seed: "diverged" if arm == "random" else "finished")
    found = compare_arms(study).arm("random").stability
    assert (found.num_runs, found.num_diverged) == (5, 5)
    assert (found.diverged_steps.low, found.diverged_steps.high) == (40, 40)
    assert "| 5 (40) |" in stability_section(compare_arms(study))


def test_norms_that_are_not_numbers_are_left_out(full_study):
    run = full_study.reported("uniform")[0]
    broken = replace(run.traces[3], update_norms=(math.nan,) * len(run.traces[3].groups))
    traces = (*run.traces[:3], broken, *run.traces[4:])
    runs = tuple(replace(r, traces=traces) if r.id == run.id else r for r in full_study.runs)
    assert broken.step not in step_norms(replace(run, traces=traces))
    found = compare_arms(replace(full_study, runs=runs)).arm("uniform").stability
    assert all(math.isfinite(size) for size in found.step_of_group.values())


def test_an_arm_that_starts_elsewhere_is_given_no_expectation(full_study):
    arms = [{**arm, "init": "pissa"} if arm["name"] == "empirical" else arm for arm in full_study.study["arms"]]
    text = stability_section(compare_arms(replace(full_study, study={**full_study.study, "arms": arms})))
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text[text.index("### Size") :].splitlines()}
    assert ";" not in rows["empirical"]
    assert ";" in rows["linear_decay"]


def test_an_arm_whose_ranks_move_is_given_no_expectation(full_study):
    def moving(run):
        if run.arm != "linear_decay" or not run.outcomes:
            return run
        return replace(run, revisions=(RanksRevised(run_id=run.id, step=3, ranks=run.spent_ranks),))

    text = stability_section(compare_arms(replace(full_study, runs=tuple(map(moving, full_study.runs)))))
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text[text.index("### Size") :].splitlines()}
    assert ";" not in rows["linear_decay"]
    assert ";" in rows["empirical"]


def test_training_that_was_worse_than_its_start_is_seen(full_study):
    run = full_study.reported("uniform")[0]
    curve = (
        *run.training_curve[:5],
        CurvePoint(step=6, value=run.training_curve[0].value + 2),
        *run.training_curve[6:],
    )
    runs = tuple(replace(r, training_curve=curve) if r.id == run.id else r for r in full_study.runs)
    before, after = (
        compare_arms(study).arm("uniform").stability for study in (full_study, replace(full_study, runs=runs))
    )
    first = run.training_curve[0].value
    gained = 2 - (max(point.value for point in run.training_curve) - first)
    assert after.peak_above_start_nats - before.peak_above_start_nats == pytest.approx(gained / 5)


def test_a_study_from_before_traces_has_the_table_and_no_sizes(full_study):
    runs = tuple(replace(run, traces=()) for run in full_study.runs)
    text = stability_section(compare_arms(replace(full_study, runs=runs)))
    assert "| uniform | 5 | 0 |" in text
    assert "Size of steps" not in text


def test_nothing_is_said_before_any_training(build_study):
    study = build_study(tuned=False, status_of=lambda *_: "pending")
    assert stability_section(compare_arms(study)) == ""
