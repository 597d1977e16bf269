import pytest

from rankwise.errors import LedgerError
from rankwise.testing.sample_ledger import run_records, sample_runs, sample_study


def ids(runs):
    return [run.id for run, _ in runs]


def links(ledger, name="sample"):
    return sorted((run.arm, run.purpose, run.id) for run in ledger.study_results(name).runs)


def expected(runs):
    return sorted((run.arm.name, purpose, run.id) for run, purpose in runs)


def test_registering_twice_is_registering_once(registered, study, runs):
    before = registered.study_results("sample")
    registered.register_study(study, runs)
    assert registered.study_results("sample") == before
    assert links(registered) == expected(runs)


def test_phases_add_up(ledger, study, runs):
    tuning = [pair for pair in runs if pair[1] == "tuning"]
    ledger.register_study(study, tuning)
    assert links(ledger) == expected(tuning)
    ledger.register_study(study, runs)
    ledger.register_study(study, tuning)
    assert links(ledger) == expected(runs)


def test_what_was_asked_is_stored_and_read_back(registered, study):
    registered.set_environment("sample", {"torch": "1"})
    registered.set_environment("sample", {"torch": "2"})
    registered.set_data_summary("sample", {"test": {"num_examples": 6, "excluded": {"empty": 1}}})
    registered.set_chosen_learning_rates("sample", {"uniform": 3e-3})
    results = registered.study_results("sample")
    assert results.study == study.model_dump(mode="json")
    assert results.hypothesis == study.hypothesis
    assert results.arm_names == ("uniform", "linear_decay", "random")
    assert results.environment == {"torch": "2"}
    assert results.data_summary == {"test": {"num_examples": 6, "excluded": {"empty": 1}}}
    assert results.chosen_learning_rates == {"uniform": 3e-3}


def test_runs_come_in_the_order_of_arms_purposes_rates_and_seeds(registered, runs):
    of_arm = [pair for arm in ("uniform", "linear_decay", "random") for pair in runs if pair[0].arm.name == arm]
    assert [run.id for run in registered.study_results("sample").runs] == ids(of_arm)


def test_a_new_row_has_its_specification_and_nothing_measured(registered, runs):
    run, _ = runs[-1]
    row = registered.run(run.id)
    assert (row.arm, row.strategy, row.purpose) == ("random", "random", "report")
    assert (row.seed, row.learning_rate, row.status, row.spec) == (run.seed, run.learning_rate, "pending", run.spec())
    assert (row.params, row.sites, row.scores, row.steps, row.error) == (None, (), {}, None, None)
    assert (row.example_loss_nats, row.training_curve, row.validation_curve) == (None, (), ())


def test_an_edited_study_starts_over_but_keeps_finished_runs(registered, runs):
    run = runs[0][0]
    registered.write(run_records(run))
    registered.set_chosen_learning_rates("sample", {"uniform": 3e-3})
    smaller = sample_study(arms=["uniform"])
    registered.register_study(smaller, sample_runs(smaller))
    assert links(registered) == expected(sample_runs(smaller))
    assert registered.study_results("sample").chosen_learning_rates == {}
    assert registered.run_status([run.id]) == {run.id: "finished"}


def test_a_run_that_no_study_plans_is_shown_under_its_strategy(registered, runs):
    smaller = sample_study(arms=["uniform"])
    registered.register_study(smaller, sample_runs(smaller))
    orphan = runs[-1][0].id
    assert registered.memberships(orphan) == []
    assert registered.run(orphan).arm == "random"


def test_another_base_model_replaces_tuning_runs_and_the_reports_that_rest_on_them(registered, study):
    replaced = sample_runs(study, base_fingerprint="better")
    tuning = [pair for pair in replaced if pair[1] == "tuning"]
    registered.register_study(study, tuning)
    assert links(registered) == expected(tuning)
    registered.register_study(study, replaced)
    assert links(registered) == expected(replaced)


def test_another_choice_of_learning_rate_replaces_reported_runs(registered, study):
    other = sample_runs(study, rate=3e-3)
    registered.register_study(study, other)
    assert links(registered) == expected(other)


def test_a_run_that_two_studies_share_is_stored_once(registered, runs):
    other = sample_study("other", arms=["uniform"])
    registered.write(run_records(runs[0][0]))
    registered.register_study(other, sample_runs(other))
    shared = runs[0][0].id
    assert registered.memberships(shared) == [("other", "uniform", "tuning"), ("sample", "uniform", "tuning")]
    assert registered.study_results("other").runs[0].status == "finished"
    assert registered.study_names() == ["other", "sample"]


def test_the_environment_of_a_run_is_that_of_the_session_that_claimed_it(registered, runs):
    early, late = runs[0][0].id, runs[1][0].id
    assert registered.environment_of(early) == {}
    registered.set_environment("sample", {"torch": "1"})
    registered.claim([early], "machine:1:0")
    registered.set_environment("sample", {"torch": "2"})
    registered.claim([late], "machine:1:0")
    assert registered.environment_of(early) == {"torch": "1"}
    assert registered.environment_of(late) == {"torch": "2"}
    assert registered.study_results("sample").environments == {early: {"torch": "1"}, late: {"torch": "2"}}
    assert registered.study_results("sample", with_details=False).environments == {}


@pytest.mark.parametrize("call", ["study_results", "set_environment", "set_data_summary", "set_chosen_learning_rates"])
def test_an_unknown_study_names_those_there_are(registered, call):
    arguments = ["smaple"] if call == "study_results" else ["smaple", {}]
    with pytest.raises(LedgerError, match=r"no study 'smaple'; it holds sample\..*--ledger"):
        getattr(registered, call)(*arguments)


def test_a_run_is_found_by_the_beginning_of_its_id(registered, runs):
    run_id = runs[3][0].id
    unique = next(run_id[:n] for n in range(1, 13) if sum(i.startswith(run_id[:n]) for i in set(ids(runs))) == 1)
    assert registered.run(unique).id == run_id


def test_a_beginning_of_several_ids_or_of_none_is_refused(registered):
    with pytest.raises(LedgerError, match=r"begins several ids .* Give more digits"):
        registered.run("")
    with pytest.raises(LedgerError, match=r"no run's id begins with 'zz'\. `rankwise runs list`"):
        registered.run("zz")
    with pytest.raises(LedgerError, match="no run's id begins with '%'"):
        registered.run("%")
