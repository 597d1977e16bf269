"""Write a paper into a folder: main.tex and all that it needs, and main.md; all of it or nothing."""

import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rankwise.reporting.paper.blocks import Figure, Table
from rankwise.reporting.paper.config import PaperConfig
from rankwise.reporting.paper.document import write_document
from rankwise.reporting.paper.latex import render_macros, render_main, render_table
from rankwise.reporting.paper.markdown import render_markdown
from rankwise.reporting.paper.references import read_references
from rankwise.reporting.paper.sources import read_prose, read_sources
from rankwise.reporting.staging import staged

ADVICE = "Name a folder that can be written with --out, or make room on the disk, and give the same command again."


@dataclass(frozen=True, kw_only=True)
class PaperFiles:
    """Where a paper was written."""

    folder: Path
    tex: Path
    """main.tex."""
    markdown: Path
    """main.md."""
    notes: tuple[str, ...]
    """What its author should look at: unfinished studies, prose that no longer fits."""


def write_paper(config: PaperConfig, out: Path) -> PaperFiles:
    """Write the paper about the reports that `config` names into the folder `out`, over an earlier one.

    Raises ReportError where a report or a section file cannot be read or names what does not exist, and where the
    folder cannot be written; what was there before is then unchanged.
    """
    sources = read_sources([(study.results, study.discussion) for study in config.studies])
    bibtex = _asset("references.bib") + (f"\n{read_prose(config.references).text}" if config.references else "")
    references = read_references(bibtex)
    paper, notes = write_document(sources, config, references)
    with staged(out, "paper", ADVICE) as staging:
        for name in ("tables", "figures"):
            (staging / name).mkdir()
        for block in paper.body:
            if isinstance(block, Table):
                _write(staging / "tables" / f"{block.name}.tex", render_table(block))
            elif isinstance(block, Figure):
                shutil.copyfile(block.pdf, staging / "figures" / f"{block.name}.pdf")
        _write(staging / "references.bib", bibtex)
        _write(staging / "macros.tex", render_macros(paper.values))
        _write(staging / "main.md", render_markdown(paper, references, out))
        _write(staging / "main.tex", render_main(paper, _asset("preamble.tex")))
        _publish(staging, out)
    return PaperFiles(folder=out, tex=out / "main.tex", markdown=out / "main.md", notes=tuple(notes))


def _asset(name: str) -> str:
    return (files("rankwise") / "assets" / "paper" / name).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _publish(staging: Path, out: Path) -> None:
    """Move finished files to their places, main.tex last, so that it never asks for a file that is not there yet."""
    for folder in ("tables", "figures"):
        (out / folder).mkdir(exist_ok=True)
        for path in sorted((staging / folder).iterdir()):
            path.replace(out / folder / path.name)
    for name in ("references.bib", "macros.tex", "main.md", "main.tex"):
        (staging / name).replace(out / name)
