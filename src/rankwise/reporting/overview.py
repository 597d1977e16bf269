"""Every recorded study at once: one forest plot of the comparisons at equal conditions, from the studies' reports.

Studies differ in the size of what they find by a factor of a thousand, so the axis is linear around zero and
logarithmic beyond: what matters is on which side of zero an interval lies, and how far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from rankwise.errors import ReportError
from rankwise.reporting.format import format_difference
from rankwise.reporting.recorded import read_comparison
from rankwise.reporting.staging import staged
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    NEUTRAL,
    OUTCOME_STYLES,
    RC,
    FigureFiles,
    new_figure,
    save_figure,
    short,
)
from rankwise.reporting.values import ArmComparison, StudyComparison

HEADER = (
    "study", "arm", "baseline", "is_control", "difference_nats", "low_nats", "high_nats", "level", "num_seeds",
    "p_holm", "outcome",
)  # fmt: skip
LINEAR_NATS = 0.01
"""Around zero the axis is linear up to here."""
ROW_IN = 0.17
ADVICE = "Name a folder that can be written with --overview, and give the same command again."


def write_overview(folders: Sequence[Path], out: Path) -> FigureFiles:
    """Draw the reports in `folders` into overview.png, .pdf and .csv in the folder `out`.

    Arms that differ from their baseline in more than where their ranks are, are left out, and studies without others.

    Raises ReportError where a report cannot be read, none has such a comparison, or the folder cannot be written.
    """
    studies = [(comparison, equal_arms(comparison)) for comparison in map(read_comparison, folders)]
    studies = [(comparison, arms) for comparison, arms in studies if arms]
    if not studies:
        names = ", ".join(map(str, folders))
        raise ReportError(
            f"--overview: none of the reports in {names} compares arms at equal conditions. Name results folders of "
            "studies that compare allocations."
        )
    with staged(out, "overview", ADVICE) as staging:
        drawn = _draw(studies, staging)
        for path in (drawn.png, drawn.pdf, drawn.csv):
            path.replace(out / path.name)
    return replace(drawn, folder=out)


def equal_arms(comparison: StudyComparison) -> list[ArmComparison]:
    """Arms that were compared and differ from the baseline in nothing but their ranks; best first, controls last."""
    found = [arm for arm in comparison.arms if arm.difference and not arm.deviations]
    return sorted(found, key=lambda arm: (arm.is_control, arm.difference.estimate.value if arm.difference else 0.0))


@matplotlib.rc_context(RC)
def _draw(studies: Sequence[tuple[StudyComparison, list[ArmComparison]]], folder: Path) -> FigureFiles:
    num_rows = sum(1 + len(arms) for _, arms in studies)
    figure = new_figure(DOUBLE_COLUMN_IN, ROW_IN * num_rows + 1.1)
    axis = figure.subplots()
    axis.set_xscale("symlog", linthresh=LINEAR_NATS)
    axis.axvline(0, color="black", linewidth=0.8, zorder=1)
    row, labels, numbers, titles = 0, [], [], []
    for comparison, arms in studies:
        titles.append(row)
        labels.append(f"{short(comparison.study)} (against {short(comparison.baseline)})")
        numbers.append("")
        for arm in arms:
            row += 1
            _draw_row(axis, row, arm)
            labels.append(f"{short(arm.name)}{' (control)' if arm.is_control else ''}")
            numbers.append(_numbers(arm))
        row += 1
    axis.set_ylim(num_rows - 0.3, -0.7)
    axis.set_yticks(range(num_rows), labels)
    for title in titles:
        axis.get_yticklabels()[title].set_fontweight("bold")
        axis.axhline(title - 0.5, color=NEUTRAL, linewidth=0.4)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR_NATS))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    axis.grid(axis="x", color="#EEEEEE", linewidth=0.5)
    axis.set_xlabel("test loss minus that of the study's baseline (nats per answer token)\n← better      worse →")
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(num_rows), numbers)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    figure.legend(handles=_legend(studies), loc="outside upper center", ncols=4, columnspacing=1.4)
    return save_figure(figure, folder, "overview", _caption(studies), HEADER, _rows_of(studies))


def _draw_row(axis: Axes, row: int, arm: ArmComparison) -> None:
    assert arm.difference is not None
    colour, marker = OUTCOME_STYLES[arm.difference.outcome]
    found = arm.difference.estimate
    if found.low is not None and found.high is not None:
        axis.hlines(row, found.low, found.high, color=colour, linewidth=1.3, zorder=2)
    axis.plot(
        found.value, row, marker=marker, markersize=5, markeredgecolor=colour, markeredgewidth=0.9, zorder=3,
        color="white" if arm.is_control else colour,
    )  # fmt: skip


def _numbers(arm: ArmComparison) -> str:
    assert arm.difference is not None
    return f"{format_difference(arm.difference.estimate)}, n = {len(arm.difference.seeds)}"


def _legend(studies: Sequence[tuple[StudyComparison, list[ArmComparison]]]) -> list[Line2D]:
    arms = [arm for _, found in studies for arm in found if arm.difference]
    seen = {arm.difference.outcome for arm in arms if arm.difference}
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.3, label=outcome)
        for outcome, (colour, marker) in OUTCOME_STYLES.items()
        if outcome in seen
    ]
    if any(arm.is_control for arm in arms):
        hollow = Line2D(
            [], [], color=NEUTRAL, marker="o", markerfacecolor="white", markersize=5, linestyle="none",
            label="hollow: a control",
        )  # fmt: skip
        handles.append(hollow)
    return handles


def _caption(studies: Sequence[tuple[StudyComparison, list[ArmComparison]]]) -> str:
    levels = " and ".join(sorted({f"{comparison.level:.0%}" for comparison, _ in studies}))
    return (
        f"All comparisons at equal budget and settings of {len(studies)} studies: mean difference in test loss to the "
        f"study's own baseline, paired by seed, with {levels} interval; verdicts after Holm's adjustment within each "
        f"study. The axis is linear within ±{LINEAR_NATS:g} nats and logarithmic beyond."
    )


def _rows_of(studies: Sequence[tuple[StudyComparison, list[ArmComparison]]]) -> Iterator[tuple[object, ...]]:
    for comparison, arms in studies:
        for arm in arms:
            assert arm.difference is not None
            found, mean = arm.difference, arm.difference.estimate
            yield (
                comparison.study, arm.name, comparison.baseline, int(arm.is_control), mean.value, mean.low, mean.high,
                comparison.level, mean.num, found.p_holm, found.outcome,
            )  # fmt: skip
