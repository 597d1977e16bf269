"""Which runs a study needs."""

import itertools

import pytest

from rankwise.errors import StudyError
from rankwise.study.load import parse_study
from rankwise.study.plan import report_runs, tuning_runs, unique


def study_of(arms, *, rates="[1e-3, 3e-3]", name="x", seeds="2", more=""):
    text = f"name: {name}\nhypothesis: h\nbudget: {{rank: 4}}\ntrain: {{learning_rates: {rates}}}\nseeds: {seeds}\n{more}\narms:\n"
    return parse_study(text + "".join(f"  - {arm}\n" for arm in arms), origin="x.yaml")


def fingerprints(study):
    return {arm.name: ("base", "data") for arm in study.arms}


def ids(planned):
    return {plan.run.id for plan in planned}


def all_ids(study, rate=1e-3):
    chosen = {arm.name: rate for arm in study.arms}
    return ids(tuning_runs(study, fingerprints(study)) + report_runs(study, chosen, fingerprints(study)))


def test_tuning_is_every_arm_rate_and_tuning_seed():
    study = study_of(["uniform", "linear_decay"], more="tuning_seeds: 2")
    planned = tuning_runs(study, fingerprints(study))
    found = [(plan.run.arm.name, plan.run.learning_rate, plan.run.seed) for plan in planned]
    assert found == list(itertools.product(["uniform", "linear_decay"], [1e-3, 3e-3], [1000, 1001]))
    assert {plan.purpose for plan in planned} == {"tuning"}
    assert len(ids(planned)) == 8


def test_an_arm_with_one_candidate_is_not_tuned_and_needs_no_choice():
    study = study_of(["uniform", "{strategy: random, train: {learning_rates: [2e-3]}}"])
    assert {plan.run.arm.name for plan in tuning_runs(study, fingerprints(study))} == {"uniform"}
    reported = report_runs(study, {"uniform": 3e-3}, fingerprints(study))
    assert {(plan.run.arm.name, plan.run.learning_rate) for plan in reported} == {("uniform", 3e-3), ("random", 2e-3)}


def test_reported_runs_are_every_arm_and_seed_at_the_chosen_rate():
    study = study_of(["uniform", "random"], seeds="[5, 3]")
    planned = report_runs(study, {"uniform": 1e-3, "random": 3e-3}, fingerprints(study))
    found = [(plan.run.arm.name, plan.run.learning_rate, plan.run.seed) for plan in planned]
    assert found == [("uniform", 1e-3, 5), ("uniform", 1e-3, 3), ("random", 3e-3, 5), ("random", 3e-3, 3)]
    assert {plan.purpose for plan in planned} == {"report"}


def test_no_run_that_chose_a_rate_is_reported():
    study = study_of(["uniform", "random"])
    chosen = {"uniform": 1e-3, "random": 1e-3}
    assert not ids(tuning_runs(study, fingerprints(study))) & ids(report_runs(study, chosen, fingerprints(study)))


@pytest.mark.parametrize("chosen", [{}, {"uniform": 0.5}, {"random": 1e-3}])
def test_a_rate_that_was_not_chosen_among_the_candidates_is_refused(chosen):
    study = study_of(["uniform"])
    with pytest.raises(StudyError, match=r"arm uniform: .* one of train.learning_rates \(0.001, 0.003\)"):
        report_runs(study, chosen, fingerprints(study))


def test_arms_that_differ_in_name_only_share_their_runs():
    study = study_of(["uniform", "{name: again, strategy: uniform}"])
    planned = tuning_runs(study, fingerprints(study))
    assert len(planned) == 4
    assert [plan.run.arm.name for plan in unique(planned)] == ["uniform", "uniform"]


def test_names_order_and_other_arms_change_no_id():
    here = study_of(["uniform", "random", "linear_decay"], name="here")
    there = study_of(["linear_decay", "{name: control, strategy: random}", "empirical", "uniform"], name="there")
    assert all_ids(here) < all_ids(there)


def test_candidates_that_are_added_leave_the_old_runs_as_they_were():
    assert all_ids(study_of(["uniform"])) < all_ids(study_of(["uniform"], rates="[1e-4, 1e-3, 3e-3]"))


def test_each_arm_has_its_own_fingerprints():
    study = study_of(["uniform", "{name: other, strategy: uniform, base: {model: other}}"])
    planned = tuning_runs(study, {"uniform": ("base", "data"), "other": ("another", "data")})
    assert len(unique(planned)) == 4
    assert {plan.run.base_fingerprint for plan in planned if plan.run.arm.name == "other"} == {"another"}
