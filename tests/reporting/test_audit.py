"""The audit section: one sentence where all is well, the exceptions where not, and columns only where arms differ."""

from dataclasses import replace

import pytest

from rankwise.records import RanksRevised
from rankwise.reporting.audit_section import audit_section
from rankwise.reporting.comparison import compare_arms


def with_run(study, arm, change):
    """The study with the arm's first reported run changed."""
    victim = study.reported(arm)[0]
    return replace(study, runs=tuple(change(run) if run.id == victim.id else run for run in study.runs)), victim


def section(study):
    return audit_section(compare_arms(study))


def test_all_is_well(full_study):
    text = section(full_study)
    assert "Every site of every run holds what was planned (30 runs, 1,260 sites)" in text
    header = next(line for line in text.splitlines() if line.startswith("| Arm"))
    assert header == "| Arm | Audited | Scales | Probe time | Probe memory |"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("rank", 3, "stores another rank than it trained"), ("scale", 7.0, "stores another scale than planned")],
)
def test_a_site_that_differs_is_named(full_study, field, value, words):
    def change(run):
        first, *rest = run.outcomes
        return replace(run, outcomes=(replace(first, **{field: value}), *rest))

    study, run = with_run(full_study, "empirical", change)
    text = section(study)
    assert "**Not every site holds what was planned.**" in text
    assert f"empirical: run {run.id} {words} at model.layers.0.self_attn.q_proj." in text


def test_a_rank_that_was_not_realised_is_named(full_study):
    def change(run):
        first, second, *rest = run.sites
        return replace(run, sites=(replace(first, realised_rank=1), replace(second, realised_rank=1), *rest))

    study, run = with_run(full_study, "uniform", change)
    assert f"uniform: run {run.id} did not get its planned rank at 2 sites, the first model.layers.0" in section(study)


def test_a_dynamic_arm_is_judged_by_what_it_stores(full_study):
    def change(run):
        """Began with one component more at the first site than it ended with."""
        first, *rest = run.sites
        ranks = tuple(site.realised_rank for site in run.sites)
        grown = replace(first, planned_rank=ranks[0] + 1, realised_rank=ranks[0] + 1)
        held = run.params + first.in_features + first.out_features
        revision = RanksRevised(run_id=run.id, step=5, ranks=ranks)
        return replace(run, sites=(grown, *rest), revisions=(revision,), params=held, held_params=held)

    study, run = with_run(full_study, "linear_decay", change)
    changed = next(r for r in study.runs if r.id == run.id)
    arm = compare_arms(study).arm("linear_decay")
    assert changed.spent_params == run.params
    assert arm.params == compare_arms(full_study).arm("linear_decay").params
    text = section(study)
    assert "Every site of every run holds what was planned" in text
    row = next(line for line in text.splitlines() if line.startswith("| linear_decay"))
    assert f"–{changed.held_params:,}" in row
    assert "| 0–1 |" in row


def test_a_subtracted_start_is_stored_beside_the_trained_components(full_study):
    def change(run):
        if run.arm != "empirical" or not run.outcomes:
            return run
        outcomes = tuple(replace(o, rank=2 * o.rank, params=2 * o.params) for o in run.outcomes)
        return replace(run, outcomes=outcomes, stored_params=2 * run.params)

    study = replace(full_study, runs=tuple(map(change, full_study.runs)))
    text = section(study)
    assert "Every site of every run holds what was planned" in text
    assert compare_arms(study).arm("empirical").params == compare_arms(full_study).arm("empirical").params
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert "as trained" in rows["| uniform"]
    assert f"{2 * full_study.reported('empirical')[0].params:,}" in rows["| empirical"]


def test_components_that_never_moved_are_counted(full_study):
    def change(run):
        first, *rest = run.outcomes
        return replace(run, outcomes=(replace(first, num_unmoved=2), *rest))

    study, _ = with_run(full_study, "random", change)
    text = section(study)
    assert "Never moved |" in text
    assert "| 0–2 |" in next(line for line in text.splitlines() if line.startswith("| random"))


def test_runs_of_an_older_version_are_said_to_be_so(full_study):
    old = tuple(replace(run, outcomes=(), stored_params=None, held_params=None) for run in full_study.runs)
    text = section(replace(full_study, runs=old))
    assert "held what was planned when training began" in text
    assert "30 runs ended before adapters were read back again" in text


def test_settings_that_differ_have_a_column(full_study):
    arms = [
        {**arm, "init": "pissa", "scaling": {"rule": "constant", "alpha": 16.0, "scale": 2.0}}
        if arm["name"] == "empirical"
        else arm
        for arm in full_study.study["arms"]
    ]
    text = section(replace(full_study, study={**full_study.study, "arms": arms}))
    row = next(line for line in text.splitlines() if line.startswith("| empirical"))
    assert "| constant 2 |" in row
    assert "| pissa |" in row
    assert "| Scaling |" in text
