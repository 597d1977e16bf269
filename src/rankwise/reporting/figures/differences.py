"""The forest plot: each arm's difference to the baseline, with its interval, its seeds and its verdict."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.format import format_difference
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    FAINT,
    NEUTRAL,
    OUTCOME_STYLES,
    RC,
    FigureFiles,
    new_figure,
    save_figure,
    short,
)
from rankwise.reporting.values import ArmComparison, Difference, StudyComparison

HEADER = ("arm", "kind", "seed", "difference_nats", "low_nats", "high_nats", "num_seeds", "p_holm", "outcome")
DOTS_BELOW = 0.24
"""Distance of the seeds' dots from their arm's line, in rows."""


@matplotlib.rc_context(RC)
def draw_differences(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One row an arm; arms that differ in more than their allocation stand below a rule."""
    arms = sorted((arm for arm in comparison.arms if arm.difference), key=lambda arm: bool(arm.deviations))
    if not arms:
        return None
    compared, shown = arms, shown_arms(comparison, "differences", (arm.name for arm in arms))
    arms = [arm for arm in compared if arm.name in shown]
    figure = new_figure(DOUBLE_COLUMN_IN, 0.36 * len(arms) + 1.15)
    axis = figure.subplots()
    zone = comparison.equivalence_nats
    axis.axvspan(-zone, zone, color=FAINT, linewidth=0, zorder=0)
    axis.axvline(0, color="black", linewidth=0.8, zorder=1)
    for row, arm in enumerate(arms):
        assert arm.difference is not None
        _draw_row(axis, row, arm.difference)
    num_same = sum(not arm.deviations for arm in arms)
    if 0 < num_same < len(arms):
        axis.axhline(num_same - 0.5, color=NEUTRAL, linewidth=0.5, linestyle=(0, (2, 2)))
    axis.set_ylim(len(arms) - 0.45, -0.55)
    axis.set_yticks(range(len(arms)), [_label(arm) for arm in arms])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", color="#EEEEEE", linewidth=0.5)
    axis.set_xlabel(
        f"test loss minus that of {short(comparison.baseline)} (nats per answer token)\n← better      worse →"
    )
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(arms)), [_numbers(arm) for arm in arms])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    figure.legend(handles=_legend_handles(arms), loc="outside upper center", ncols=6, columnspacing=1.4)
    caption = (
        f"Difference in test loss to {comparison.baseline}, paired by seed: mean with {comparison.level:.0%} interval; "
        f"small dots are single seeds. Shaded: differences below {zone:g} nats, practically nothing. "
        f"Triangles point to the side of a significant difference.{crowd_note(comparison, 'differences')}"
    )
    return save_figure(figure, folder, "differences", caption, HEADER, _rows_of(compared))


def _draw_row(axis: Axes, row: int, difference: Difference) -> None:
    colour, marker = OUTCOME_STYLES[difference.outcome]
    estimate = difference.estimate
    if estimate.low is not None and estimate.high is not None:
        axis.hlines(row, estimate.low, estimate.high, color=colour, linewidth=1.6, zorder=2)
    axis.plot(
        estimate.value,
        row,
        marker=marker,
        color=colour,
        markersize=7,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=3,
    )
    axis.plot(
        difference.per_seed, [row + DOTS_BELOW] * len(difference.per_seed),
        linestyle="none", marker="o", markersize=2.4, color=colour, alpha=0.6, markeredgewidth=0, zorder=2,
    )  # fmt: skip


def _label(arm: ArmComparison) -> str:
    note = "control" if arm.is_control else "; ".join(arm.deviations)
    return f"{short(arm.name)}\n({note})" if note else short(arm.name)


def _numbers(arm: ArmComparison) -> str:
    assert arm.difference is not None
    return f"{format_difference(arm.difference.estimate)}\n{arm.difference.outcome}, n = {len(arm.difference.seeds)}"


def _legend_handles(arms: Sequence[ArmComparison]) -> list[Line2D | Patch]:
    seen = {arm.difference.outcome for arm in arms if arm.difference}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.6, label=outcome)
        for outcome, (colour, marker) in OUTCOME_STYLES.items()
        if outcome in seen
    ]
    handles.append(Line2D([], [], color=NEUTRAL, marker="o", markersize=2.4, linestyle="none", label="one seed"))
    handles.append(Patch(color=FAINT, label="practically nothing"))
    return handles


def _rows_of(arms: Sequence[ArmComparison]) -> Iterator[tuple[object, ...]]:
    for arm in arms:
        assert arm.difference is not None
        found, mean = arm.difference, arm.difference.estimate
        yield arm.name, "mean", None, mean.value, mean.low, mean.high, mean.num, found.p_holm, found.outcome
        for seed, value in zip(found.seeds, found.per_seed, strict=True):
            yield arm.name, "seed", seed, value, None, None, 1, None, None
