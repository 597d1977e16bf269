"""Every output over every ledger that should not be: hostile texts, numbers that are none, studies that are not done.

A ledger may come from elsewhere, so its texts are written past the checks of study files. What is drawn is not
rendered, which is what takes time.
"""

import csv
import io
import json
import math
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.errors import ReportError
from rankwise.ledger import open_ledger
from rankwise.reporting.paper.build import build_pdf
from rankwise.reporting.paper.config import PaperConfig, PaperStudy
from rankwise.reporting.paper.write import write_paper
from rankwise.reporting.write import write_report
from rankwise.testing.sample_ledger import write_sample

TEXTS = {
    "html": "</script><script>alert(1)</script><img src=x onerror=alert(1)> [l](javascript:alert(1)) | `c` **b**",
    "tex": r"\input{/etc/passwd} \write18{x} $%&_#{}^~\\[3cm] \end{document} ]] \rw{paper.studies} {{paper.studies}}",
    "control": "two\nlines\r\n\x1b[2J\x1b]0;title\x07 \x00 \x7f \u2028 \ud7ff",
    "unicode": "🙂 层 \u202egnp.exe\u202c شكل ünïcödé ﷽ e\u0301 \ufeff",
    "path": "../../../outside/\\..\\a:b*c?",
    "long": "a" * 10_000,
    "many words": "word " * 2_000,
    "formula": '=HYPERLINK("http://example.org")',
}

Break = Callable[[sqlite3.Connection], None]


def name_everything(text: str) -> Break:
    """The study, an arm, its baseline, hypothesis, errors, environment, counts, questions and answers."""

    def change(database: sqlite3.Connection) -> None:
        name = text[:5000] + " study"
        arms = {"uniform": text + " base", "linear_decay": text + " arm"}
        study, rates = map(json.loads, database.execute("SELECT study, chosen_learning_rates FROM studies").fetchone())
        for arm in study["arms"]:
            arm["name"] = arms.get(arm["name"], arm["name"])
        study |= {"name": name, "hypothesis": text}
        study["compare"]["baseline"] = arms["uniform"]
        rates = {arms.get(arm, arm): rate for arm, rate in rates.items()}
        told = json.dumps({"command": f"rankwise study {text}", text: text, "device": text})
        counts = json.dumps({text: {text: 1}, "splits": {text: {"num_examples": 3}}})
        database.execute(
            "UPDATE studies SET name = ?, hypothesis = ?, study = ?, chosen_learning_rates = ?, data_summary = ?",
            (name, text, json.dumps(study), json.dumps(rates), counts),
        )
        for old, new in arms.items():
            database.execute("UPDATE study_runs SET arm = ? WHERE arm = ?", (new, old))
        database.execute("UPDATE study_runs SET study = ?", (name,))
        database.execute("UPDATE environments SET study = ?, environment = ?", (name, told))
        database.execute("UPDATE runs SET error = ?, diverged_cause = ?", (text, text))
        database.execute("UPDATE answers SET written = ?", (text,))

    return change


def sql(*statements: str) -> Break:
    def change(database: sqlite3.Connection) -> None:
        for statement in statements:
            database.execute(statement)

    return change


def keep_arms(number: int) -> Break:
    def change(database: sqlite3.Connection) -> None:
        study = json.loads(database.execute("SELECT study FROM studies").fetchone()[0])
        gone = [arm["name"] for arm in study["arms"][number:]]
        study["arms"] = study["arms"][:number]
        database.execute("UPDATE studies SET study = ?", (json.dumps(study),))
        database.executemany("DELETE FROM study_runs WHERE arm = ?", [(name,) for name in gone])

    return change


NO_SCORES = "DELETE FROM evaluations", "DELETE FROM example_losses", "DELETE FROM answers"
LEDGERS: dict[str, Break] = {
    **{f"texts of {name}": name_everything(text) for name, text in TEXTS.items()},
    "losses that are not numbers": sql("UPDATE evaluations SET loss_nats = NULL, token_accuracy = NULL"),
    "infinite losses": sql("UPDATE evaluations SET loss_nats = 9e999", "UPDATE measurements SET loss_nats = 9e999"),
    "huge losses": sql("UPDATE evaluations SET loss_nats = 1e300", "UPDATE measurements SET loss_nats = 1e300"),
    "one run of huge loss": sql(
        "UPDATE evaluations SET loss_nats = 1e9 WHERE run_id = (SELECT run_id FROM study_runs WHERE arm = "
        "'linear_decay' AND purpose = 'report' LIMIT 1)"
    ),
    "equal losses": sql("UPDATE evaluations SET loss_nats = 2.0", "DELETE FROM example_losses"),
    "losses of zero": sql("UPDATE evaluations SET loss_nats = 0.0", "DELETE FROM example_losses"),
    "norms that are not numbers": sql(
        "UPDATE measurements SET grad_norm = NULL", "UPDATE traces SET update_norm = NULL"
    ),
    "no scores": sql(*NO_SCORES),
    "no test examples": sql("DELETE FROM example_losses"),
    "no details": sql(
        *(f"DELETE FROM {table}" for table in ("allocations", "outcomes", "revisions", "measurements", "traces"))
    ),
    "no environment": sql("DELETE FROM environments", "UPDATE studies SET data_summary = '{}'"),
    "no rate chosen": sql("UPDATE studies SET chosen_learning_rates = '{}'"),
    "one seed": sql("DELETE FROM study_runs WHERE run_id IN (SELECT id FROM runs WHERE seed IN (1, 2))"),
    "one arm": keep_arms(1),
    "no runs": sql("DELETE FROM study_runs"),
    "all pending": sql("UPDATE runs SET status = 'pending'", *NO_SCORES),
    "all diverged": sql(
        "UPDATE runs SET status = 'diverged', diverged_step = 3, diverged_cause = 'it did', error = NULL"
    ),
    "all failed": sql("UPDATE runs SET status = 'failed', error = 'OutOfMemoryError'"),
    "half finished": sql("UPDATE runs SET status = 'running' WHERE seed > 0"),
    "baseline missing": sql("DELETE FROM study_runs WHERE arm = 'uniform'"),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.db"
    with open_ledger(str(path)) as ledger:
        write_sample(ledger)
    return path


@pytest.fixture(params=LEDGERS)
def place(request, sample, tmp_path, monkeypatch) -> Path:
    """A folder with the broken ledger as rankwise.db, which is the working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(sample, folder / "rankwise.db")
    with closing(sqlite3.connect(folder / "rankwise.db")) as database, database:
        LEDGERS[request.param](database)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RANKWISE_LEDGER", raising=False)
    return folder


@pytest.fixture
def unrendered(monkeypatch):
    """Everything of a figure but its pixels."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).write_bytes(b"%PDF \x89PNG"))


def results_of(folder: Path):
    with open_ledger(str(folder / "rankwise.db"), create=False) as ledger:
        (name,) = ledger.study_names()
        return ledger.study_results(name)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script" and not dict(attrs).get("type")
        self.handlers += [name for name, value in attrs if name.startswith("on")]
        self.handlers += [value for name, value in attrs if name in ("href", "src") and "javascript:" in value]


def is_plain(text: str, *, lines: str = "\n") -> bool:
    """Nothing in it steers a terminal or turns the direction of what follows."""
    return all(char.isprintable() or char in lines for char in text)


def test_the_report_and_the_paper_are_whole(place, unrendered):
    results = results_of(place)
    files = write_report(results, place / "out")
    markdown = files.results.read_text(encoding="utf-8")
    page = files.page.read_text(encoding="utf-8")
    tags = Tags(page)
    assert (tags.scripts, tags.handlers) == (1, [])
    assert not re.search(r"<(script|img|iframe)", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL))
    for text in (markdown, files.verdict):
        assert is_plain(text)
        assert not re.search(r"\b(nan|inf|None(?!: every reported run finished))\b", text)
    json.loads(files.comparison.read_text(encoding="utf-8"), parse_constant=pytest.fail)

    paper = write_paper(PaperConfig(studies=(PaperStudy(results=place / "out"),)), place / "paper").folder
    tex = "".join(path.read_text(encoding="utf-8") for path in sorted(paper.rglob("*.tex")))
    assert is_plain(tex)
    assert is_plain((paper / "main.md").read_text(encoding="utf-8"))
    assert tex.count("\\end{document}") == 1
    for forbidden in (r"\input{/", r"\write18"):
        assert forbidden not in tex
    assert {path.name for path in place.parent.iterdir()} == {"here"}


def test_the_runs_can_be_listed_and_taken_out(place):
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["runs", *arguments], terminal_width=200)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert is_plain(call("list"))
    document = json.loads(call("list", "--json"), parse_constant=pytest.fail)
    rows = list(csv.DictReader(io.StringIO(call("list", "--format", "csv"))))
    assert len(document) == len(rows) == len(results_of(place).runs)
    if document:
        shown = call("show", document[-1]["id"])
        assert is_plain(shown)
    with open_ledger() as ledger:
        frame = ledger.to_pandas(settings=True)
        steps = ledger.metrics_to_pandas()
    assert len(frame) == len(document)
    assert set(steps["id"]) <= set(frame["id"])


def test_the_runs_can_be_pushed(place):
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    result = CliRunner().invoke(app, ["runs", "push", "--to", "tensorboard"], terminal_width=200)
    assert result.exit_code in (0, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert is_plain(result.output)
    assert {path.name for path in place.parent.iterdir()} == {"here"}
    assert math.isfinite(len(list(place.rglob("*"))))


@pytest.mark.parametrize("number", [0, 2])
def test_a_study_that_lost_its_baseline_is_refused(sample, tmp_path, number):
    with closing(sqlite3.connect(shutil.copy(sample, tmp_path / "rankwise.db"))) as database, database:
        keep_arms(number)(database)
        study = json.loads(database.execute("SELECT study FROM studies").fetchone()[0])
        study["compare"]["baseline"] = "gone"
        database.execute("UPDATE studies SET study = ?", (json.dumps(study),))
    with pytest.raises(ReportError, match=f"its baseline, gone, is none of its {number} arms"):
        write_report(results_of(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("latexmk"), reason="no TeX here: needs latexmk")
def test_the_worst_texts_build_in_one_paper(sample, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.reporting.write.FIGURES", {})
    folders = []
    for name in ("tex", "long", "many words"):
        shutil.copy(sample, tmp_path / "rankwise.db")
        with closing(sqlite3.connect(tmp_path / "rankwise.db")) as database, database:
            LEDGERS[f"texts of {name}"](database)
        folders.append(write_report(results_of(tmp_path), tmp_path / name).results.parent)
    config = PaperConfig(studies=tuple(PaperStudy(results=folder) for folder in folders), figures=())
    assert build_pdf(write_paper(config, tmp_path / "paper").folder).read_bytes().startswith(b"%PDF-")
