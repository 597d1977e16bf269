"""What a figure of the page is, and how its arms look: as in the other figures of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rankwise.ledger.results import StudyResults
from rankwise.reporting.page.svg import element, marker_path
from rankwise.reporting.style import arm_styles
from rankwise.reporting.values import StudyComparison


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    body: Markup
    caption: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one arm is drawn. Its colour is that of the class `arm-N`."""

    index: int
    """Position in the study: what the page calls the arm, so that no name ever becomes an attribute's meaning."""
    colour: str
    marker: str
    dashes: str | None

    @property
    def css_class(self) -> str:
        return f"arm-{self.index}"


def arm_looks(results: StudyResults, comparison: StudyComparison) -> dict[str, Look]:
    """Name -> look, the same as in every figure of the study."""
    styles = arm_styles(results.arm_names, comparison.baseline)
    return {
        name: Look(
            index=index, colour=styles[name].colour, marker=styles[name].marker, dashes=_dashes(styles[name].line)
        )
        for index, name in enumerate(results.arm_names)
    }


def _dashes(line: Any) -> str | None:
    """matplotlib's `(offset, (on, off, …))`, in widths of a line of two pixels."""
    return None if line == "-" else " ".join(f"{2 * length:g}" for length in line[1])


def mark(look: Look, x: float, y: float, *children: Markup, radius: float = 4.5) -> Markup:
    """An arm's own marker."""
    return element("path", *children, d=marker_path(look.marker, x, y, radius), class_="mark")


def cross(x: float, y: float, *children: Markup, run: str | None = None, half: float = 5.0) -> Markup:
    """Where a run diverged."""
    path = f"M{x - half:.1f},{y - half:.1f}l{2 * half:g},{2 * half:g}m0,{-2 * half:g}l{-2 * half:g},{2 * half:g}"
    return element("path", *children, d=path, class_="diverged", data_run=run)


def of_arm(look: Look, *parts: Markup) -> Markup:
    """A group that is coloured as the arm and hidden with it."""
    return element("g", *parts, class_=look.css_class, data_arm=look.index)


def panel(title: str, body: Markup, look: Look | None = None) -> Markup:
    """One of several drawings beside each other; it goes where its arm goes."""
    attributes = {"data_arm": look.index} if look else {}
    key = legend_key(look) if look else Markup("")
    return element("div", element("p", key, title, class_="panel-title"), body, class_="panel", **attributes)


def panels(parts: Sequence[Markup], size: str) -> Markup:
    """`size`: `small` or `medium`, the width from which a further panel fits beside."""
    return element("div", *parts, class_=f"panels {size}")


def with_legend(body: Markup, looks: Mapping[str, Look]) -> Markup:
    """A drawing of many arms, and which is which."""
    return element("div", body, legend(looks), class_="with-legend")


def legend(looks: Mapping[str, Look]) -> Markup:
    """Each arm's line and marker beside its name."""
    entries = [element("li", legend_key(look), name, data_arm=look.index) for name, look in looks.items()]
    return element("ul", *entries, class_="legend")


def legend_key(look: Look) -> Markup:
    """The arm's marker and line, as small as a word."""
    line = element("path", d="M0,7h22", class_="line", stroke_dasharray=look.dashes)
    return element(
        "svg", line, mark(look, 11, 7, radius=4.0),
        viewBox="0 0 22 14", class_=f"key {look.css_class}", aria_hidden="true",
    )  # fmt: skip
