"""Stability: gradient, step and whole change of the weights over training, and the step by group of sites."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.records import StepTrace
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.stability import reading_order
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    RC,
    ArmStyle,
    FigureFiles,
    arm_styles,
    new_figure,
    panel_grid,
    save_figure,
    short,
)
from rankwise.reporting.values import StudyComparison

HEADER = ("arm", "run_id", "seed", "status", "step", "group", "grad_norm", "update_norm", "weight_norm")
MOST_GROUPS = 9
Norm = Callable[[StepTrace], float]


@matplotlib.rc_context(RC)
def draw_stability(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """Three panels of all sites together, then one a group; one line an arm. None where nothing was traced."""
    runs = {arm: [run for run in results.reported(arm) if run.traces] for arm in results.arm_names}
    runs = {arm: found for arm, found in runs.items() if found}
    if not runs:
        return None
    styles = arm_styles(results.arm_names, comparison.baseline)
    shown = shown_arms(comparison, "stability", runs)
    drawn = {arm: found for arm, found in runs.items() if arm in shown}
    panels = traced_norms(drawn)
    num_rows = -(-len(panels) // 3)
    figure = new_figure(DOUBLE_COLUMN_IN, 1.45 * num_rows + 0.5 + 0.16 * -(-len(drawn) // 4))
    axes = panel_grid(figure, len(panels), 3, sharex=True)
    for axis, (title, norm) in zip(axes, panels, strict=True):
        for arm, found in drawn.items():
            _draw_arm(axis, found, norm, styles[arm])
        axis.set_title(title)
        axis.grid(axis="y", color="#EEEEEE", linewidth=0.5)
    for axis in axes[3:]:
        axis.sharey(axes[3])
    for axis in axes:
        _use_logarithm(axis)
    figure.supxlabel("optimizer step", fontsize=RC["axes.labelsize"])
    figure.supylabel("Frobenius norm", fontsize=RC["axes.labelsize"])
    handles = [
        Line2D([], [], color=style.colour, linestyle=style.line, marker=style.marker, label=short(arm))
        for arm, style in styles.items()
        if arm in drawn
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), columnspacing=1.4)
    caption = (
        "Stability. Median over seeds of the norm of the adapter gradient before clipping, of one optimizer step in "
        "the effective weights (scale × up · down), and of all that training has added to the base; shaded: smallest "
        "to largest seed. Below: the step by kind of site and third of the depth. Cross: a run diverged."
        f"{crowd_note(comparison, 'stability')}"
    )
    return save_figure(figure, folder, "stability", caption, HEADER, _rows_of(runs))


def traced_norms(runs: Mapping[str, Sequence[RunRow]]) -> list[tuple[str, Norm]]:
    """What is shown, with its title: three norms of all sites together, then the step of each group."""
    groups = list(dict.fromkeys(g for found in runs.values() for run in found for g in run.traces[0].groups))
    return [
        ("gradient, all sites", lambda trace: math.hypot(*trace.grad_norms)),
        ("step, all sites", lambda trace: math.hypot(*trace.update_norms)),
        ("change so far, all sites", lambda trace: math.hypot(*trace.weight_norms)),
        *((f"step, {g.replace('.', ', ')}", _update_of(g)) for g in sorted(groups, key=reading_order)[:MOST_GROUPS]),
    ]


@dataclass(frozen=True, kw_only=True)
class NormRange:
    """A norm over training: at each traced step its median, smallest and largest value over runs."""

    steps: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def norm_range(runs: Sequence[RunRow], norm: Norm) -> NormRange | None:
    """Over the runs that traced a step; those that diverged are in it up to their end. None where nothing was."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for trace in run.traces:
            value = norm(trace)
            if math.isfinite(value) and value > 0:
                values.setdefault(trace.step, []).append(value)
    steps = tuple(sorted(values))
    if not steps:
        return None
    return NormRange(
        steps=steps,
        median=tuple(float(np.median(values[step])) for step in steps),
        low=tuple(min(values[step]) for step in steps),
        high=tuple(max(values[step]) for step in steps),
    )


def _update_of(group: str) -> Norm:
    return lambda trace: dict(zip(trace.groups, trace.update_norms, strict=True)).get(group, math.nan)


def _draw_arm(axis: Axes, runs: Sequence[RunRow], norm: Norm, style: ArmStyle) -> None:
    found = norm_range(runs, norm)
    if found is None:
        return
    every = max(1, len(found.steps) // 5)
    axis.plot(
        found.steps, found.median,
        color=style.colour, linestyle=style.line, marker=style.marker, markevery=(every // 2, every), markersize=2.6,
        linewidth=0.9, zorder=3,
    )  # fmt: skip
    axis.fill_between(found.steps, found.low, found.high, color=style.colour, alpha=0.12, linewidth=0, zorder=1)
    for run in runs:
        if run.status == "diverged" and run.traces and math.isfinite(last := norm(run.traces[-1])) and last > 0:
            axis.plot(run.traces[-1].step, last, color=style.colour, marker="x", markersize=5, zorder=4)


def _use_logarithm(axis: Axes) -> None:
    """Where there is anything to show: norms of runs that break grow by factors. Ticks are plain numbers."""
    if axis.lines:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def _rows_of(runs: dict[str, list[RunRow]]) -> Iterator[tuple[object, ...]]:
    """Every traced norm."""
    for arm, found in runs.items():
        for run in found:
            for trace in run.traces:
                norms = zip(trace.groups, trace.grad_norms, trace.update_norms, trace.weight_norms, strict=True)
                for group, grad_norm, update_norm, weight_norm in norms:
                    yield arm, run.id, run.seed, run.status, trace.step, group, grad_norm, update_norm, weight_norm
