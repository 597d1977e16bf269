"""What the documentation shows as Python runs, on a ledger with a run in every state."""

import re
from pathlib import Path

import pytest

from rankwise.ledger import open_ledger
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
