"""Test loss against what an arm stores: whether more parameters, or better placed ones, pay off."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.figures.pareto import cost_axes
from rankwise.reporting.format import format_loss
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    RC,
    FigureFiles,
    arm_styles,
    new_figure,
    save_figure,
    short,
)
from rankwise.reporting.values import ArmComparison, StudyComparison

HEADER = ("arm", "params_low", "params_high", "test_loss_nats", "low_nats", "high_nats", "num_seeds")
DODGE_PT = 7.0
"""Sideways distance of points whose parameters are nearly equal, in printer's points."""
MOST_SPREAD_PT = 60.0
"""Width that a group of points may take."""
NEAR_FRAC = 0.08
"""Parameters closer than this share of the widest arm's are nearly equal: they are spread, and share one tick."""


@matplotlib.rc_context(RC)
def draw_loss_against_params(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One point an arm, best loss first in the legend; None with fewer than two arms.

    Where the Pareto figure is drawn, its first panel shows the same.
    """
    arms = [arm for arm in comparison.arms if arm.test_loss and arm.params]
    if len(arms) < 2 or cost_axes(comparison):
        return None
    scored, shown = arms, shown_arms(comparison, "loss_against_params", (arm.name for arm in arms))
    arms = [arm for arm in scored if arm.name in shown]
    styles = arm_styles(results.arm_names, comparison.baseline)
    figure = new_figure(DOUBLE_COLUMN_IN * 0.72, 2.7)
    axis = figure.subplots()
    groups = nearly_equal(arms)
    for group in groups:
        for index, arm in enumerate(group):
            step_pt = min(DODGE_PT, MOST_SPREAD_PT / len(group))
            offset_pt = step_pt * (index - (len(group) - 1) / 2)
            _draw_point(axis, arm, offset_pt, styles[arm.name].colour, styles[arm.name].marker)
    axis.margins(x=0.25, y=0.08)
    axis.autoscale_view()
    axis.grid(color="#EEEEEE", linewidth=0.5)
    centres = [sum(map(middle_params, group)) / len(group) for group in groups]
    axis.set_xticks(centres, [thousands(centre) for centre in centres])
    axis.set_xlabel("stored adapter parameters")
    axis.set_ylabel("test loss (nats per answer token)")
    handles, labels = axis.get_legend_handles_labels()
    best_first = sorted(range(len(labels)), key=lambda index: float(labels[index].split()[0]))
    figure.legend([handles[i] for i in best_first], [labels[i] for i in best_first], loc="outside right upper")
    caption = (
        f"Test loss against stored adapter parameters, mean over seeds with {comparison.level:.0%} interval. Arms of "
        "(nearly) equal parameters are spread sideways. The intervals contain what seeds have in common; whether two "
        f"arms differ is shown by the paired differences.{crowd_note(comparison, 'loss_against_params')}"
    )
    return save_figure(figure, folder, "loss_against_params", caption, HEADER, _rows_of(scored))


def nearly_equal(arms: Sequence[ArmComparison]) -> list[list[ArmComparison]]:
    """The arms in groups of nearly equal parameters, fewest parameters first."""
    ordered = sorted(arms, key=middle_params)
    near = NEAR_FRAC * middle_params(ordered[-1])
    groups: list[list[ArmComparison]] = []
    for arm in ordered:
        if groups and middle_params(arm) - middle_params(groups[-1][0]) <= near:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    return groups


def middle_params(arm: ArmComparison) -> float:
    """Where an arm stands on the axis: the middle of what its runs store."""
    assert arm.params is not None
    return (arm.params.low + arm.params.high) / 2


def _draw_point(axis: Axes, arm: ArmComparison, offset_pt: float, colour: str, marker: str) -> None:
    assert arm.test_loss is not None
    loss = arm.test_loss
    shift = ScaledTranslation(offset_pt / 72, 0, axis.figure.dpi_scale_trans)
    x = middle_params(arm)
    axis.update_datalim([(x, edge) for edge in (loss.value, loss.low, loss.high) if edge is not None])
    if loss.low is not None and loss.high is not None:
        axis.vlines(x, loss.low, loss.high, color=colour, linewidth=1.2, transform=axis.transData + shift)
    axis.plot(
        x, loss.value, linestyle="none", marker=marker, color=colour, markersize=6, markeredgecolor="white",
        markeredgewidth=0.5,
        transform=axis.transData + shift, label=f"{format_loss(loss.value)}  {short(arm.name)}",
    )  # fmt: skip


def thousands(value: float) -> str:
    """331776 -> `332 k`, 1500000 -> `1.5 M`."""
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k"


def _rows_of(arms: Sequence[ArmComparison]) -> Iterator[tuple[object, ...]]:
    for arm in arms:
        assert arm.params is not None
        assert arm.test_loss is not None
        loss = arm.test_loss
        yield arm.name, arm.params.low, arm.params.high, loss.value, loss.low, loss.high, loss.num
