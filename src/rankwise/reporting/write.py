"""Write a report: RESULTS.md, report.html, figures with their data, and every number as JSON; all of it or nothing."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rankwise.ledger.results import StudyResults
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.document import render_results
from rankwise.reporting.figures import FIGURES
from rankwise.reporting.kept import keep_report
from rankwise.reporting.markdown import plain
from rankwise.reporting.numbers import comparison_json
from rankwise.reporting.page.render import render_page
from rankwise.reporting.staging import staged
from rankwise.reporting.style import FigureFiles
from rankwise.reporting.sweeps_section import answers_section
from rankwise.reporting.verdicts import completeness, verdict_section

FILES = ("comparison.json", "report.html", "RESULTS.md")
"""Beside the figures, in the order in which they are put in place."""
ADVICE = (
    "Name a folder that can be written, or make room on the disk, and give the same command again; the ledger holds "
    "everything it needs."
)


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where a report was written."""

    results: Path
    """RESULTS.md."""
    page: Path
    """report.html: the same to read, sort and look into; one file."""
    comparison: Path
    """comparison.json: every number of the report."""
    figures: tuple[FigureFiles, ...]
    verdict: str
    """The answer in words, for a terminal."""


def write_report(results: StudyResults, out: Path, *, command: str | None = None) -> ReportFiles:
    """Compare the arms and write the report into the folder `out`, over an earlier one.

    `command` is what reproduces the study; None: the one that the ledger remembers. Works on unfinished studies, too,
    and says what they lack.

    Raises ReportError where the folder cannot be written; what was there before is then unchanged.
    """
    comparison = compare_arms(results)
    with staged(out, "report", ADVICE) as staging:
        (staging / "figures").mkdir()
        drawn = [files for draw in FIGURES.values() if (files := draw(results, comparison, staging / "figures"))]
        figures = tuple(replace(files, folder=out / "figures") for files in drawn)
        command = command or results.environment.get("command")
        text = render_results(results, comparison, figures, command=command)
        (staging / "RESULTS.md").write_text(text, encoding="utf-8")
        numbers = comparison_json(comparison)
        (staging / "comparison.json").write_text(numbers, encoding="utf-8")
        page = render_page(results, comparison, text, drawn, comparison_text=numbers)
        (staging / "report.html").write_text(page, encoding="utf-8")
        _publish(staging, out)
    answer = answers_section(comparison).removeprefix("## Answer\n")
    verdict = plain(f"{completeness(comparison)}\n\n{answer}\n{verdict_section(comparison)}").strip()
    drawings = [str(path.relative_to(out)) for one in figures for path in (one.png, one.pdf, one.csv)]
    keep_report(results, out, [*FILES, *drawings], command=command, verdict=verdict)
    return ReportFiles(
        results=out / "RESULTS.md",
        page=out / "report.html",
        comparison=out / "comparison.json",
        figures=figures,
        verdict=verdict,
    )


def _publish(staging: Path, out: Path) -> None:
    """Move finished files to their places, RESULTS.md last, so that it never shows a figure that is not there yet."""
    figures = out / "figures"
    figures.mkdir(exist_ok=True)
    new = {path.name: path for path in sorted((staging / "figures").iterdir())}
    for path in new.values():
        path.replace(figures / path.name)
    for name in FILES:
        (staging / name).replace(out / name)
    for name, suffix in product(FIGURES, (".png", ".pdf", ".csv")):
        if name + suffix not in new:  # an earlier report's, which the new page no longer shows
            (figures / f"{name}{suffix}").unlink(missing_ok=True)
