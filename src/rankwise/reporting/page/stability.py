"""Stability traces: norms of gradient, step and whole change over training, and the step by group of sites."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.figures.stability import Norm, norm_range, traced_norms
from rankwise.reporting.format import format_size
from rankwise.reporting.page.curves import thin
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks, cross, legend, mark, of_arm, panel, panels
from rankwise.reporting.page.plot import Axes, axes
from rankwise.reporting.page.svg import band_path, element, line_path, tip
from rankwise.reporting.values import StudyComparison

MOST_POINTS = 80
"""Of one line; longer ones are thinned evenly."""
NUM_MARKS = 8


def draw_stability(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where nothing was traced."""
    runs = {arm: [run for run in results.reported(arm) if run.traces] for arm in results.arm_names}
    runs = {arm: found for arm, found in runs.items() if found}
    if not runs:
        return None
    looks = arm_looks(results, comparison)
    drawn = [panel(title, body) for title, norm in traced_norms(runs) if (body := _panel(title, norm, runs, looks))]
    caption = (
        "Stability. Median over seeds of the norm of the adapter gradient before clipping, of one optimizer step in "
        "the effective weights (scale × up · down), and of all that training has added to the base; shaded: smallest "
        "to largest seed. Then the step by kind of site and third of the depth. Cross: a run diverged."
    )
    body = legend({arm: looks[arm] for arm in runs}) + panels(drawn, "medium")
    return PageFigure(body=body, caption=caption) if drawn else None


def _panel(title: str, norm: Norm, runs: Mapping[str, Sequence[RunRow]], looks: Mapping[str, Look]) -> Markup | None:
    found = {arm: norms for arm, of_arm_ in runs.items() if (norms := norm_range(of_arm_, norm))}
    if not found:
        return None
    steps = [step for range_ in found.values() for step in range_.steps]
    values = [value for range_ in found.values() for value in (*range_.low, *range_.high)]
    space = axes(steps, values, height=230, log_y=True)
    drawn = []
    for arm, range_ in found.items():
        at = np.array(range_.steps)
        (kept, middle), (_, low), (_, high) = (
            thin((at, np.array(line)), MOST_POINTS) for line in (range_.median, range_.low, range_.high)
        )
        drawn.append(_draw_arm(space, arm, looks[arm], kept, middle, low, high))
        drawn += [_diverged(space, arm, run, norm, looks[arm]) for run in runs[arm] if run.status == "diverged"]
    return space.draw(
        *drawn, x_label="optimizer step", y_label="Frobenius norm",
        summary=f"{title}: norm over training of {len(found)} arms",
    )  # fmt: skip


def _draw_arm(
    space: Axes, arm: str, look: Look, steps: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Markup:
    x = [space.x(step) for step in steps]
    line, upper, lower = ([*zip(x, map(space.y, values), strict=True)] for values in (middle, high, low))
    every = max(1, len(x) // NUM_MARKS)
    marks = []
    for at in range(every // 2, len(x), every):
        about = tip(f"{arm}, step {steps[at]:,}", _in_words(middle[at], low[at], high[at]))
        marks.append(mark(look, *line[at], about))
    band = element("path", d=band_path(upper, lower), class_="band")
    return of_arm(look, band, element("path", d=line_path(line), class_="line", stroke_dasharray=look.dashes), *marks)


def _in_words(middle: float, low: float, high: float) -> str:
    return f"{format_size(middle)} ({format_size(low)} to {format_size(high)} over seeds)"


def _diverged(space: Axes, arm: str, run: RunRow, norm: Norm, look: Look) -> Markup:
    """Where the run's last norm is a number."""
    last = norm(run.traces[-1])
    if not (math.isfinite(last) and last > 0):
        return Markup("")
    about = tip(f"{arm}, seed {run.seed}, run {run.id}", f"diverged: {run.error}")
    return of_arm(look, cross(space.x(run.traces[-1].step), space.y(last), about, run=run.id))
