"""The chart of a profile: peak memory by cause, predicted beside measured; time of a step; time of a token."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from rankwise.reporting.style import (
    COLOURS,
    DOUBLE_COLUMN_IN,
    MARKERS,
    NEUTRAL,
    RC,
    FigureFiles,
    new_figure,
    save_figure,
)

HEADER = ("rank", "quantity", "part", "predicted", "measured", "unit")
PHASES = ("forward", "backward", "optimizer")
FORMS = ("base", "separate", "baked", "merged")
BAR = 0.38
"""Width of one bar; a rank has a place of width 1."""


@matplotlib.rc_context(RC)
def draw_profile(document: Mapping[str, Any], folder: Path) -> FigureFiles:
    """Draw the JSON document of `rankwise profile` into `folder`, as profile.png, .pdf and .csv."""
    ranks = document["ranks"]
    figure = new_figure(DOUBLE_COLUMN_IN, 2.7)
    memory, time, generation = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    _draw_memory(memory, ranks)
    _draw_times(time, ranks)
    _draw_generation(generation, ranks)
    for axis in (memory, time, generation):
        axis.set_xticks(range(len(ranks)), [str(entry["measured"]["rank"]) for entry in ranks])
        axis.set_xlabel("rank")
        axis.grid(axis="y", color="#EEEEEE", linewidth=0.5)
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, handlelength=1.2, columnspacing=1.0)
    settings = document["settings"]
    base = settings["base"]
    caption = (
        f"{base['model']}, {base['quantization']} quantization, {base['dtype']}, {settings['batch_size']} rows of "
        f"{settings['tokens']} tokens{', gradient checkpointing' if settings['gradient_checkpointing'] else ''} on "
        f"{document['device']}. Left: peak memory by cause, predicted (hatched) and "
        "measured. Middle: median time of a step. Right: time of each token after the first, one row."
    )
    return save_figure(figure, folder, "profile", caption, HEADER, _rows_of(ranks))


def _draw_memory(axis: Axes, ranks: list[Any]) -> None:
    terms = list(ranks[0]["predicted_terms"])
    colours = dict(zip(terms, (NEUTRAL, *COLOURS, "#F0E442"), strict=True))
    for place, entry in enumerate(ranks):
        sides = ((-BAR / 2, entry["predicted_terms"], "////"), (BAR / 2, entry["measured"]["terms"], ""))
        for offset, sizes, hatch in sides:
            below = 0.0
            for name in terms:
                size = sizes[name] / 2**20
                axis.bar(
                    place + offset, size, BAR * 0.94, below, color=colours[name], hatch=hatch, edgecolor="white",
                    linewidth=0.3, label=name if place == 0 and not hatch else None,
                )  # fmt: skip
                below += size
    axis.set_ylabel("peak memory (MiB)")


def _draw_times(axis: Axes, ranks: list[Any]) -> None:
    for place, entry in enumerate(ranks):
        below = 0.0
        for phase, colour in zip(PHASES, COLOURS, strict=False):
            taken = 1000 * (entry["measured"][f"{phase}_s"] or 0.0)
            axis.bar(
                place, taken, 0.6, below, color=colour, edgecolor="white", linewidth=0.3,
                label=phase if place == 0 else None,
            )  # fmt: skip
            below += taken
    axis.set_ylabel("time of a step (ms)")


def _draw_generation(axis: Axes, ranks: list[Any]) -> None:
    for form, colour, marker in zip(FORMS, COLOURS, MARKERS, strict=False):
        points = [
            (place, 1000 * entry["measured"]["generation"][form]["token_s"])
            for place, entry in enumerate(ranks)
            if form in entry["measured"]["generation"]
        ]
        if points:
            axis.plot(*zip(*points, strict=True), color=colour, marker=marker, label=form)
    axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
    axis.set_xlim(-0.5, len(ranks) - 0.5)
    axis.set_ylabel("time of a token (ms)")


def _rows_of(ranks: list[Any]) -> Iterator[tuple[Any, ...]]:
    for entry in ranks:
        measured = entry["measured"]
        for name, size in measured["terms"].items():
            yield measured["rank"], "memory", name, entry["predicted_terms"][name], size, "bytes"
        for phase in PHASES:
            yield measured["rank"], "time", phase, None, measured[f"{phase}_s"], "seconds"
        for form, speed in measured["generation"].items():
            yield measured["rank"], "first token", form, None, speed["first_token_s"], "seconds"
            yield measured["rank"], "token", form, None, speed["token_s"], "seconds"
            yield measured["rank"], "batch", form, None, speed["tokens_per_s"], "tokens per second"
