"""The whole page: text, figures, data, style and script in one file that asks nothing of any network.

Its security policy allows the one script and the one style sheet by their hashes and no other, so that even a text
that slipped through the escaping could not run.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from rankwise import __version__
from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.predictions import PURPOSE_STYLES
from rankwise.reporting.figures.signals import KIND_STYLES
from rankwise.reporting.markdown import one_line
from rankwise.reporting.page.curves import draw_learning_curves
from rankwise.reporting.page.facts import held_files, page_facts, script_json
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks, legend_key
from rankwise.reporting.page.forest import draw_forest, outcome_class
from rankwise.reporting.page.loss_against_params import draw_loss_against_params
from rankwise.reporting.page.pareto import draw_pareto
from rankwise.reporting.page.predictions import draw_predictions
from rankwise.reporting.page.prose import Links, sections_of
from rankwise.reporting.page.rank_maps import draw_rank_maps
from rankwise.reporting.page.ranks_over_time import draw_ranks_over_time
from rankwise.reporting.page.signals import draw_signals
from rankwise.reporting.page.stability import draw_stability
from rankwise.reporting.page.svg import element
from rankwise.reporting.page.tuning import draw_tuning
from rankwise.reporting.style import BASELINE_COLOUR, OUTCOME_STYLES, FigureFiles
from rankwise.reporting.values import StudyComparison

FIGURES = {
    "pareto": draw_pareto,
    "differences": draw_forest,
    "loss_against_params": draw_loss_against_params,
    "predictions": draw_predictions,
    "rank_maps": draw_rank_maps,
    "ranks_over_time": draw_ranks_over_time,
    "signals": draw_signals,
    "learning_curves": draw_learning_curves,
    "stability": draw_stability,
    "tuning": draw_tuning,
}
"""Figures of the report that the page draws itself. Others are shown as they are on paper."""
MOST_BYTES, MOST_FILE_BYTES = 5_500_000, 3_000_000
"""Of the page, and of the files that it holds: small enough for mail. Drawings that would not fit become pictures,
pictures that would not fit are left out, and the files have what the rest leaves."""


def render_page(
    results: StudyResults,
    comparison: StudyComparison,
    markdown: str,
    figures: Sequence[FigureFiles],
    *,
    comparison_text: str,
    live_version: str | None = None,
) -> str:
    """report.html. `markdown` is RESULTS.md, whose words it has; `comparison_text` is comparison.json.

    With `live_version` the page may ask its own server whether there is another, and nothing else.
    """
    looks = arm_looks(results, comparison)
    drawn = {figure.name: _draw(figure, results, comparison) for figure in figures}
    facts = script_json(page_facts(results, comparison))
    left_bytes = MOST_BYTES - len(facts) - 3 * len(markdown)
    left_bytes -= _shrink(drawn, figures, left_bytes)
    files = held_files(comparison_text, results, figures, limit_bytes=min(MOST_FILE_BYTES, left_bytes))
    links = Links(
        arms={name: look.index for name, look in looks.items()},
        run_ids=frozenset(run.id for run in results.runs),
        figures={name: _figure(name, figure, files) for name, figure in drawn.items()},
        files=frozenset(files),
    )
    opening, *sections = sections_of(markdown, links)
    style, script = _asset("page.css") + _colours(looks), _asset("page.js")
    return _template().render(
        study=one_line(results.name),
        opening=opening,
        sections=sections,
        arms=[(look.index, one_line(name), legend_key(look)) for name, look in looks.items()],
        seeds=sorted({run.seed for run in results.runs if run.purpose == "report"}),
        facts=facts,
        files=files,
        style=Markup(style),  # noqa: S704 - this package's own
        script=Markup(script),  # noqa: S704 - this package's own
        policy=(
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
            "base-uri 'none'; form-action 'none'" + ("; connect-src 'self'" if live_version else "")
        ),
        version=__version__,
        live_version=live_version,
    )


def _draw(files: FigureFiles, results: StudyResults, comparison: StudyComparison) -> PageFigure:
    """By the page where it can, else the picture."""
    draw = FIGURES.get(files.name)
    drawn = draw(results, comparison) if draw else None
    return drawn or PageFigure(body=_picture(files), caption=files.caption)


def _shrink(drawn: dict[str, PageFigure], figures: Sequence[FigureFiles], limit_bytes: int) -> int:
    """Put pictures in the place of the largest drawings until they fit, then nothing in the place of the largest
    pictures, and say so; returns what they take."""

    def size() -> int:
        return sum(len(one.body) for one in drawn.values())

    def largest_first() -> list[FigureFiles]:
        return sorted(figures, key=lambda figure: -len(drawn[figure.name].body))

    for figure in largest_first():
        if size() > limit_bytes and figure.png.is_file():
            note = " A picture only: there are too many runs for a figure to point at."
            picture = PageFigure(body=_picture(figure), caption=figure.caption + note)
            if len(picture.body) < len(drawn[figure.name].body):
                drawn[figure.name] = picture
    for figure in largest_first():
        if size() > limit_bytes:
            note = f" Left out, because the page would be too large to mail: figures/{figure.name}.png beside it."
            drawn[figure.name] = PageFigure(body=Markup(""), caption=figure.caption + note)
    return size()


def _figure(name: str, drawn: PageFigure, held: Mapping[str, str]) -> Markup:
    data = f"figures/{name}.csv"
    button = element("button", "Data (CSV)", type="button", data_file=data) if data in held else Markup("")
    caption = element("figcaption", drawn.caption, Markup(" "), button)
    return element("figure", drawn.body, caption, id=f"figure-{name}", data_figure=name)


def _picture(files: FigureFiles) -> Markup:
    data = base64.b64encode(files.png.read_bytes()).decode("ascii")
    return element("img", src=f"data:image/png;base64,{data}", alt=files.caption, class_="picture")


def _colours(looks: Mapping[str, Look]) -> str:
    """The palette of the other figures; the baseline, black on paper, is the text's colour on any ground."""
    arms = "".join(
        f".arm-{look.index}{{--arm:{'var(--ink)' if look.colour == BASELINE_COLOUR else look.colour}}}\n"
        for look in looks.values()
    )
    outcomes = "".join(
        f".{outcome_class(word)}{{--outcome:{colour}}}\n" for word, (colour, _) in OUTCOME_STYLES.items()
    )
    kinds = "".join(f".kind-{kind}{{--arm:{colour}}}\n" for kind, (colour, _) in KIND_STYLES.items())
    purposes = "".join(f".purpose-{purpose}{{--arm:{colour}}}\n" for purpose, (colour, _) in PURPOSE_STYLES.items())
    return "\n" + arms + outcomes + kinds + purposes


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _asset(name: str) -> str:
    return (resources.files("rankwise") / "assets" / "page" / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html.jinja"))
