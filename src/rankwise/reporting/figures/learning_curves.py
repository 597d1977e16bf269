"""Learning curves: loss over the optimizer steps of each arm, with bands over seeds."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from rankwise.ledger.results import CurvePoint, RunRow, StudyResults
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    NEUTRAL,
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
from rankwise.statistics.curves import CurveBand, curve_band

HEADER = ("arm", "run_id", "seed", "split", "step", "loss_nats")
SMOOTHING_FRAC = 0.08
"""Width of the running mean over the training loss, as a share of the steps."""


@matplotlib.rc_context(RC)
def draw_learning_curves(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel an arm: smoothed training loss of each seed, validation loss as mean and range over seeds."""
    runs = {arm: [run for run in results.reported(arm) if run.training_curve] for arm in results.arm_names}
    runs = {arm: found for arm, found in runs.items() if found}
    if not runs:
        return None
    styles = arm_styles(results.arm_names, comparison.baseline)
    shown = shown_arms(comparison, "learning_curves", runs)
    drawn = {arm: found for arm, found in runs.items() if arm in shown}
    num_columns = min(len(drawn), 3)
    num_rows = -(-len(drawn) // num_columns)
    figure = new_figure(DOUBLE_COLUMN_IN * max(num_columns, 2) / 3, 1.65 * num_rows + 0.45)
    axes = panel_grid(figure, len(drawn), num_columns, sharex=True, sharey=True)
    baseline = validation_band(runs.get(comparison.baseline, ()), comparison.level)
    for axis, (arm, found) in zip(axes, drawn.items(), strict=True):
        _draw_arm(axis, found, styles[arm], comparison.level)
        if arm != comparison.baseline and baseline:
            axis.plot(baseline[0], baseline[1].mean_T, color=NEUTRAL, linestyle=":", linewidth=1.0, zorder=2)
        axis.set_title(short(arm))
        axis.grid(axis="y", color="#EEEEEE", linewidth=0.5)
    figure.supxlabel("optimizer step", fontsize=RC["axes.labelsize"])
    figure.supylabel("loss (nats per answer token)", fontsize=RC["axes.labelsize"])
    caption = (
        f"Learning curves. Thin: training loss of each seed, running mean over {SMOOTHING_FRAC:.0%} of the steps. "
        f"Markers: mean validation loss of the finished seeds, with its pointwise {comparison.level:.0%} band. "
        f"Dotted: validation loss of {comparison.baseline}. Cross: a run diverged."
        f"{crowd_note(comparison, 'learning_curves')}"
    )
    return save_figure(figure, folder, "learning_curves", caption, HEADER, _rows_of(runs))


def _draw_arm(axis: Axes, runs: Sequence[RunRow], style: ArmStyle, level: float) -> None:
    for run in runs:
        steps, losses = smooth(run.training_curve)
        axis.plot(steps, losses, color=style.colour, linewidth=0.5, alpha=0.45, zorder=1)
        if run.status == "diverged" and len(steps):
            axis.plot(steps[-1], losses[-1], color=style.colour, marker="x", zorder=4)
    if found := validation_band(runs, level):
        steps, band = found
        axis.plot(steps, band.mean_T, color=style.colour, marker=style.marker, zorder=3)
        limits = axis.get_ylim()
        axis.fill_between(steps, band.low_T, band.high_T, color=style.colour, alpha=0.25, linewidth=0)
        axis.set_ylim(limits)  # the band of two seeds is wide enough to flatten every curve


def validation_band(runs: Sequence[RunRow], level: float) -> tuple[np.ndarray, CurveBand] | None:
    """Steps, and mean and band of the finished runs that were evaluated at the same steps; None without any."""
    curves = [_finite(run.validation_curve) for run in runs if run.status == "finished"]
    curves = [curve for curve in curves if len(curve[0]) and np.array_equal(curve[0], curves[0][0])]
    if not curves:
        return None
    return curves[0][0], curve_band([values for _, values in curves], level=level)


def _finite(curve: Sequence[CurvePoint]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the points that are numbers."""
    points = [point for point in curve if math.isfinite(point.value)]
    return np.array([point.step for point in points]), np.array([point.value for point in points])


def smooth(curve: Sequence[CurvePoint]) -> tuple[np.ndarray, np.ndarray]:
    """Centred running mean, its window cut at both ends so that nothing is invented beyond them."""
    steps, values = _finite(curve)
    half = int(len(values) * SMOOTHING_FRAC / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return steps, (total[last] - total[first]) / (last - first)


def _rows_of(runs: dict[str, list[RunRow]]) -> Iterator[tuple[object, ...]]:
    """Every measured point, not smoothed."""
    for arm, found in runs.items():
        for run in found:
            for split, curve in (("train", run.training_curve), ("validation", run.validation_curve)):
                for point in curve:
                    yield arm, run.id, run.seed, split, point.step, point.value
