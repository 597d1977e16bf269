"""A paper's files: main.tex and all that it needs, and main.md; written all or none.

What they hold is composed first, so that an earlier paper can be compared with what would be written now.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rankwise.reporting.paper import digest
from rankwise.reporting.paper.blocks import Figure, Table
from rankwise.reporting.paper.config import PaperConfig
from rankwise.reporting.paper.document import write_document
from rankwise.reporting.paper.latex import render_macros, render_main, render_table
from rankwise.reporting.paper.markdown import render_markdown
from rankwise.reporting.paper.references import read_references
from rankwise.reporting.paper.sources import read_prose, read_sources
from rankwise.reporting.staging import staged

MARKDOWN = "main.md"
FOLDERS = ("tables", "figures")
ADVICE = "Name a folder that can be written with --out, or make room on the disk, and give the same command again."


@dataclass(frozen=True, kw_only=True)
class ComposedPaper:
    """What a paper's folder is to hold."""

    texts: Mapping[str, str]
    """Path in the folder -> content, of main.md and of all that TeX reads but the figures."""
    figures: Mapping[str, Path]
    """Path in the folder -> the report's drawing."""
    digest: str
    """Of all that TeX reads; see `rankwise.reporting.paper.digest`."""
    notes: tuple[str, ...]
    """What its author should look at: unfinished studies, prose that no longer fits."""


@dataclass(frozen=True, kw_only=True)
class PaperFiles:
    """Where a paper was written."""

    folder: Path
    tex: Path
    """main.tex."""
    markdown: Path
    """main.md."""
    notes: tuple[str, ...]
    """See `ComposedPaper`."""


def compose_paper(config: PaperConfig, out: Path) -> ComposedPaper:
    """The paper about the reports that `config` names, to lie in the folder `out`; nothing is written.

    Raises ReportError where a report or a section file cannot be read or names what does not exist.
    """
    sources = read_sources([(study.results, study.discussion) for study in config.studies])
    bibtex = _asset("references.bib") + (f"\n{read_prose(config.references).text}" if config.references else "")
    references = read_references(bibtex)
    paper, notes = write_document(sources, config, references)
    tables = {f"tables/{block.name}.tex": render_table(block) for block in paper.body if isinstance(block, Table)}
    figures = {f"figures/{block.name}.pdf": block.pdf for block in paper.body if isinstance(block, Figure)}
    tex = {
        **tables,
        "references.bib": bibtex,
        "macros.tex": render_macros(paper.values),
        "main.tex": render_main(paper, _asset("preamble.tex")),
    }
    drawings = {name: path.read_bytes() for name, path in figures.items()}
    digest_of_sources = digest.digest_of({name: text.encode() for name, text in tex.items()} | drawings)
    return ComposedPaper(
        texts={
            **tex,
            digest.FILE: digest.render_digest(digest_of_sources),
            MARKDOWN: render_markdown(paper, references, out),
        },
        figures=figures,
        digest=digest_of_sources,
        notes=tuple(notes),
    )


def write_paper(config: PaperConfig, out: Path) -> PaperFiles:
    """Write the paper about the reports that `config` names into the folder `out`, over an earlier one.

    Raises ReportError where a report or a section file cannot be read or names what does not exist, and where the
    folder cannot be written; what was there before is then unchanged.
    """
    paper = compose_paper(config, out)
    with staged(out, "paper", ADVICE) as staging:
        for name in FOLDERS:
            (staging / name).mkdir()
        for name, text in paper.texts.items():
            (staging / name).write_text(text, encoding="utf-8")
        for name, drawing in paper.figures.items():
            shutil.copyfile(drawing, staging / name)
        _publish(staging, out)
    return PaperFiles(folder=out, tex=out / "main.tex", markdown=out / MARKDOWN, notes=paper.notes)


def stale_files(config: PaperConfig, folder: Path) -> list[str]:
    """Which of main.md and main.pdf in `folder` are not what the reports and the code that writes papers give now.

    Raises ReportError as `compose_paper` does.
    """
    paper = compose_paper(config, folder)
    markdown = folder / MARKDOWN
    is_current = markdown.is_file() and markdown.read_text(encoding="utf-8") == paper.texts[MARKDOWN]
    stale = [] if is_current else [MARKDOWN]
    return stale if digest.digest_in_pdf(folder / "main.pdf") == paper.digest else [*stale, "main.pdf"]


def _asset(name: str) -> str:
    return (files("rankwise") / "assets" / "paper" / name).read_text(encoding="utf-8")


def _publish(staging: Path, out: Path) -> None:
    """Move finished files to their places, main.tex last, so that it never asks for a file that is not there yet."""
    for folder in FOLDERS:
        (out / folder).mkdir(exist_ok=True)
        for path in sorted((staging / folder).iterdir()):
            path.replace(out / folder / path.name)
    for name in ("references.bib", "macros.tex", digest.FILE, MARKDOWN, "main.tex"):
        (staging / name).replace(out / name)
