"""Predicted against measured memory and time; each pack tells its numbers and its runs."""

from collections.abc import Sequence

from markupsafe import Markup

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.predictions import (
    CAPTION,
    LOG_FROM,
    PURPOSE_STYLES,
    Quantity,
    error_in_words,
    known_quantities,
    limits,
    purpose_of,
)
from rankwise.reporting.format import format_count, format_error, format_size
from rankwise.reporting.page.figure import PageFigure, panel, panels
from rankwise.reporting.page.plot import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axes, Scale
from rankwise.reporting.page.svg import band_path, element, line_path, marker_path, tip
from rankwise.reporting.predictions import NEAR_FRAC, PackPrediction, Pair, pack_predictions
from rankwise.reporting.values import StudyComparison

HEIGHT = WIDTH - LEFT - RIGHT + TOP + BOTTOM
"""So that the line of equality rises at 45 degrees."""


def draw_predictions(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where no pack is known with what was predicted of it."""
    packs = pack_predictions(results.runs)
    drawn = [
        panel(f"{quantity.title}, {error_in_words(quantity.error(comparison))}", _draw_quantity(quantity, packs))
        for quantity in known_quantities(packs)
    ]
    return PageFigure(body=panels(drawn, "medium"), caption=CAPTION) if drawn else None


def _draw_quantity(quantity: Quantity, packs: Sequence[PackPrediction]) -> Markup:
    known = [(pack, pair) for pack in packs if (pair := quantity.of(pack))]
    low, high = limits([pair for _, pair in known])
    is_log = high / low > LOG_FROM
    space = Axes(
        x=Scale(low=low, high=high, start=LEFT, end=WIDTH - RIGHT, logarithmic=is_log),
        y=Scale(low=low, high=high, start=HEIGHT - BOTTOM, end=TOP, logarithmic=is_log),
        height=HEIGHT,
    )
    line = element("path", d=line_path([(space.x(end), space.y(end)) for end in (low, high)]), class_="axis")
    return space.draw(
        element("path", d=_band(space), class_="zone"), line, *(_draw_pack(space, pack, pair) for pack, pair in known),
        x_label=f"measured {quantity.label}", y_label=f"predicted {quantity.label}",
        summary=f"Predicted against measured {quantity.label} of {format_count(len(known), 'pack')}",
    )  # fmt: skip


def _band(space: Axes) -> str:
    """Within NEAR_FRAC of the line, cut to the plot: along the upper edge to the corner, and back along the lower."""
    low, high = space.x.low, space.x.high
    upper, lower = 1 + NEAR_FRAC, 1 - NEAR_FRAC
    above = [(low, low * upper), (high / upper, high), (high, high)]
    below = [(low, low), (low / lower, low), (high, high * lower)]
    at = [[(space.x(x), space.y(y)) for x, y in edge] for edge in (above, below)]
    return band_path(*at)


def _draw_pack(space: Axes, pack: PackPrediction, pair: Pair) -> Markup:
    predicted, measured = pair
    arms = list(dict.fromkeys(run.arm for run in pack.runs))
    about = tip(
        f"pack {pack.pack_id}, {'learning rates' if purpose_of(pack) == 'tuning' else 'reported runs'}",
        f"predicted {format_size(predicted)}, measured {format_size(measured)}, "
        f"{format_error(predicted / measured - 1)} off",
        f"{format_count(len(pack.runs), 'run')} of {', '.join(arms[:4])}{', …' if len(arms) > 4 else ''}",
    )
    marker = PURPOSE_STYLES[purpose_of(pack)][1]
    shape = marker_path(marker, space.x(measured), space.y(predicted), 5.0)
    return element("path", about, d=shape, class_=f"mark purpose-{purpose_of(pack)}")
