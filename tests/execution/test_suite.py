"""Several studies trained together: runs and packs are shared, and what fails in one leaves the others whole."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.errors import StudyError
from rankwise.execution import train_runs as module
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import Member, run_study, run_suite
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import open_ledger
from rankwise.records import Record
from rankwise.study import parse_study
from rankwise.study.config import Study
from rankwise.training.engine import train_pack

FIRST = """
name: first
hypothesis: Ranks by depth matter.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 8, validation: 4, test: 4}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 2, learning_rates: [1.0e-3, 3.0e-3]}}
arms: [uniform, linear_decay]
seeds: 2
"""
SECOND = FIRST.replace("first", "second").replace("arms: [uniform, linear_decay]", "arms: [uniform, linear_growth]")
NUM_RUNS = 2 * (4 + 4)
NUM_SHARED = 2 + 2
"""The tuning and reported runs of `uniform`."""


class Watcher(Observer):
    def __init__(self) -> None:
        self.packs: list[list[str]] = []
        self.labels: list[list[str]] = []

    def pack(self, run_ids: Sequence[str], labels: Sequence[str], num_steps: int, predicted_bytes: int) -> None:
        self.packs.append(list(run_ids))
        self.labels.append(list(labels))


@pytest.fixture(scope="module")
def studies(small_model: Path) -> list[Study]:
    return [parse_study(text.format(folder=small_model), origin="suite.yaml") for text in (FIRST, SECOND)]


def members_of(studies: Sequence[Study], folder: Path) -> list[Member]:
    return [Member(study=study, out=folder / study.name) for study in studies]


def losses(results: Any) -> dict[str, float]:
    return {run.id: run.scores["test_loss"] for run in results.runs if run.purpose == "report"}


@pytest.fixture(scope="module")
def alone(studies: list[Study], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What each study finds by itself, in a ledger of its own."""
    found = {}
    for study in studies:
        folder = tmp_path_factory.mktemp(study.name)
        with open_ledger(str(folder / "rankwise.db")) as ledger:
            found[study.name] = losses(run_study(study, ledger, StudyOptions(out=folder)))
    return found


def test_two_studies_share_runs_and_packs_and_find_what_each_finds_alone(
    studies: list[Study], alone: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    watcher = Watcher()
    with open_ledger(str(tmp_path / "rankwise.db")) as ledger:
        options = StudyOptions(out=tmp_path / ".suite")
        suite = run_suite(members_of(studies, tmp_path), ledger, options, observer=watcher)
    assert not suite.failures
    for name, expected in alone.items():
        assert losses(suite.results[name]) == pytest.approx(expected, abs=1e-6)
        assert {path.name for path in (tmp_path / name / "adapters").iterdir()} == set(expected)
    trained = [run_id for pack in watcher.packs for run_id in pack]
    assert len(trained) == len(set(trained)) == NUM_RUNS - NUM_SHARED, "a shared run is trained once"
    assert len(watcher.packs) == 2, "one pack of tuning runs and one of reported runs, of both studies"


def test_arms_of_one_name_and_different_settings_stay_apart(studies: list[Study], tmp_path: Path) -> None:
    """Sizes are looked up by arm, and each study has its own `uniform`."""
    arms = tuple(
        arm.model_copy(update={"budget": arm.budget.model_copy(update={"rank": 4})}) for arm in studies[0].arms
    )
    wider = studies[0].model_copy(update={"name": "wider", "arms": arms})
    with open_ledger(str(tmp_path / "rankwise.db")) as ledger:
        suite = run_suite(members_of([studies[0], wider], tmp_path), ledger, StudyOptions(out=tmp_path / ".suite"))
    params = {name: {run.params for run in found.runs} for name, found in suite.results.items()}
    assert len(params["first"]) == 1
    assert params["wider"] == {2 * size for size in params["first"]}


def test_a_failed_run_fails_its_study_and_no_other(
    studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(base: Any, runs: Sequence[Any], **options: Any) -> Iterator[list[Record]]:
        if any(run.run.arm.name == "linear_growth" for run in runs):
            raise RuntimeError("cosmic ray")
        return train_pack(base, runs, **options)

    monkeypatch.setattr(module, "train_pack", failing)
    with open_ledger(str(tmp_path / "rankwise.db")) as ledger:
        options = StudyOptions(out=tmp_path / ".suite", max_slots=1)
        suite = run_suite(members_of(studies, tmp_path), ledger, options)
    assert list(suite.results) == ["first"]
    assert re.search(r"2 of 4 runs failed.*linear_growth.*cosmic ray", str(suite.failures["second"]))


def test_the_first_seed_of_each_arm_can_be_trained_alone(studies: list[Study], tmp_path: Path) -> None:
    watcher = Watcher()
    with open_ledger(str(tmp_path / "rankwise.db")) as ledger:
        results = run_study(studies[0], ledger, StudyOptions(out=tmp_path, solo_first=True), observer=watcher)
    reported = [labels for labels in watcher.labels if "seed 1000" not in labels[0]]
    assert [len(labels) for labels in reported] == [1, 1, 2]
    slots = {(run.arm, run.seed): run.pack_slots for run in results.runs if run.purpose == "report"}
    assert slots == {("uniform", 0): 1, ("uniform", 1): 2, ("linear_decay", 0): 1, ("linear_decay", 1): 2}


def test_what_is_wrong_with_any_study_is_told_before_any_is_trained(studies: list[Study], tmp_path: Path) -> None:
    arms = tuple(arm.model_copy(update={"targets": ("no_such_layer",)}) for arm in studies[1].arms)
    wrong = [studies[0], studies[1].model_copy(update={"arms": arms})]
    watcher = Watcher()
    with open_ledger(str(tmp_path / "rankwise.db")) as ledger:
        with pytest.raises(StudyError, match=r"study second: .*no_such_layer[^$]*Nothing was trained"):
            run_suite(members_of(wrong, tmp_path), ledger, StudyOptions(out=tmp_path / ".suite"), observer=watcher)
        assert ledger.study_names() == []
    assert not watcher.packs


@pytest.fixture
def files(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name, text in (("first", FIRST), ("second", SECOND)):
        Path(f"{name}.yaml").write_text(text.format(folder=small_model))
    return ["first.yaml", "second.yaml"]


def invoke(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


def test_a_suite_has_a_folder_a_study_and_a_table_at_the_end(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankwise.reporting.write.FIGURES", {})
    done = invoke("study", *files)
    assert done.exit_code == 0, done.output
    assert "first" in done.stdout
    assert "2 studies, 12 runs; 4 of them serve more than one." in done.stdout
    assert "results/second/RESULTS.md" in done.stdout.replace("\n", "")
    assert not list(Path("results").glob(".suite/checkpoints/*"))
    again = invoke("study", *files, "--json")
    assert again.stderr.count("in the ledger already") == 2
    assert [document["study"] for document in json.loads(again.stdout)["studies"]] == ["first", "second"]


def test_a_dry_run_prints_what_plan_prints(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankwise.execution.sizing.available_bytes", lambda: 2**33)
    for options in ([], ["--json"], ["--memory", "2GiB", "--max-pack", "2"]):
        for given in (files[:1], files):
            dry, plan = invoke("study", *given, "--dry-run", *options), invoke("plan", *given, *options)
            assert (dry.exit_code, dry.stdout) == (0, plan.stdout)
            assert "first" in dry.stdout
    assert not Path("results").exists()
    assert "2 studies: 16 runs, 14 of them different" in plan.stdout


def test_one_broken_file_is_told_before_anything_is_trained(files: list[str]) -> None:
    Path("broken.yaml").write_text("name: broken\nhypothesis: x\nseed: 3\n")
    Path("none.yaml").write_text("")
    done = invoke("study", *files, "broken.yaml", "none.yaml")
    assert done.exit_code == 2
    assert "broken.yaml:3: seed" in done.stderr
    assert "none.yaml is empty" in done.stderr
    assert not Path("rankwise.db").exists()
    assert not Path("results").exists()


def test_two_studies_of_one_name_are_refused(files: list[str]) -> None:
    Path("copy.yaml").write_text(Path("first.yaml").read_text())
    done = invoke("study", *files, "copy.yaml")
    assert done.exit_code == 2
    assert "first.yaml and copy.yaml are both called first" in done.stderr


def test_model_and_data_of_the_file_can_be_replaced(files: list[str], small_model: Path) -> None:
    text = Path("first.yaml").read_text().replace(str(small_model), "some/hub-model, revision: abc")
    Path("first.yaml").write_text(text.replace("source: skills", "source: alpaca"))
    done = invoke("plan", "first.yaml", "--model", str(small_model), "--data", "skills", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["num_runs"] == 8
