"""What the documentation shows as Python runs: from the ledger, on recorded results, and as a new strategy."""

import re
from pathlib import Path

import pytest

from rankwise.allocation import STRATEGIES
from rankwise.ledger import open_ledger
from rankwise.study import parse_study
from rankwise.testing.sample_ledger import write_sample

ROOT = Path(__file__).parents[1]


@pytest.fixture
def with_ledger(tmp_path, monkeypatch):
    """A working directory with a ledger in it."""
    monkeypatch.chdir(tmp_path)
    with open_ledger("rankwise.db") as ledger:
        write_sample(ledger)


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_data_page_runs_from_top_to_bottom(with_ledger, capsys):
    names = {}
    for block in python_blocks("docs/data-out.md"):
        exec(compile(block, "docs/data-out.md", "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"sample +linear_decay +3 +\d", printed)
    assert "nano" in printed


def test_the_report_page_reads_a_comparison(monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "docs")
    (block,) = python_blocks("docs/reading-the-report.md")
    exec(compile(block, "docs/reading-the-report.md", "exec"), {})
    assert "uniform-r16 better" in capsys.readouterr().out


def test_the_statistics_page_simulates_coverage(capsys):
    (block,) = python_blocks("docs/statistics.md")
    assert "range(1000)" in block
    assert "num_resamples=999" in block
    fewer = block.replace("range(1000)", "range(60)").replace("num_resamples=999", "num_resamples=199")
    exec(compile(fewer, "docs/statistics.md", "exec"), {})
    assert 0.85 <= float(capsys.readouterr().out) <= 1


def test_the_strategy_page_makes_a_strategy_that_keeps_the_contract(monkeypatch):
    """Followed to the letter: the file, the bounds as its method, the entry, and the contract."""
    blocks = python_blocks("docs/add-a-strategy.md")
    define = next(block for block in blocks if "class ByWidth" in block)
    bounds = next(block for block in blocks if "def rank_bounds" in block)
    check = next(block for block in blocks if "check_strategy(" in block)
    names = {}
    exec(compile(define + bounds, "docs/add-a-strategy.md", "exec"), names)
    monkeypatch.setitem(STRATEGIES, "by_width", names["ByWidth"])
    exec(compile(check, "docs/add-a-strategy.md", "exec"), names)
    text = "name: a\nhypothesis: b\nbudget: {rank: 4}\nseeds: 2\ncompare: {baseline: by_width}\narms: [%s]"
    shown = re.findall(r"`- (\{strategy: .*?\})`", (ROOT / "docs/add-a-strategy.md").read_text(encoding="utf-8"))
    assert len(shown) == 2
    study = parse_study(text % ", ".join(["by_width", *shown[1:]]), origin="page")
    assert [arm.strategy for arm in study.arms] == ["by_width", "shuffled"]
    assert parse_study(text.replace("by_width}", "a}") % shown[0].replace("{", "{name: a, ", 1), origin="page")
