"""Ranks over time of the arms that moved them: a heat map of site by step, whose rows tell their site's ranks."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from markupsafe import Markup

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.figures.rank_maps import module_labels
from rankwise.reporting.figures.ranks_over_time import CAPTION, RankPath, moving_runs, rank_path
from rankwise.reporting.format import format_count
from rankwise.reporting.page.figure import PageFigure, arm_looks, panel, panels
from rankwise.reporting.page.plot import drawing
from rankwise.reporting.page.rank_maps import NUM_COLOURS, colour_scale, colours
from rankwise.reporting.page.svg import element, line_path, tip
from rankwise.reporting.values import StudyComparison

WIDTH = 300.0
"""Of the map's steps, in pixels."""
MOST_ROW_HEIGHT, MOST_HEIGHT = 10.0, 300.0
"""Of one site, and of all of them: many sites have thin rows."""
END_WIDTH = 16.0
"""Of the last column, the ranks that are stored."""
MOST_TOLD = 6
"""Changes that a row tells one by one."""


def draw_ranks_over_time(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where no ranks moved."""
    runs = moving_runs(results)
    if not runs:
        return None
    labels = module_labels([site for found in runs.values() for run in found for site in run.sites])
    paths = {arm: rank_path(found, labels) for arm, found in runs.items()}
    highest = max(float(path.ranks_ST.max()) for path in paths.values())
    looks = arm_looks(results, comparison)
    drawn = [panel(arm, _draw_path(arm, path, runs[arm], highest), looks[arm]) for arm, path in paths.items()]
    scale = element("p", "rank ", colour_scale(f"{highest:.0f}"), class_="map-legend")
    return PageFigure(body=element("div", scale, class_="map-tools") + panels(drawn, "medium"), caption=CAPTION)


def _draw_path(arm: str, path: RankPath, runs: Sequence[RunRow], highest: float) -> Markup:
    left = 12 + 6.3 * max(map(len, path.modules))
    row_height = min(MOST_ROW_HEIGHT, MOST_HEIGHT / len(path.sites))
    bottom = row_height * len(path.sites)
    x_of = {step: left + WIDTH * step / path.num_steps for step in (*path.steps, path.num_steps)}
    rows = [_draw_row(index, path, x_of, left, row_height, highest) for index in range(len(path.sites))]
    blocks = list(path.blocks())
    names = [
        element("text", module, x=left - 5, y=row_height * (start + stop) / 2 + 4, class_="tick end")
        for module, start, stop in blocks
    ]
    rules = [
        element("path", d=line_path([(left, row_height * start), (left + WIDTH + END_WIDTH, row_height * start)]))
        for _, start, _ in blocks[1:]
    ]
    ticks = [
        element("text", f"{step:,}", x=left + WIDTH * step / path.num_steps, y=bottom + 14, class_="tick middle")
        for step in (0, path.num_steps // 2, path.num_steps)
    ]
    label = element("text", "optimizer step", x=left + WIDTH / 2, y=bottom + 29, class_="label middle")
    return drawing(
        left + WIDTH + END_WIDTH + 8, bottom + 34, *rows, element("g", *rules, class_="rules"), *names, *ticks, label,
        summary=f"Ranks over training of {arm}, {format_count(len(runs), 'run')}, {len(path.sites)} sites",
        class_="over-time",
    )  # fmt: skip


def _draw_row(
    index: int, path: RankPath, x_of: Mapping[int, float], left: float, row_height: float, highest: float
) -> Markup:
    """The site's ranks from left to right, neighbours of one colour as one."""
    ranks_T, y = path.ranks_ST[index], row_height * index
    shades = [round(float(rank) / highest * (NUM_COLOURS - 1)) if highest else 0 for rank in ranks_T]
    starts = [*(x_of[step] for step in path.steps), left + WIDTH]
    cells = [(shade, start, end) for shade, start, end in zip(shades, starts, starts[1:], strict=False)]
    cells.append((shades[-1], left + WIDTH, left + WIDTH + END_WIDTH))
    boxes = []
    for shade, alike in groupby(cells, key=lambda cell: cell[0]):
        spans = list(alike)
        x, end = spans[0][1], spans[-1][2]
        if end > x:
            boxes.append(element("rect", x=x, y=y, width=end - x, height=row_height, fill=colours()[shade]))
    return element("g", _about(path, index), *boxes, class_="row")


def _about(path: RankPath, index: int) -> Markup:
    ranks_T = path.ranks_ST[index]
    changed = [0, *(np.flatnonzero(np.diff(ranks_T)) + 1)]
    told = changed if len(changed) <= MOST_TOLD else [*changed[: MOST_TOLD - 1], changed[-1]]
    words = [f"{ranks_T[at]:.1f} from step {path.steps[at]:,}" for at in told[1:]]
    if len(told) < len(changed):
        words.insert(-1, f"{format_count(len(changed) - len(told), 'change')} more")
    return tip(
        path.sites[index].site,
        f"rank {ranks_T[0]:.1f} before training".replace(".0 ", " "),
        "; ".join(words).replace(".0 ", " ") or "never moved",
    )
