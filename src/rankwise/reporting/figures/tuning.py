"""How each arm's learning rate was chosen: validation loss on the tuning seeds, over the same list for every arm."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.format import format_rate
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
from rankwise.reporting.values import ArmComparison, StudyComparison, TuningPoint

HEADER = ("arm", "learning_rate", "run_id", "seed", "validation_loss_nats", "num_diverged", "num_missing", "chosen")


@matplotlib.rc_context(RC)
def draw_tuning(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel an arm; None where no arm was tuned over several rates."""
    arms = [arm for arm in comparison.arms if len(_measured(arm.tuning)) > 1]
    if not arms:
        return None
    shown = shown_arms(comparison, "tuning", (arm.name for arm in arms))
    arms = [arm for arm in arms if arm.name in shown]
    styles = arm_styles(results.arm_names, comparison.baseline)
    num_columns = min(len(arms), 3)
    num_rows = -(-len(arms) // num_columns)
    figure = new_figure(DOUBLE_COLUMN_IN * max(num_columns, 2) / 3, 1.45 * num_rows + 0.45)
    axes = panel_grid(figure, len(arms), num_columns, sharex=True, sharey=True)
    rates = sorted({point.learning_rate for arm in arms for point in arm.tuning})
    for axis, arm in zip(axes, arms, strict=True):
        axis.set_xscale("log")
        axis.margins(x=0.15, y=0.15)
        _draw_arm(axis, _measured(arm.tuning), styles[arm.name])
        if any(point.num_diverged for point in arm.tuning):
            _mark_diverged(axis, arm.tuning)
        axis.set_title(short(arm.name))
        axis.set_xticks(rates, [format_rate(rate) for rate in rates])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_tick_params(which="minor", length=0)
        axis.grid(axis="y", color="#EEEEEE", linewidth=0.5)
    figure.supxlabel("learning rate", fontsize=RC["axes.labelsize"])
    figure.supylabel("validation loss\n(nats per answer token)", fontsize=RC["axes.labelsize"])
    caption = (
        "Learning-rate tuning: validation loss at the end of training on the tuning seeds, which are not reported. "
        "Dots: single runs; line: mean; ring: the chosen rate; crosses at the top: rates at which a run diverged."
        f"{crowd_note(comparison, 'tuning')}"
    )
    return save_figure(figure, folder, "tuning", caption, HEADER, _rows_of(comparison.arms))


def _measured(points: Sequence[TuningPoint]) -> list[TuningPoint]:
    return [point for point in points if point.validation_losses]


def _draw_arm(axis: Axes, points: Sequence[TuningPoint], style: ArmStyle) -> None:
    rates = [point.learning_rate for point in points]
    means = [point.mean for point in points]
    axis.plot(rates, means, color=style.colour, marker=style.marker, zorder=2)
    for point in points:
        losses = point.validation_losses
        axis.plot(
            [point.learning_rate] * len(losses), losses,
            linestyle="none", marker="o", markersize=2.4, markeredgewidth=0, color=style.colour, alpha=0.5,
        )  # fmt: skip
        if point.chosen:
            axis.plot(
                point.learning_rate, point.mean,
                marker="o", markersize=10, markerfacecolor="none", markeredgecolor="black", markeredgewidth=0.9,
                zorder=3,
            )  # fmt: skip


def _mark_diverged(axis: Axes, points: Sequence[TuningPoint]) -> None:
    """Crosses along the top edge: the loss itself is not a number."""
    rates = [point.learning_rate for point in points if point.num_diverged]
    axis.plot(
        rates, [0.97] * len(rates),
        linestyle="none", marker="x", color="black", markersize=4, transform=axis.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip


def _rows_of(arms: Sequence[ArmComparison]) -> Iterator[tuple[object, ...]]:
    for arm in arms:
        for point in arm.tuning:
            for run_id, seed, loss in zip(point.run_ids, point.seeds, point.validation_losses, strict=True):
                yield (
                    arm.name, point.learning_rate, run_id, seed, loss,
                    point.num_diverged, point.num_missing, point.chosen,
                )  # fmt: skip
