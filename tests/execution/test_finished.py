"""A finished study is recognised without torch, and whatever could change its runs is noticed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.execution import finished as module
from rankwise.execution.finished import KEPT_FILE, finished_results, gather_evidence
from rankwise.ledger import open_ledger
from rankwise.ledger.results import StudyResults
from rankwise.reporting import write as write_module
from rankwise.study import load_study, parse_study

STUDY = """
name: rerun
hypothesis: What is finished stays finished.
base: {{model: {model}, dtype: float32}}
data: {{source: {data}, max_tokens: 128, train: 8, validation: 4, test: 4}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 4, learning_rates: [1.0e-3, 1.0e-2]}}
arms: [uniform, {{strategy: linear_decay, train: {{learning_rates: [3.0e-3]}}}}]
seeds: 2
tuning_seeds: 1
"""


@dataclass(frozen=True)
class Place:
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def command(self) -> list[str]:
        return ["study", str(self.file), "--out", str(self.out), "--ledger", str(self.folder / "rankwise.db")]

    def found(self) -> StudyResults | None:
        with open_ledger(str(self.folder / "rankwise.db")) as ledger:
            return finished_results(load_study(self.file), ledger, self.out)


@pytest.fixture(scope="module")
def trained(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("rerun"))
    shutil.copytree(small_model, place.folder / "model")
    rows = [{"instruction": f"Double {number}.", "output": f"{2 * number}"} for number in range(20)]
    (place.folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    place.file.write_text(STUDY.format(model=place.folder / "model", data=place.folder / "data.jsonl"))
    done = CliRunner().invoke(app, place.command)
    assert done.exit_code == 0, done.output
    return place


@pytest.fixture
def place(trained: Place) -> Place:
    assert trained.found() is not None
    return trained


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Other content of the same size under the same modification time."""
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(change(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_every_run_is_found_with_its_scores(place: Place) -> None:
    results = place.found()
    assert results is not None
    assert len(results.runs) == 2 + 4
    assert all("validation_loss" in run.scores for run in results.runs)


def test_a_rerun_says_the_same_and_neither_trains_nor_draws(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CliRunner().invoke(app, place.command)
    monkeypatch.delattr(write_module, "write_report")
    again = CliRunner().invoke(app, place.command)
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert "all 6 runs are in the ledger already" in again.stderr


def test_a_rerun_loads_neither_torch_nor_matplotlib(place: Place) -> None:
    code = f"""
import sys
sys.argv = ["rankwise", *{place.command!r}]
from rankwise.cli.main import main
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
print(*sys.modules)
"""
    for _ in range(2):  # the first one writes the report under its own command line
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"torch", "transformers", "datasets", "matplotlib", "scipy"}


@pytest.mark.parametrize("name", ["RESULTS.md", "comparison.json", "figures/rank_maps.png", "figures/differences.csv"])
def test_a_file_of_the_report_that_is_gone_or_edited_is_written_again(place: Place, name: str) -> None:
    CliRunner().invoke(app, place.command)
    before = (place.out / name).read_bytes()
    for damage in (Path.unlink, lambda path: path.write_bytes(b"edited")):
        damage(place.out / name)
        done = CliRunner().invoke(app, place.command)
        assert done.exit_code == 0, done.output
        assert (place.out / name).read_bytes() == before


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/config.json", "model/tokenizer.json", "data.jsonl"])
def test_a_changed_file_of_model_or_data_is_noticed_in_spite_of_its_size_and_date(trained: Place, name: str) -> None:
    copy = Place(trained.folder)
    path = copy.folder / name
    kept, content = (copy.out / KEPT_FILE).read_text(), path.read_bytes()
    rewrite(path, lambda text: text[:-2] + bytes([text[-2] ^ 1]) + text[-1:])
    assert copy.found() is None
    rewrite(path, lambda _: content)
    assert copy.found() is None, "nobody can tell from outside that the content is back"
    path.write_bytes(content)
    done = CliRunner().invoke(app, copy.command)  # prepared again, found to be the same, and remembered
    assert done.exit_code == 0, done.output
    assert copy.found() is not None
    assert (copy.out / KEPT_FILE).read_text() != kept


def test_other_code_another_device_and_a_file_more_are_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "7")
        assert place.found() is None
    with monkeypatch.context() as patch:
        patch.setattr(module, "identify_code", lambda: ["edited"])
        assert place.found() is None
    extra = place.folder / "model" / "added_tokens.json"
    extra.write_text("{}")
    assert place.found() is None
    extra.unlink()
    assert place.found() is not None


@pytest.mark.parametrize(("old", "new"), [("seeds: 2", "seeds: 3"), ("rank: 2", "rank: 3"), ("1.0e-3", "2.0e-3")])
def test_an_edited_study_is_not_finished(place: Place, old: str, new: str) -> None:
    text = place.file.read_text()
    edited = parse_study(text.replace(old, new, 1), origin="edited")
    with open_ledger(str(place.folder / "rankwise.db")) as ledger:
        assert finished_results(edited, ledger, place.out) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"evidence": null, "fingerprints": {}}'])
def test_damaged_memory_is_ignored(place: Place, text: str) -> None:
    kept = (place.out / KEPT_FILE).read_text()
    (place.out / KEPT_FILE).write_text(text)
    assert place.found() is None
    (place.out / KEPT_FILE).write_text(kept)


def test_another_ledger_has_nothing(place: Place, tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "other.db")) as ledger:
        assert finished_results(load_study(place.file), ledger, place.out) is None


@pytest.mark.parametrize(
    ("old", "new"), [("model: nano", "model: owner/name"), ("source: skills", "source: owner/name")]
)
def test_nothing_is_remembered_about_the_hub(old: str, new: str) -> None:
    text = STUDY.format(model="nano", data="skills")
    assert gather_evidence(parse_study(text, origin="local")) is not None
    assert gather_evidence(parse_study(text.replace(old, new), origin="hub")) is None
