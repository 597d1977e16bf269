"""What an earlier study says about the spread between seeds, and what is no pilot."""

import json
from dataclasses import replace
from statistics import median, stdev

import pytest

from rankwise.errors import LedgerError, ReportError
from rankwise.execution.detectable import judge_detectable
from rankwise.execution.pilot import Pilot, find_pilot, pilot_of
from rankwise.ledger import open_ledger
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.numbers import comparison_json
from rankwise.study.load import resolved_json
from rankwise.testing.sample_ledger import sample_study, write_sample

UNIFORM = {0: 2.0, 1: 2.1, 2: 2.2, 3: 2.3}
LOSSES = {
    "uniform": UNIFORM,
    "linear_decay": {0: 2.01, 1: 2.09, 2: 2.23, 3: 2.32},
    "eva": {0: 1.9, 1: 2.2},
    "wide": {0: 1.0, 1: 2.0, 2: 0.5, 3: 0.1},
}


def pilot(losses=LOSSES, **changes):
    known = {"source": "the study p", "baseline": "uniform", "unequal": frozenset({"wide"}), "settings": {}}
    return Pilot(losses=losses, **known | changes)


def spread_of(arm, baseline=UNIFORM):
    return stdev(loss - baseline[seed] for seed, loss in LOSSES[arm].items())


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "pilot.db"
    with open_ledger(str(path)) as opened:
        write_sample(opened)
    return str(path)


@pytest.fixture
def folder(ledger, tmp_path):
    """The sample's report as it is recorded, without its figures."""
    with open_ledger(ledger) as opened:
        results = opened.study_results("sample")
    place = tmp_path / "recorded"
    place.mkdir()
    (place / "comparison.json").write_text(comparison_json(compare_arms(results)))
    (place / "study.resolved.json").write_text(resolved_json(sample_study()))
    return place


def test_comparisons_that_both_studies_make_come_first():
    found = pilot().spread_for(sample_study(arms=("uniform", "linear_decay", "random")))
    assert (found.sd_nats, found.num_comparisons, found.num_seeds) == (
        pytest.approx(spread_of("linear_decay")),
        1,
        (4, 4),
    )


def test_other_arms_are_a_guide_where_none_is_shared_but_not_those_of_another_budget():
    found = pilot().spread_for(sample_study(arms=("uniform", "random")))
    assert found.sd_nats == pytest.approx(median([spread_of("linear_decay"), spread_of("eva")]))
    assert (found.num_comparisons, found.num_seeds) == (2, (2, 4))
    alone = pilot({"uniform": UNIFORM, "wide": LOSSES["wide"]}).spread_for(sample_study(arms=("uniform", "random")))
    assert alone.sd_nats == pytest.approx(spread_of("wide"))


def test_the_baseline_of_the_new_study_is_taken_where_the_pilot_has_it():
    study = sample_study(arms=("uniform", "linear_decay"))
    study = study.model_copy(update={"compare": study.compare.model_copy(update={"baseline": "linear_decay"})})
    assert pilot().spread_for(study).sd_nats == pytest.approx(spread_of("linear_decay"))


def test_a_recorded_report_and_its_ledger_say_the_same(ledger, folder):
    studies = [sample_study(arms=("uniform", "linear_decay"))]
    recorded, held = find_pilot(str(folder), studies, None), find_pilot("sample", studies, ledger)
    assert recorded.spread_for(studies[0]) == held.spread_for(studies[0])
    assert recorded.losses["linear_decay"] == held.losses["linear_decay"]
    assert (recorded.source, held.source) == (f"the report of sample in {folder}", "the study sample in the ledger")
    assert not recorded.is_of_other_data(studies[0])


def test_other_data_is_told(ledger):
    study = sample_study(arms=("uniform", "linear_decay"))
    found = find_pilot("sample", [study], ledger)
    data = study.arms[0].data.model_copy(update={"source": "alpaca"})
    other = study.model_copy(update={"arms": tuple(arm.model_copy(update={"data": data}) for arm in study.arms)})
    for judged, is_told in ((study, False), (other, True)):
        enough = judged.model_copy(update={"seeds": tuple(range(8))})
        assert (
            "Its base model, data or test size is another" in " ".join(judge_detectable(enough, found).sentences)
        ) == is_told


@pytest.mark.parametrize(
    "settings", ["[]", "{", json.dumps({"arms": [1]}), json.dumps({"arms": [{"name": "uniform"}]})]
)
def test_a_report_whose_settings_cannot_be_read_still_has_a_spread(folder, settings):
    (folder / "study.resolved.json").write_text(settings)
    study = sample_study(arms=("uniform", "linear_decay"))
    assert not find_pilot(str(folder), [study], None).is_of_other_data(study)


def test_what_is_no_pilot_is_refused(ledger, folder, tmp_path):
    studies = [sample_study(arms=("uniform", "linear_decay"))]

    def message(place, ledger=ledger, error=ReportError):
        with pytest.raises(error) as caught:
            find_pilot(place, studies, ledger)
        return str(caught.value)

    assert "no/where: there is no such folder" in message("no/where")
    assert "there is no study 'other'; it holds sample" in message("other", error=LedgerError)
    assert "there is no such file" in message("sample", str(tmp_path / "none.db"), LedgerError)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "the folder has no comparison.json" in message(str(empty))
    resolved = json.loads((folder / "study.resolved.json").read_text())
    resolved["compare"]["metric"] = "exact_match"
    (folder / "study.resolved.json").write_text(json.dumps(resolved))
    assert "it compares 'exact_match'" in message(str(folder))
    (folder / "comparison.json").write_text("{}")
    assert "is not a comparison" in message(str(folder))


def test_fewer_than_two_pairs_are_refused_with_what_there_is(ledger):
    with open_ledger(ledger) as opened:
        results = opened.study_results("sample")
    one = replace(results, study={**results.study, "seeds": [0]})
    study = sample_study(arms=("uniform", "linear_decay"))
    assert pilot_of(one, "p").spread_for(study) is None
    only_random = replace(results, runs=tuple(run for run in results.runs if run.arm == "random"))
    assert pilot_of(only_random, "p").spread_for(study) is None


def test_one_finished_seed_is_too_few(folder):
    document = json.loads((folder / "comparison.json").read_text())
    for arm in document["arms"]:
        for score in arm["seeds"][1:]:
            score["test_loss"] = None
    (folder / "comparison.json").write_text(json.dumps(document))
    with pytest.raises(
        ReportError, match=r"finished seeds: uniform 1, linear_decay 1, random \d\), so there is no spread"
    ):
        find_pilot(str(folder), [sample_study()], None)
