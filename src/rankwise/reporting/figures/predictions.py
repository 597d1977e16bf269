"""Calibration of the predictions: memory and time of each pack as predicted, against what it then took."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from rankwise.ledger.results import StudyResults
from rankwise.reporting.format import format_count, format_error, format_percent
from rankwise.reporting.predictions import NEAR_FRAC, PackPrediction, Pair, pack_predictions
from rankwise.reporting.style import COLOURS, DOUBLE_COLUMN_IN, FAINT, RC, FigureFiles, new_figure, save_figure
from rankwise.reporting.values import PredictionError, StudyComparison

HEADER = (
    "pack_id", "purpose", "num_runs", "predicted_memory_bytes", "peak_memory_bytes", "predicted_wall_s", "wall_s",
)  # fmt: skip
LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which both axes are logarithmic."""
MARGIN_FRAC = 0.08
PURPOSE_STYLES = {"report": (COLOURS[0], "o"), "tuning": (COLOURS[1], "D")}
"""Colour and marker of packs with reported runs, and of those that only chose learning rates."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One panel."""

    title: str
    label: str
    of: Callable[[PackPrediction], Pair | None]
    """Predicted and measured, in the unit of the label."""
    error: Callable[[StudyComparison], PredictionError | None]


def _mebibytes(pack: PackPrediction) -> Pair | None:
    return (pack.memory_bytes[0] / 2**20, pack.memory_bytes[1] / 2**20) if pack.memory_bytes else None


QUANTITIES = (
    Quantity(title="memory", label="peak memory (MiB)", of=_mebibytes, error=lambda found: found.memory_prediction),
    Quantity(
        title="time", label="wall time (s)", of=lambda pack: pack.wall_s, error=lambda found: found.time_prediction
    ),
)


def known_quantities(packs: Sequence[PackPrediction]) -> list[Quantity]:
    """Those that were predicted and measured of some pack."""
    return [quantity for quantity in QUANTITIES if any(map(quantity.of, packs))]


def purpose_of(pack: PackPrediction) -> str:
    return "tuning" if all(run.purpose == "tuning" for run in pack.runs) else "report"


def error_in_words(error: PredictionError | None) -> str:
    if error is None:
        return ""
    return (
        f"{format_count(error.num_packs, 'pack')}: {format_percent(error.median_frac)} off in the median, "
        f"{format_error(error.largest_frac)} at worst"
    )


CAPTION = (
    "Predicted against measured, pack by pack, tuning included. On the line the two are equal, above it too much was "
    f"predicted; shaded: within {NEAR_FRAC:.0%}. Of a pack that is shared with another study only this study's runs "
    "count in its time, and measured time contains what else the machine did."
)


@matplotlib.rc_context(RC)
def draw_predictions(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel for memory and one for time; None where no pack is known with what was predicted of it."""
    packs = pack_predictions(results.runs)
    quantities = known_quantities(packs)
    if not quantities:
        return None
    figure = new_figure(DOUBLE_COLUMN_IN * len(quantities) / 2, 3.4)
    for axis, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
        _draw_quantity(axis, quantity, packs, error_in_words(quantity.error(comparison)))
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="none", label=f"pack of {name} runs")
        for (purpose, (colour, marker)), name in zip(PURPOSE_STYLES.items(), ("reported", "tuning"), strict=True)
        if any(purpose_of(pack) == purpose for pack in packs)
    ]
    handles.append(Patch(color=FAINT, label=f"within {NEAR_FRAC:.0%}"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return save_figure(figure, folder, "predictions", CAPTION, HEADER, _rows_of(packs))


def _draw_quantity(axis: Axes, quantity: Quantity, packs: Sequence[PackPrediction], error: str) -> None:
    pairs = [(purpose_of(pack), pair) for pack in packs if (pair := quantity.of(pack))]
    low, high = limits([pair for _, pair in pairs])
    axis.fill_between(
        [low, high], [low * (1 - NEAR_FRAC), high * (1 - NEAR_FRAC)], [low * (1 + NEAR_FRAC), high * (1 + NEAR_FRAC)],
        color=FAINT, linewidth=0, zorder=0,
    )  # fmt: skip
    axis.plot([low, high], [low, high], color="black", linewidth=0.8, zorder=1)
    for purpose, (colour, marker) in PURPOSE_STYLES.items():
        mine = [pair for of, pair in pairs if of == purpose]
        axis.plot(
            [measured for _, measured in mine], [predicted for predicted, _ in mine],
            linestyle="none", marker=marker, markersize=4.5, color=colour, alpha=0.75, markeredgecolor="white",
            markeredgewidth=0.5, zorder=2,
        )  # fmt: skip
    if high / low > LOG_FROM:
        for one, scale in ((axis.xaxis, axis.set_xscale), (axis.yaxis, axis.set_yscale)):
            scale("log")
            one.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            one.set_major_formatter(ScalarFormatter())
            one.set_minor_formatter(NullFormatter())
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.set_title(error)
    axis.set_xlabel(f"measured {quantity.label}")
    axis.set_ylabel(f"predicted {quantity.label}")
    axis.grid(color="#EEEEEE", linewidth=0.5)


def limits(pairs: Sequence[Pair]) -> Pair:
    """Of both axes: around all values, with a margin that keeps a value that stands alone off the edges."""
    values = [value for pair in pairs for value in pair]
    low, high = min(values), max(values)
    if high / low > LOG_FROM:
        return low / (1 + 2 * MARGIN_FRAC), high * (1 + 2 * MARGIN_FRAC)
    margin = max((high - low) * MARGIN_FRAC, high * NEAR_FRAC / 2)
    return low - margin, high + margin


def _rows_of(packs: Sequence[PackPrediction]) -> Iterator[tuple[object, ...]]:
    for pack in packs:
        memory, wall = pack.memory_bytes or (None, None), pack.wall_s or (None, None)
        yield pack.pack_id, purpose_of(pack), len(pack.runs), *memory, *wall
