"""The golden report is tests/golden/RESULTS.md; a change that is meant is copied there from the written one."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rankwise.errors import ReportError
from rankwise.ledger import open_ledger
from rankwise.reporting import write as write_module
from rankwise.reporting.figures import FIGURES
from rankwise.reporting.write import write_report

GOLDEN = Path(__file__).parents[1] / "golden" / "RESULTS.md"
ARMS = (
    {"name": "uniform", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "uniform-r16", "strategy": "uniform", "rank": 16, "effect": -0.03},
    {"name": "linear_decay", "strategy": "linear_decay", "rank": 8, "effect": 0.016},
    {"name": "empirical", "strategy": "empirical", "rank": 8, "effect": -0.019},
    {"name": "random", "strategy": "random", "rank": 8, "effect": 0.002},
)


@pytest.fixture(scope="module")
def small(build_study):
    def status_of(arm, purpose, rate, seed):
        return "diverged" if (arm, purpose, seed) == ("random", "report", 3) else "finished"

    return build_study(ARMS, num_seeds=8, num_layers=2, status_of=status_of)


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    return write_report(small, tmp_path_factory.mktemp("report"), command="rankwise study studies/synthetic.yaml")


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of the words alone."""
    monkeypatch.setattr(write_module, "FIGURES", {})


def test_the_report_is_the_golden_one(written):
    assert written.results.read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")


def test_every_link_of_the_report_leads_to_a_file_or_a_heading(written):
    text = written.results.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    assert len(links) > 15
    assert all(link[1:] in headings for link in links if link.startswith("#"))
    assert all((written.results.parent / link).is_file() for link in links if not link.startswith("#"))


def test_every_reported_run_can_be_found_by_its_id(small, written):
    text = written.results.read_text(encoding="utf-8")
    assert all(run.id in text for run in small.runs)


def test_all_numbers_are_in_the_json_document(small, written):
    document = json.loads(written.comparison.read_text(encoding="utf-8"))
    arms = {arm["name"]: arm for arm in document["arms"]}
    assert list(arms) == [arm["name"] for arm in ARMS]
    assert arms["uniform"]["difference"] is None
    assert arms["empirical"]["run_ids"] == [run.id for run in small.reported("empirical")]
    assert len(arms["random"]["difference"]["per_seed"]) == 7


def test_the_verdict_for_the_terminal_has_no_markup(written):
    assert "empirical is better than uniform" in written.verdict
    assert "**" not in written.verdict
    assert "&#" not in written.verdict


def test_an_unfinished_study_says_first_what_is_missing(build_study, tmp_path, no_figures):
    def status_of(arm, purpose, rate, seed):
        if purpose == "tuning":
            return "finished"
        return {"empirical": "pending", "random": "failed" if seed == 2 else "running"}.get(arm, "finished")

    files = write_report(build_study(ARMS, num_seeds=3, num_layers=1, status_of=status_of), tmp_path)
    text = files.results.read_text(encoding="utf-8")
    before_verdict = text[: text.index("## Verdict")]
    assert "**Unfinished.** 6 of 15 reported runs are missing: empirical (3), random (3)." in before_verdict
    assert "Not compared yet: **empirical** and **random** (control)." in text
    row = next(line for line in text.splitlines() if line.startswith("| empirical |"))
    assert "| 0/3 | – | – | – | – |" in row
    assert "step 41: the loss is not finite" in text


def test_a_study_without_finished_runs_says_so(build_study, tmp_path):
    study = build_study(ARMS, tuned=False, status_of=lambda *_: "pending")
    files = write_report(study, tmp_path)
    text = files.results.read_text(encoding="utf-8")
    assert "Nothing can be said yet: no reported run has finished." in text
    assert "No learning rate has been chosen yet for uniform" in text
    assert files.figures == ()
    assert "![" not in text


def test_one_seed_and_one_arm_make_a_report(build_study, tmp_path):
    files = write_report(build_study(ARMS[:1], num_seeds=1, num_layers=1), tmp_path)
    text = files.results.read_text(encoding="utf-8")
    assert "one arm, so there is nothing to compare" in text
    assert {figure.name for figure in files.figures} == {
        "predictions", "rank_maps", "learning_curves", "stability", "tuning",
    }  # fmt: skip


def test_two_arms_on_one_seed_are_undecided(build_study, tmp_path, no_figures):
    text = write_report(build_study(ARMS[::3], num_seeds=1, num_layers=1), tmp_path).results.read_text("utf-8")
    assert "**empirical** is not told apart from uniform" in text
    assert "One seed" in text


def test_arms_that_share_all_their_runs_are_the_same(build_study, tmp_path, no_figures):
    study = build_study(ARMS[:1], num_seeds=8, num_layers=1)
    settings = study.study["arms"][0]
    twin = [replace(run, arm="twin") for run in study.runs]
    study = replace(
        study,
        study={**study.study, "arms": [settings, {**settings, "name": "twin"}]},
        runs=(*study.runs, *twin),
        chosen_learning_rates={**study.chosen_learning_rates, "twin": 3e-4},
    )
    files = write_report(study, tmp_path)
    assert "twin is practically the same as uniform" in files.verdict
    json.loads(files.comparison.read_text("utf-8"), parse_constant=pytest.fail)


def test_hostile_names_stay_text(build_study, tmp_path):
    hostile = "_a|b `c` <script>x</script> $y$ **z**\n# 日本 \x1b[2J"
    arms = (ARMS[0], {**ARMS[3], "name": hostile})
    study = build_study(arms, num_seeds=2, num_layers=1)
    study = replace(
        study,
        hypothesis="<img src=x onerror=alert(1)> | **bold**",
        environment={"command": "rankwise study ```\n</details><script>"},
    )
    files = write_report(study, tmp_path)
    text = files.results.read_text(encoding="utf-8")
    prose = re.sub(r"^````.*?^````", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in prose
    assert "<img" not in prose
    assert "\x1b" not in text
    table = text[text.index("| Arm | Ranks") :].split("\n\n")[0]
    assert len({line.count("|") for line in table.splitlines()}) == 1
    assert {figure.name for figure in files.figures} == set(FIGURES) - {
        "pareto", "quantization_error", "ranks_over_time",
    }, "one budget, and ranks that stay"  # fmt: skip


def test_a_new_report_replaces_the_old_and_its_figures(build_study, tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "FIGURES", {"differences": FIGURES["differences"]})
    write_report(build_study(ARMS[:2], num_seeds=2, num_layers=1), tmp_path)
    assert (tmp_path / "figures" / "differences.png").exists()
    (tmp_path / "figures" / "mine.png").write_bytes(b"kept")
    write_report(build_study(ARMS[:1], num_seeds=1, num_layers=1), tmp_path)
    assert not list((tmp_path / "figures").glob("differences.*"))
    assert (tmp_path / "figures" / "mine.png").read_bytes() == b"kept"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".report.json", "RESULTS.md", "comparison.json", "figures", "report.html"]


def test_a_disk_that_fills_up_leaves_the_old_report(build_study, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "RESULTS.md").write_text("old")
    monkeypatch.setattr(write_module, "FIGURES", {"differences": full})
    with pytest.raises(ReportError, match=r"No space left.*make room on the disk") as caught:
        write_report(build_study(ARMS[:1], num_seeds=1, num_layers=1), tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["RESULTS.md"]
    assert (tmp_path / "RESULTS.md").read_text() == "old"


def test_a_file_where_the_folder_should_be_is_refused(build_study, tmp_path):
    place = tmp_path / "taken"
    place.write_text("mine")
    with pytest.raises(ReportError, match="taken: the report cannot be written"):
        write_report(build_study(ARMS[:1], num_seeds=1, num_layers=1), place)
    assert place.read_text() == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="only an ordinary user can be refused a folder")
def test_a_folder_without_permission_is_refused(build_study, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ReportError, match="Permission denied"):
        write_report(build_study(ARMS[:1], num_seeds=1, num_layers=1), tmp_path / "out")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_ledgers_of_every_version_give_a_report(version, tmp_path, no_figures):
    path = shutil.copy(GOLDEN.parents[1] / "ledger" / "assets" / f"{version}.sqlite", tmp_path / "ledger.db")
    with open_ledger(str(path)) as ledger:
        text = write_report(ledger.study_results("sample"), tmp_path / "out").results.read_text("utf-8")
    assert "## Stability" in text
    assert ("Size of steps" in text) == (version != "v1")
    assert ("ended before adapters were read back again" in text) == (version == "v1")


def test_reporting_needs_neither_torch_nor_pyplot():
    code = (
        "import sys, rankwise.reporting.write\n"
        "heavy = {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
