"""How figures look: sizes, type, colours and markers shared by all of them, and how they are written.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart by readers with any common colour
vision; every colour comes with its own marker and line style, so that figures survive printing in grey.
"""

import csv
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SINGLE_COLUMN_IN = 3.5
DOUBLE_COLUMN_IN = 7.16
"""Widths of one and two columns of a journal page, inches."""
DPI = 200

BASELINE_COLOUR = "#000000"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "h", "d")
LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
NEUTRAL = "#8C8C8C"
FAINT = "#E3E3E3"

OUTCOME_STYLES = {
    "better": ("#009E73", "<"),
    "worse": ("#D55E00", ">"),
    "practically the same": ("#0072B2", "D"),
    "undecided": (NEUTRAL, "o"),
}
"""Colour and marker of each verdict; the triangles point to the side they lie on."""

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "pdf.fonttype": 42,
    "text.usetex": False,
    "text.parse_math": False,
    "svg.hashsalt": "rankwise",
}


@dataclass(frozen=True)
class ArmStyle:
    colour: str
    marker: str
    line: Any


@dataclass(frozen=True, kw_only=True)
class FigureFiles:
    """One figure on disk, as `name.png`, `name.pdf` and, the data behind it, `name.csv`."""

    name: str
    caption: str
    folder: Path

    @property
    def png(self) -> Path:
        return self.folder / f"{self.name}.png"

    @property
    def pdf(self) -> Path:
        return self.folder / f"{self.name}.pdf"

    @property
    def csv(self) -> Path:
        return self.folder / f"{self.name}.csv"


def arm_styles(names: Sequence[str], baseline: str) -> dict[str, ArmStyle]:
    """One style an arm, the same in every figure of a study; the baseline is black."""
    others = [name for name in names if name != baseline]
    styles = {
        name: ArmStyle(
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)],
        )
        for index, name in enumerate(others)
    }
    return {baseline: ArmStyle(BASELINE_COLOUR, "o", "-")} | styles


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that belongs to no window system and to no global list."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(figure: Figure, num_panels: int, num_columns: int, **kwargs: Any) -> list[Axes]:
    """`num_panels` axes row by row; the places left over in the last row are taken out of the figure."""
    num_rows = -(-num_panels // num_columns)
    grid = figure.subplots(num_rows, num_columns, squeeze=False, **kwargs)
    axes = [axis for row in grid for axis in row]
    for position, axis in enumerate(axes[num_panels:], start=num_panels):
        axis.remove()
        axes[position - num_columns].xaxis.set_tick_params(labelbottom=True)
    return axes[:num_panels]


def save_figure(
    figure: Figure, folder: Path, name: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> FigureFiles:
    """Write PNG, PDF and the CSV of the data behind them. The same figure gives the same bytes on any day."""
    files = FigureFiles(name=name, caption=caption, folder=folder)
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; tables carry it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(files.png, dpi=DPI)
        figure.set_layout_engine("none")  # laid out once; a second time would cost as much as drawing
        figure.savefig(files.pdf, metadata={"CreationDate": None})
    with files.csv.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return files


def short(name: str, length: int = 24) -> str:
    """An arm's name on one line, cut to fit a panel; tables carry the whole."""
    name = "".join(char if char.isprintable() else " " for char in name)
    return name if len(name) <= length else name[: length - 1] + "…"
