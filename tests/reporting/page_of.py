"""Pages for tests, without drawing the figures on paper."""

from pathlib import Path

from rankwise.ledger.results import StudyResults
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.document import render_results
from rankwise.reporting.numbers import comparison_json
from rankwise.reporting.page.render import FIGURES, render_page
from rankwise.reporting.style import FigureFiles

HOSTILE = "_a|b `c` <script>alert(1)</script> $y$ **z** \"q\" 'r' & </script>\n# 日本 \x1b[2J"


def write_page(results: StudyResults, folder: Path) -> Path:
    """report.html of the study, each figure's data a stand-in."""
    comparison = compare_arms(results)
    (folder / "figures").mkdir(parents=True)
    drawn = [name for name, draw in FIGURES.items() if draw(results, comparison)]
    figures = [FigureFiles(name=name, caption=name, folder=folder / "figures") for name in drawn]
    for figure in figures:
        figure.csv.write_text("name\n" + figure.name + "\n")
    markdown = render_results(results, comparison, figures, command="rankwise study synthetic.yaml")
    (folder / "RESULTS.md").write_text(markdown, encoding="utf-8")
    numbers = comparison_json(comparison)
    (folder / "comparison.json").write_text(numbers, encoding="utf-8")
    page = folder / "report.html"
    page.write_text(render_page(results, comparison, markdown, figures, comparison_text=numbers), encoding="utf-8")
    return page
