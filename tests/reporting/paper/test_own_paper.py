"""The project's own paper: its prose types no results, and it can be written from the recorded studies."""

import re
from pathlib import Path

import pytest

from rankwise.reporting.paper.blocks import Bullets, Paragraph
from rankwise.reporting.paper.config import load_paper
from rankwise.reporting.paper.prose import parse, spans
from rankwise.reporting.paper.write import stale_files, write_paper

ROOT = Path(__file__).parents[3]
PROSE = sorted(
    [
        *(path for path in (ROOT / "paper").glob("*.md") if path.name != "main.md"),
        *(ROOT / "studies").glob("*.discussion.md"),
        *(ROOT / "src" / "rankwise" / "assets" / "paper").glob("*.md"),
    ]
)
FACTS = {"8.9"}
"""Of the base model, in millions of parameters: no result."""


def plain_texts(path):
    for block in parse(path.read_text(encoding="utf-8")):
        texts = [block.text] if isinstance(block, Paragraph) else block.items if isinstance(block, Bullets) else []
        yield from (span.text for text in texts for span in spans(text) if span.kind == "plain")


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_no_result_is_typed_in_prose(path):
    typed = re.findall(r"[-+−]?\d+\.\d+|\d+%|\d{3,}", " ".join(plain_texts(path)))
    assert set(typed) <= FACTS


def test_the_paper_is_written_from_what_is_recorded(tmp_path):
    config = load_paper(ROOT / "paper" / "paper.yaml")
    files = write_paper(config, tmp_path / "paper")
    text = files.tex.read_text(encoding="utf-8")
    assert text.count("\\includegraphics") >= 6
    assert text.count("\\input{tables/") >= 6


def test_the_committed_paper_is_what_the_recorded_studies_give():
    stale = stale_files(load_paper(ROOT / "paper" / "paper.yaml"), ROOT / "paper")
    assert not stale, (
        f"paper/{' and paper/'.join(stale)}: older than docs/results, studies/*.discussion.md, paper/*.md or the code "
        "that writes papers. Give `make paper` (it needs TeX) and commit both files."
    )
