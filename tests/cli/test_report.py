import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rankwise.cli.main import ErrorReportingGroup, options
from rankwise.cli.report import report
from rankwise.ledger import open_ledger
from rankwise.reporting import write
from rankwise.reporting.figures import FIGURES
from rankwise.study.load import resolved_json
from rankwise.testing.sample_ledger import write_sample


@pytest.fixture
def app():
    """The real root with this command alone."""
    alone = typer.Typer(cls=ErrorReportingGroup, pretty_exceptions_enable=False)
    alone.callback()(options)
    alone.command()(report)
    return alone


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A ledger with a sample study in the working directory, and the folder of its results."""
    monkeypatch.setattr(write, "FIGURES", {"differences": FIGURES["differences"]})  # one is enough here
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKWISE_LEDGER", "sqlite:///sample.db")
    with open_ledger() as ledger:
        study = write_sample(ledger)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "study.resolved.json").write_text(resolved_json(study), encoding="utf-8")
    return study


def invoke(app, *args):
    return CliRunner().invoke(app, ["report", *args])


def test_a_results_folder_gets_the_report_of_its_study(app, study, tmp_path):
    result = invoke(app, "mine")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "mine" / "RESULTS.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {study.name}\n")
    assert "rankwise study sample.yaml" in text  # the command that the ledger remembers
    assert (tmp_path / "mine" / "figures" / "differences.pdf").is_file()
    assert "not told apart from uniform" in " ".join(result.stdout.split())
    assert "mine/RESULTS.md" in result.stdout


def test_json_is_one_document_and_nothing_else(app, study, tmp_path):
    result = invoke(app, "mine", "--json")
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "mine" / "comparison.json").read_text(encoding="utf-8"))
    assert [arm["name"] for arm in document["arms"]] == [arm.name for arm in study.arms]


def test_a_name_is_looked_up_in_the_ledger_and_written_below_results(app, study, tmp_path):
    assert invoke(app, study.name).exit_code == 0
    assert (tmp_path / "results" / study.name / "RESULTS.md").is_file()


@pytest.mark.parametrize(
    ("resolved", "words"),
    [
        (None, ["empty holds no study.resolved.json", "rankwise study"]),
        ("{", ["study.resolved.json is not a resolved study", "JSONDecodeError"]),
        ("[]", ["is not a resolved study"]),
        ('{"name": 3}', ["the name is 3"]),
    ],
)
def test_a_folder_that_is_no_results_folder_is_refused(app, study, tmp_path, resolved, words):
    folder = tmp_path / "empty"
    folder.mkdir()
    if resolved is not None:
        (folder / "study.resolved.json").write_text(resolved)
    before = sorted(folder.iterdir())
    result = invoke(app, "empty")
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(("place", "word"), [("no/such", "there is no such folder"), ("nothing", "nothing")])
def test_an_unknown_study_is_refused(app, study, tmp_path, place, word):
    result = invoke(app, place)
    assert result.exit_code == 2
    assert re.search(word, result.stderr)
    assert not (tmp_path / "results").exists()


def test_a_missing_ledger_is_not_made(app, study, tmp_path):
    result = invoke(app, "mine", "--ledger", "other.db")
    assert result.exit_code == 2
    assert "other.db" in result.stderr
    assert not (tmp_path / "other.db").exists()


def test_a_taken_port_is_refused_before_anything_is_served(app, study):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke(app, "mine", "--serve", "--port", str(port))
    assert result.exit_code == 2
    assert f"port {port} of this machine cannot be used" in " ".join(result.stderr.split())


def test_an_unknown_study_is_not_served(app, study):
    result = invoke(app, "other", "--serve")
    assert result.exit_code == 2
    assert "no study 'other'" in " ".join(result.stderr.split())


def test_serving_says_where_and_ends_with_an_interrupt(app, study, monkeypatch):
    def interrupted(_server):
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.HTTPServer.serve_forever", interrupted)
    result = invoke(app, "mine", "--serve", "--port", "0")
    assert result.exit_code == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/  \(Ctrl-C ends\)\n", result.stdout)
    assert not (Path("mine") / "report.html").exists()


@pytest.fixture
def no_tex(monkeypatch):
    monkeypatch.setattr("rankwise.reporting.paper.build.shutil.which", lambda name: None)


def test_a_paper_is_complete_without_tex_and_the_command_says_what_is_missing(app, study, tmp_path, no_tex):
    result = invoke(app, "mine", "--pdf")
    assert result.exit_code == 2
    assert "main.tex is written and complete" in " ".join(result.stderr.split())
    text = (tmp_path / "mine" / "paper" / "main.tex").read_text(encoding="utf-8")
    assert "\\rw{sample.verdict}" in text
    assert "\\includegraphics" in text
    assert (tmp_path / "mine" / "RESULTS.md").is_file()
    macros = (tmp_path / "mine" / "paper" / "macros.tex").read_text(encoding="utf-8")
    assert "\\rwset{sample.num_arms}{3}" in macros


def test_recorded_reports_need_no_ledger_and_several_make_one_paper(app, study, tmp_path, no_tex):
    invoke(app, "mine")
    other = shutil.copytree(tmp_path / "mine", tmp_path / "other")
    (tmp_path / "sample.db").unlink()
    result = invoke(app, "mine", "other", "--recorded", "--pdf")
    assert result.exit_code == 2
    assert other.exists()
    macros = (tmp_path / "paper" / "macros.tex").read_text(encoding="utf-8")
    assert "\\rwset{paper.num_studies}{2}" in macros


def test_a_paper_file_names_title_studies_and_sections(app, study, tmp_path, no_tex):
    invoke(app, "mine")
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "discussion.md").write_text("About {{sample.name}}.", encoding="utf-8")
    (folder / "paper.yaml").write_text(
        "title: 100% mine\nauthors: [N. N.]\nstudies: [../mine]\nsections: {discussion: discussion.md}\n"
    )
    result = invoke(app, "text/paper.yaml", "--recorded", "--pdf")
    assert result.exit_code == 2, result.output
    text = (folder / "main.tex").read_text(encoding="utf-8")
    assert "\\title{100\\% mine}" in text
    assert "About \\rw{sample.name}." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mine", "--recorded"], "add --pdf"),
        (["mine", "--out", "x"], "add --pdf"),
        (["mine", "--pdf", "--json"], "leave out --pdf"),
        (["mine", "mine", "--json"], "name one study"),
        (["mine", "--pdf", "--serve"], "leave out --pdf and --json"),
        (["paper.yaml"], "give it alone, with --pdf"),
        (["paper.yaml", "mine", "--pdf"], "give it alone"),
        (["paper.yaml", "--pdf"], "paper.yaml cannot be read"),
        (["empty", "--recorded", "--pdf"], "comparison.json cannot be read"),
    ],
)
def test_options_that_do_not_go_together_are_refused(app, study, tmp_path, arguments, words):
    result = invoke(app, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "paper").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("studies: []", "paper.yaml:1: studies: "),
        ("title: x", "studies: Field required"),
        ("studies: [mine]\ncolour: red", "paper.yaml:2: colour: Extra inputs are not permitted"),
        ("studies: [mine]\nsections: {dicussion: a.md}", "sections.dicussion"),
        ("studies: [mine]\nsections: {discussion: gone.md}", "gone.md cannot be read"),
        ("- a", "is no mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_paper_file_that_cannot_be_used_says_where(app, study, tmp_path, content, words):
    invoke(app, "mine")
    (tmp_path / "paper.yaml").write_text(content)
    result = invoke(app, "paper.yaml", "--recorded", "--pdf")
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "main.tex").exists()


def test_an_overview_of_recorded_reports_needs_no_ledger(app, study, tmp_path):
    assert invoke(app, "mine").exit_code == 0
    (tmp_path / "sample.db").unlink()
    result = invoke(app, "mine", "--overview", "over")
    assert result.exit_code == 0, result.output
    assert "overview: over/overview.png, over/overview.pdf, over/overview.csv" in result.output
    assert (tmp_path / "over" / "overview.csv").read_text().count("sample,") == 1
    refused = invoke(app, "mine", "--overview", "over", "--pdf")
    assert refused.exit_code == 2
    assert "leave out the other options" in refused.stderr
