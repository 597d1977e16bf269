"""Ranks by layer and module as a coloured table in the terminal, legible without colour too.

layer            0  1  2  3
self_attn.q_proj 12 10  7  4
mlp.up_proj      11  9  6  4
"""

import math

import numpy as np
from rich.style import Style
from rich.text import Text

from rankwise.allocation.rank_map import RankMap

PALETTE = (
    "#440154",
    "#472d7b",
    "#3b528b",
    "#2c728e",
    "#21918c",
    "#28ae80",
    "#5ec962",
    "#addc30",
    "#fde725",
)
"""Nine steps of matplotlib's viridis, low to high: even in lightness, and distinct for the colour-blind."""
FIRST_BRIGHT = 4
"""From this step on, black text is easier to read than white."""
ABSENT = "·"
HEADER = "layer"


def heat_map(rank_map: RankMap, width: int) -> list[Text]:
    """The lines of the table, at most `width` characters wide.

    Models with more layers than fit go on below, in stretches of about equal length.
    """
    labels, layers, ranks = rank_map.grid()
    label_chars = max(len(label) for label in (*labels, HEADER))
    cell_chars = 1 + max(len(str(number)) for number in (*layers, *rank_map.ranks))
    num_stretches = math.ceil(len(layers) / max(1, (width - label_chars) // cell_chars))
    lines: list[Text] = []
    for columns in np.array_split(np.arange(len(layers)), num_stretches):
        header = "".join(f"{layers[column]:>{cell_chars}}" for column in columns)
        lines.append(Text(f"{HEADER:<{label_chars}}{header}", style="dim", no_wrap=True))
        for label, row in zip(labels, ranks, strict=True):
            line = Text(f"{label:<{label_chars}}", no_wrap=True)
            for column in columns:
                line.append_text(_cell(row[column], cell_chars, rank_map))
            lines.append(line)
        lines.append(Text())
    return [*lines, _legend(rank_map)]


def _cell(rank: float, num_chars: int, rank_map: RankMap) -> Text:
    if math.isnan(rank):
        return Text(f"{ABSENT:>{num_chars}}", style="dim")
    return Text(f"{int(rank):>{num_chars}}", style=_style(int(rank), rank_map))


def _style(rank: int, rank_map: RankMap) -> Style:
    low, high = min(rank_map.ranks), max(rank_map.ranks)
    step = round((rank - low) / (high - low) * (len(PALETTE) - 1)) if high > low else FIRST_BRIGHT
    return Style(bgcolor=PALETTE[step], color="black" if step >= FIRST_BRIGHT else "white")


def _legend(rank_map: RankMap) -> Text:
    low, high = min(rank_map.ranks), max(rank_map.ranks)
    if low == high:
        return Text(f"every rank is {low}")
    legend = Text(f"rank {low} ")
    for step in range(len(PALETTE)):
        legend.append("  ", Style(bgcolor=PALETTE[step]))
    return legend.append(f" {high}")
