import json

import pytest
from typer.testing import CliRunner

from rankwise.cli.data import app
from rankwise.errors import DataError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        return CliRunner().invoke(app, ["prepare", *map(str, arguments)], env={"COLUMNS": "120"})

    return invoke


def test_skills_are_written_with_an_analysis_and_a_histogram(run, tmp_path):
    result = run("skills", "--num-samples", 50, "--out", "skills.jsonl")
    assert result.exit_code == 0, result.output
    assert "50 loaded, 0 left out" in result.stdout
    assert "in more than one split: 0" in result.stdout
    assert "█" in result.stdout
    lines = [json.loads(line) for line in (tmp_path / "skills.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["split"] for line in lines] == ["train"] * 40 + ["validation"] * 5 + ["test"] * 5
    analysis = json.loads((tmp_path / "skills.jsonl.analysis.json").read_text(encoding="utf-8"))
    assert analysis["fingerprint"] in result.stdout


def test_json_is_the_whole_of_standard_output(run):
    result = run("skills", "--num-samples", 30, "--out", "a.jsonl", "--seed", 4, "--json")
    document = json.loads(result.stdout)
    assert document["out"] == "a.jsonl"
    assert document["settings"]["seed"] == 4
    assert document["summary"]["splits"]["train"]["num_examples"] == 24


def test_text_of_a_data_set_cannot_steer_the_terminal(run, tmp_path):
    rows = [
        {"instruction": f"[bold red]{n}[/bold red] [/nope] \x1b[2J", "output": "[link=x]y[/link]"} for n in range(5)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    result = run("rows.json", "--num-samples", 5, "--out", "a.jsonl")
    assert result.exit_code == 0, result.output
    assert "[/bold red] [/nope] \\x1b[2J" in result.stdout
    assert "[link=x]y[/link]" in result.stdout
    assert "\x1b[2J" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.json", "--num-samples", 5, "--out", "a.jsonl"), "there is no file none.json"),
        (("skills", "--num-samples", 5, "--out", "a.json"), r"--out: a.json must end in .jsonl"),
        (("skills", "--num-samples", 5, "--out", "no/a.jsonl"), "lies in no, which is not a folder"),
        (("rows.json", "--num-samples", 50, "--out", "a.jsonl"), r"rows.json has 1 "),
    ],
)
def test_bad_input_is_refused_and_nothing_is_left(run, tmp_path, arguments, message):
    (tmp_path / "rows.json").write_text('[{"instruction": "a", "output": "b"}]', encoding="utf-8")
    result = run(*arguments)
    assert isinstance(result.exception, DataError)
    with pytest.raises(DataError, match=message):
        raise result.exception
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_an_unwritable_folder_is_refused(run, tmp_path):
    (tmp_path / "a.jsonl.partial").mkdir()  # in the way of the file, for root as for anyone
    result = run("skills", "--num-samples", 10, "--out", "a.jsonl")
    assert isinstance(result.exception, DataError)
    assert "cannot be written" in str(result.exception)
    assert not (tmp_path / "a.jsonl").exists()


def test_impossible_options_are_refused_by_name(run):
    result = run("skills", "--num-samples", 2, "--out", "a.jsonl")
    assert result.exit_code == 2
    assert "--num-samples" in result.output
    result = run("skills", "--num-samples", 9, "--out", "a.jsonl", "--template", "alpcaa")
    assert result.exit_code == 2
    assert "alpaca" in result.output
