"""Benchmarks of a study: on each stored adapter and the base alone, once, in the ledger and in the report."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.errors import EvaluationError, StudyError
from rankwise.evaluation.benchmarks import BenchmarkResult
from rankwise.execution import benchmarking, workers
from rankwise.execution.finished import finished_results
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import open_ledger
from rankwise.ledger.results import StudyResults
from rankwise.records import BenchmarkScore
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.document import render_results
from rankwise.study import parse_study, resolved_json
from rankwise.study.config import Study

STUDY = """
name: judged
hypothesis: Benchmarks are kept.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 4, validation: 2, test: 4}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 2, learning_rates: [1.0e-2]}}
arms: [uniform, linear_decay]
seeds: 2
benchmarks: {benchmarks}
"""


class Harness:
    """Stands in for lm-evaluation-harness: scores a model by how many of its layers carry an adapter."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()

    def run(self, base, name, inputs, *, limit=None, show_progress=True) -> BenchmarkResult:
        self.calls.append(name)
        if name in self.failing:
            raise EvaluationError(f"--benchmark {name}: the hub is away.")
        adapted = sum(hasattr(module, "lora_A") for module in base.model.modules())
        scores = (
            BenchmarkScore(task=name, metric="acc", filter="none", value=adapted / 100, stderr=None),
            BenchmarkScore(task=name, metric="perplexity", filter="none", value=2.0 + adapted, stderr=0.5),
        )
        return BenchmarkResult(name=name, harness="0.0", num_examples=limit or 9, scores=scores, examples=())


class Told(Observer):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def harness(monkeypatch) -> Harness:
    found = Harness()
    monkeypatch.setattr(benchmarking, "run_benchmark", found.run)
    monkeypatch.setattr(benchmarking, "require_benchmark", lambda _name: None)
    return found


def study_with(folder, benchmarks: str) -> Study:
    return parse_study(STUDY.format(folder=folder, benchmarks=benchmarks), origin="judged.yaml")


def run(study: Study, tmp_path, **settings) -> StudyResults:
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        return run_study(study, ledger, StudyOptions(out=tmp_path / "out"), **settings)


def test_every_adapter_and_the_base_are_scored_once(small_model, tmp_path, harness):
    study = study_with(small_model, "[arc_easy, {name: hellaswag, limit: 3}]")
    results = run(study, tmp_path)
    assert harness.calls.count("arc_easy") == harness.calls.count("hellaswag") == 1 + 4
    layers = len(results.reported("uniform")[0].sites)
    for row in [*results.reported("uniform"), *results.reported("linear_decay")]:
        assert row.scores["benchmark/arc_easy/acc"] == layers / 100
        assert row.scores["benchmark/hellaswag first 3/perplexity"] == 2.0 + layers
        assert [(one.benchmark, one.num_examples) for one in row.benchmarks] == [
            ("arc_easy", 9),
            ("hellaswag first 3", 3),
        ]
    [base] = results.base_benchmarks["bases"]
    assert base["arms"] == ["uniform", "linear_decay"]
    scores = {name: value for found in base["results"] for name, value in found["scores"].items()}
    assert scores["benchmark/arc_easy/acc"] == 0, (
        "the base alone carries no adapter, before the first or after the last"
    )

    harness.calls.clear()
    again = run(study, tmp_path)
    assert [row.benchmarks for row in again.runs] == [row.benchmarks for row in results.runs]
    assert again.base_benchmarks == results.base_benchmarks
    assert not harness.calls, "what the ledger has is not run again"


def test_a_benchmark_that_comes_later_trains_nothing_anew(small_model, tmp_path, harness):
    before = run(study_with(small_model, "[]"), tmp_path)
    later = study_with(small_model, "[arc_easy]")
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        assert finished_results(later, ledger, tmp_path / "out") is None
    after = run(later, tmp_path)
    assert [one.id for one in after.runs] == [one.id for one in before.runs]
    assert [one.finished_at for one in after.runs] == [one.finished_at for one in before.runs]
    assert all("benchmark/arc_easy/acc" in one.scores for one in after.runs)
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        assert finished_results(later, ledger, tmp_path / "out") is not None


def test_a_changed_file_is_read_again(small_model, tmp_path, harness):
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "1?", "answer": "#### 1"}\n')
    study = study_with(small_model, f"[{{name: gsm8k, data: {file}}}]")
    run(study, tmp_path)
    file.write_text('{"question": "2?", "answer": "#### 2"}\n')
    harness.calls.clear()
    run(study, tmp_path)
    assert len(harness.calls) == 5


def test_one_that_cannot_be_run_is_left_out_and_said(small_model, tmp_path, harness):
    harness.failing, told = {"arc_easy"}, Told()
    study = study_with(small_model, "[arc_easy, hellaswag]")
    results = run(study, tmp_path, observer=told)
    assert told.notes == ["benchmark arc_easy is left out: --benchmark arc_easy: the hub is away."]
    assert harness.calls.count("arc_easy") == 1, "what fails on one model is not tried on the others"
    comparison = compare_arms(results)
    assert "benchmark arc_easy: 0 of 4 finished runs have it; the same command runs what is missing." in (
        comparison.warnings
    )
    harness.failing = set()
    assert all("benchmark/arc_easy/acc" in one.scores for one in run(study, tmp_path).runs)


def test_the_report_has_a_table_of_them(small_model, tmp_path, harness):
    results = run(study_with(small_model, "[arc_easy]"), tmp_path)
    comparison = compare_arms(results)
    text = render_results(results, comparison, [], command=None)
    section = text.split("### Benchmarks\n")[1].split("\n##")[0]
    lines = section.splitlines()
    assert "| Arm | arc_easy, acc [95%] | arc_easy, perplexity [95%] |" in lines
    [base] = [line for line in lines if "alone*" in line]
    assert base.endswith("| 0.0% | 2.0000 |")
    layers = len(results.reported("uniform")[0].sites)
    [uniform] = [line for line in lines if line.startswith("| uniform")]
    assert f"| {layers}.0% [{layers}.0%, {layers}.0%] | {2 + layers}.0000 [" in uniform
    assert any(line.startswith("| linear_decay | 0.0 [0.0, 0.0]") for line in lines), "paired differences"


def test_a_study_that_no_longer_asks_does_not_show_them(small_model, tmp_path, harness):
    run(study_with(small_model, "[arc_easy]"), tmp_path)
    results = run(study_with(small_model, "[]"), tmp_path)
    assert "benchmark/arc_easy/acc" in results.runs[0].scores
    assert "### Benchmarks" not in render_results(results, compare_arms(results), [], command=None)


def test_several_workers_leave_them_to_their_parent(small_model, tmp_path, harness, monkeypatch):
    study, out = study_with(small_model, "[arc_easy]"), tmp_path / "out"
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        run_study(study, ledger, StudyOptions(out=out, num_workers=2))
    assert not harness.calls, "a worker among several"

    @contextmanager
    def ended(*_started: object) -> Iterator[list[SimpleNamespace]]:
        yield [SimpleNamespace(outcome={})]

    monkeypatch.setattr(workers, "_started", ended)
    monkeypatch.setattr(workers, "_watch", lambda *_: None)
    options = StudyOptions(out=out)
    results = workers.run_with_workers(study, str(tmp_path / "ledger.db"), options, num_workers=2)
    assert all("benchmark/arc_easy/acc" in one.scores for one in results.runs)
    assert len(harness.calls) == 5


def test_without_benchmarks_a_study_is_written_as_before(small_model):
    assert "benchmarks" not in json.loads(resolved_json(study_with(small_model, "[]")))


@pytest.mark.parametrize(
    ("benchmarks", "told"),
    [
        ("[{name: gsm8k, data: gone.jsonl}]", r"benchmarks\[0\]: gone.jsonl cannot be read: No such file"),
        ("[skills, {name: skills, data: x.jsonl}]", "given more than once"),
        ("[{name: arc_easy, data: x.jsonl}]", r"benchmarks\[0\]: .*arc_easy reads no file"),
        ("[{name: skills, limit: 0}]", r"benchmarks\[0\].limit"),
        ("[{task: skills}]", r"benchmarks\[0\].task is not a setting"),
    ],
)
def test_what_cannot_be_run_is_refused_before_training(small_model, tmp_path, harness, benchmarks, told):
    with pytest.raises(StudyError, match=told):
        run(study_with(small_model, benchmarks), tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_told_by_plan_and_study(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.evaluation.benchmarks.importlib.util.find_spec", lambda _name: None)
    file = tmp_path / "judged.yaml"
    file.write_text(STUDY.format(folder=small_model, benchmarks="[skills]"))
    for command in (["plan"], ["study", "--out", str(tmp_path / "out")]):
        result = CliRunner().invoke(app, [*command, str(file), "--ledger", str(tmp_path / "ledger.db")])
        assert result.exit_code == 2
        assert "benchmarks[0]: --benchmark skills needs lm-evaluation-harness" in " ".join(result.output.split())
