"""What a tracker is given. No tracker's library is needed."""

import json
import math
from dataclasses import replace

import pytest

from rankwise.errors import LedgerError, TrackerError
from rankwise.ledger.results import CurvePoint
from rankwise.testing.sample_ledger import sample_runs, sample_study
from rankwise.tracking import Place, PushOptions, open_tracker, push
from rankwise.tracking.entry import run_entry
from rankwise.tracking.folders import file_name, push_folder
from rankwise.tracking.push import entries


@pytest.fixture
def by_key(ledger, options):
    return {entry.key: entry for entry in entries(ledger, options)}


def test_every_run_that_has_ended_and_the_report_are_entries(by_key, results):
    ended = {run.id for run in results.runs if run.status in ("finished", "diverged", "failed")}
    assert set(by_key) == ended | {"report"}
    assert len(ended) == len(results.runs) - 1


def test_an_entry_has_settings_series_scores_cost_and_audit(by_key, results):
    run = results.reported("linear_decay")[0]
    entry = by_key[run.id]
    assert (entry.parameters["arm.base.model"], entry.parameters["learning_rate"]) == ("nano", 1e-3)
    assert entry.tags["rankwise.arm"] == "linear_decay"
    assert entry.tags["environment.torch"] == "2.13.0"
    assert entry.series["training_loss"] == list(run.training_curve)
    assert entry.finals["test_loss"] == run.scores["test_loss"]
    assert entry.finals["peak_memory_bytes"] == 300 * 2**20
    assert not set(entry.finals) & set(entry.series)
    sites = json.loads(entry.files["sites.json"])
    assert [(site["planned_rank"], site["stored"]["rank"]) for site in sites] == [(6, 6), (2, 2)]
    assert json.loads(entry.files["run.json"])["spec"] == run.spec


def test_adapters_are_configurations_without_weights(by_key, results):
    files = {key: set(entry.files) for key, entry in by_key.items()}
    first, second, _ = (run.id for run in results.reported("uniform"))
    assert files[first] == {"run.json", "sites.json", "adapter/adapter_config.json"}
    assert files[second] == {"run.json", "sites.json"}
    assert files["report"] == {"RESULTS.md", "figures/tuning.png"}


def test_the_digest_is_of_what_is_pushed_and_of_nothing_else(ledger, results, tmp_path):
    run = results.reported("uniform")[0]

    def digest(changed, environment=None):
        return run_entry(results, [changed], environment or {}, tmp_path).digest

    assert digest(run) == digest(replace(run, finished_at=1.0))
    others = [
        replace(run, scores={**run.scores, "test_loss": 1.0}),
        replace(run, training_curve=(*run.training_curve, CurvePoint(step=9, value=math.nan))),
        replace(run, status="failed"),
        replace(run, sites=run.sites[:1], outcomes=run.outcomes[:1]),
    ]
    assert len({digest(run), digest(run, {"torch": "3"}), *map(digest, others)}) == 6


def test_another_list_of_learning_rates_changes_no_parameter_of_a_run(ledger, by_key, results):
    study = sample_study()
    arms = [
        arm.model_copy(update={"train": arm.train.model_copy(update={"learning_rates": (1e-3,)})}) for arm in study.arms
    ]
    edited = study.model_copy(update={"arms": tuple(arms)})
    ledger.register_study(edited, sample_runs(edited))
    again = {entry.key: entry for entry in entries(ledger, PushOptions(results=PushOptions().results / "absent"))}
    kept = set(again) & set(by_key) - {"report"}
    assert kept
    assert all(again[key].parameters == by_key[key].parameters for key in kept)


def test_a_run_of_two_arms_is_one_entry_with_both_names(ledger):
    study = sample_study("twins", arms=["uniform"])
    twin = study.arms[0].model_copy(update={"name": "twin"})
    both = study.model_copy(update={"arms": (study.arms[0], twin)})
    ledger.register_study(both, sample_runs(both))
    found = list(entries(ledger, PushOptions(study="twins")))
    assert len({entry.key for entry in found}) == len(found) == 5
    assert {entry.tags["rankwise.arm"] for entry in found} == {"uniform, twin"}


def test_chosen_runs_only_and_no_report(ledger, results, options):
    wanted = {run.id for run in results.reported("uniform")}
    assert {entry.key for entry in entries(ledger, replace(options, run_ids=wanted))} == wanted
    pending = next(run.id for run in results.runs if run.status == "pending")
    with pytest.raises(LedgerError, match=f"{pending} has not ended"):
        list(entries(ledger, replace(options, run_ids={pending})))
    with pytest.raises(LedgerError, match="no study 'smaple'"):
        list(entries(ledger, replace(options, study="smaple")))


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_names_the_extra(name, monkeypatch):
    monkeypatch.setattr("rankwise.tracking.open.find_spec", lambda _: None)
    with pytest.raises(
        TrackerError, match=rf"needs {name}, which is not installed: pip install 'rankwise\[trackers\]'"
    ):
        open_tracker(name, Place())


def test_options_of_another_tracker_are_refused(monkeypatch):
    monkeypatch.setattr("rankwise.tracking.open.find_spec", lambda _: type("Spec", (), {"origin": "here"}))
    with pytest.raises(TrackerError, match=r"--to mlflow has no --out, --offline; its options are --uri, --project"):
        open_tracker("mlflow", Place(out="x", offline=True))


# Folders


@pytest.fixture
def entry(by_key, results):
    return by_key[results.reported("uniform")[0].id]


def write_one(folder):
    (folder / "content").write_text("whole")


def test_a_folder_is_whole_or_not_there(tmp_path, entry):
    def fail(folder):
        write_one(folder)
        raise OSError(28, "No space left on device")

    root = tmp_path / "log"
    with pytest.raises(TrackerError, match=r"log: uniform seed 0 .* cannot be written \(No space left on device\)"):
        push_folder(root, entry, fail)
    assert not [path for path in tmp_path.rglob("*") if "log" in path.name and path.suffix != ".db"]
    assert push_folder(root, entry, write_one) == "new"
    assert push_folder(root, entry, fail) == "there"


def test_a_folder_is_replaced_by_one_with_more_and_survives_what_fails(tmp_path, entry):
    def fail(_folder):
        raise OSError(28, "No space left on device")

    more = replace(entry, finals={**entry.finals, "test_rouge_l": 0.5}, name="renamed")
    push_folder(tmp_path / "log", entry, write_one)
    with pytest.raises(TrackerError):
        push_folder(tmp_path / "log", more, fail)
    assert [folder.name for folder in (tmp_path / "log" / "sample").iterdir()] == [f"{entry.name} {entry.key}"]
    assert push_folder(tmp_path / "log", more, write_one) == "completed"
    assert [folder.name for folder in (tmp_path / "log" / "sample").iterdir()] == [f"renamed {entry.key}"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, entry):
    theirs = tmp_path / "log" / "sample" / f"mine {entry.key}"
    theirs.mkdir(parents=True)
    (theirs / "notes.txt").write_text("keep")
    push_folder(tmp_path / "log", entry, write_one)
    assert (theirs / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("text", ["../../etc", "a/b\\c", "..", "x\x1b[2J\n", "*?[0]", "", "ü" * 400])
def test_names_stay_inside_their_folder(text):
    name = file_name(text)
    assert 0 < len(name.encode()) <= 255
    assert not set(name) & set("/\\*?[]\n\x1b")
    assert name not in ("", ".", "..")


def test_pushing_stops_at_what_the_tracker_refuses_and_keeps_what_was_pushed(ledger, options):
    class Limited:
        place = "a tracker that takes three"
        taken = 0

        def push(self, entry):
            if self.taken == 3:
                raise TrackerError("full")
            self.taken += 1
            return "new"

    pushed = push(ledger, Limited(), options)
    assert [next(pushed).outcome for _ in range(3)] == ["new"] * 3
    with pytest.raises(TrackerError, match="full"):
        next(pushed)
