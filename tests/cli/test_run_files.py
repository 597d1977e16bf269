"""`rankwise runs list` for other programs: what their own readers make of it."""

import csv
import io
import json
import math

import pandas as pd
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.cli.run_files import to_csv, to_json
from rankwise.ledger import open_ledger
from rankwise.ledger.flat import RUN_COLUMNS
from rankwise.testing.sample_ledger import sample_runs, sample_study, write_sample

HOSTILE = 'a, "quoted"\nsecond line; ünïcode =1+1 \x1b[2J'


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "ledger.db"
    with open_ledger(str(path)) as ledger:
        write_sample(ledger)
        failed = next(run for run in ledger.study_results("sample").runs if run.status == "failed")
        ledger.mark_failed(failed.id, HOSTILE)
    return path


@pytest.fixture
def call(path):
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["runs", "list", *arguments, "--ledger", str(path)], terminal_width=300)
        assert result.exit_code == code, result.output
        return result

    return run


def test_csv_is_read_back_by_the_standard_library(call, path):
    rows = list(csv.DictReader(io.StringIO(call("--format", "csv").stdout, newline="")))
    assert [name for name in rows[0] if name in RUN_COLUMNS] == list(RUN_COLUMNS)
    with open_ledger(str(path)) as ledger:
        runs = {run.id: run for run in ledger.study_results("sample").runs}
    assert {row["id"] for row in rows} == set(runs)
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["error"] == HOSTILE
    finished = next(row for row in rows if row["status"] == "finished" and row["purpose"] == "report")
    assert float(finished["test_loss"]) == runs[finished["id"]].scores["test_loss"]
    pending = next(row for row in rows if row["status"] == "pending")
    assert (pending["test_loss"], pending["params"], pending["finished_at"]) == ("", "", "")


def test_parquet_has_typed_columns_and_the_same_rows(call, tmp_path):
    out = tmp_path / "runs.parquet"
    result = call("--out", str(out))
    assert result.stdout == ""
    assert "15 runs" in result.stderr
    frame = pd.read_parquet(out)
    assert str(frame["finished_at"].dtype).startswith("datetime64")
    assert parquet.read_schema(out).field("params").type == "int64"
    assert HOSTILE in set(frame["error"].dropna())
    assert set(frame["id"]) == {row["id"] for row in json.loads(call("--json").stdout)}
    assert [path.name for path in tmp_path.iterdir()] == ["runs.parquet"]


def test_parquet_can_be_piped(call):
    result = call("--format", "parquet")
    assert parquet.read_table(io.BytesIO(result.stdout_bytes)).num_rows == 15


def test_json_is_the_same_by_either_name_and_in_a_file(call, tmp_path):
    text = call("--json").stdout
    assert call("--format", "json").stdout == text
    call("--out", str(tmp_path / "runs.json"))
    assert (tmp_path / "runs.json").read_text(encoding="utf-8") == text


def test_not_a_number_and_missing_are_told_apart(path):
    with open_ledger(str(path)) as ledger:
        run = ledger.study_results("sample").reported("uniform")[0]
    nan = type(run)(**{**vars(run), "scores": {"validation_loss": math.nan}})
    row = next(csv.DictReader(io.StringIO(to_csv([("sample", nan)]).decode())))
    assert (row["validation_loss"], row["test_loss"]) == ("NaN", "")
    assert json.loads(to_json([("sample", nan)]))[0]["scores"] == {"validation_loss": None}


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_an_empty_ledger_gives_an_empty_table(tmp_path, form):
    with open_ledger(str(tmp_path / "empty.db")):
        pass
    out = tmp_path / f"runs.{form}"
    command = ["runs", "list", "--out", str(out), "--ledger", str(tmp_path / "empty.db")]
    assert CliRunner().invoke(app, command).exit_code == 0
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[form](out)
    assert len(read) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "--format", "csv"], "two formats"),
        (["--out", "runs.txt"], "name that ends in one of .csv, .parquet, .json"),
        (["--format", "table", "--out", "runs.csv"], "give --format csv, parquet or json"),
        (["--format", "xlsx"], "xlsx"),
        (["--out", "absent/folder/runs.csv"], "absent/folder"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words(call, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in " ".join(call(*arguments, code=2).output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_anew_stays(call, tmp_path, monkeypatch):
    out = tmp_path / "runs.csv"
    out.write_text("earlier")
    monkeypatch.setattr("pathlib.Path.replace", _disk_full)
    call("--out", str(out), code=2)
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def _disk_full(self, target):
    raise OSError(28, "No space left on device", str(target))


def test_a_run_of_two_studies_is_listed_for_each(tmp_path):
    with open_ledger(str(tmp_path / "two.db")) as ledger:
        write_sample(ledger)
        other = sample_study("other", arms=["uniform"])
        ledger.register_study(other, sample_runs(other))
    command = ["runs", "list", "--format", "csv", "--ledger", str(tmp_path / "two.db")]
    frame = pd.read_csv(io.StringIO(CliRunner().invoke(app, command).stdout))
    assert frame["study"].value_counts().to_dict() == {"sample": 15, "other": 5}
