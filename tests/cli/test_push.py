"""`rankwise runs push`: what it prints and refuses. Trackers themselves are tested in tests/tracking."""

import json

import pytest
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.push import summary_lines
from rankwise.ledger import open_ledger
from rankwise.testing.sample_ledger import write_sample
from rankwise.tracking import Pushed


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_ledger() as ledger:
        write_sample(ledger)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["runs", "push", *arguments], terminal_width=300)
        assert result.exit_code == code, result.output
        return result

    return run


def test_push_says_where_it_is_and_what_was_left_out(call, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    first = call("--to", "tensorboard").stdout
    assert first.splitlines() == [
        "TensorBoard folder tracking/tensorboard: runs: 14 new; reports: none",
        "no report was found of sample: `rankwise report STUDY` writes one",
        "1 runs have not ended; push again when they have",
    ]
    assert "14 already there" in call("--to", "tensorboard").stdout
    assert (tmp_path / "tracking" / "tensorboard" / "sample").is_dir()


def test_json_is_one_document(call):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    with open_ledger() as ledger:
        run = ledger.study_results("sample").reported("uniform")[0]
    document = json.loads(call(run.id[:8], "--to", "tensorboard", "--out", "log", "--json").stdout)
    assert document == {
        "tracker": "tensorboard",
        "place": "TensorBoard folder log",
        "pushed": [{"key": run.id, "study": "sample", "name": "uniform seed 0 rate 0.001", "outcome": "new"}],
        "num_not_ended": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "comet"], "comet"),
        ([], "--to"),
        (["--to", "tensorboard", "--results", "elsewhere"], "name that with --study"),
        (["--to", "tensorboard", "--ledger", "absent.db"], "absent.db: there is no such file"),
        (["--to", "tensorboard", "--study", "smaple"], "no study 'smaple'; it holds sample"),
        (["zz", "--to", "tensorboard"], "no run's id begins with 'zz'"),
        (["--to", "tensorboard", "--offline"], "--to tensorboard has no --offline; its options are --out"),
        (["--to", "mlflow", "--out", "x"], "--to mlflow has no --out"),
    ],
)
def test_bad_input_is_refused_in_words(call, tmp_path, arguments, words):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    assert words in " ".join(call(*arguments, code=2).output.replace("│", " ").split())
    assert not (tmp_path / "tracking").exists()


def test_a_folder_that_cannot_be_written_is_one_paragraph(call, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    (tmp_path / "file").write_text("in the way")
    text = call("--to", "tensorboard", "--out", "file/log", code=2).output
    assert "cannot be written (Not a directory). Name a folder that can be written with --out" in " ".join(text.split())


def test_without_the_extra_the_command_names_it(call, monkeypatch):
    monkeypatch.setattr("rankwise.tracking.open.find_spec", lambda _: None)
    assert "pip install 'rankwise[trackers]'" in " ".join(call("--to", "wandb", code=2).output.split())


def test_an_empty_ledger_says_so(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    monkeypatch.chdir(tmp_path)
    with open_ledger():
        pass
    result = CliRunner().invoke(app, ["runs", "push", "--to", "tensorboard"])
    assert (result.exit_code, result.stdout) == (0, "The ledger holds no run that has ended, so nothing was pushed.\n")


def test_the_summary_counts_runs_and_reports_apart():
    pushed = [
        Pushed(key="a1", study="s", name="", outcome="completed"),
        Pushed(key="a2", study="s", name="", outcome="there"),
        Pushed(key="report", study="s", name="", outcome="new"),
    ]
    lines = summary_lines("somewhere", pushed, 0, wants_reports=True)
    assert lines == ["somewhere: runs: 1 completed, 1 already there; reports: 1 new"]
    assert summary_lines("somewhere", pushed[:2], 0, wants_reports=False) == [
        "somewhere: runs: 1 completed, 1 already there"
    ]
