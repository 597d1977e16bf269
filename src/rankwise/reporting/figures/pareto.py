"""What loss costs: test loss against stored parameters, memory and time, and the arms that no other beats on both.

A = arms, S = seeds on which every one of them finished.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import ScaledTranslation

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.format import format_loss
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    NEUTRAL,
    RC,
    ArmStyle,
    FigureFiles,
    arm_styles,
    new_figure,
    save_figure,
    short,
)
from rankwise.reporting.values import ArmComparison, StudyComparison
from rankwise.statistics.pareto import ParetoFront, pareto_front
from rankwise.streams import stream

HEADER = (
    "arm", "axis", "cost", "test_loss_nats", "low_nats", "high_nats", "on_front", "on_front_frac", "num_solo_runs",
)  # fmt: skip
FEWEST_BUDGETS = 3
"""Arms of one or two budgets are shown by the figure of loss against parameters."""
APART_FRAC = 0.02
"""Costs closer than this share are the same: a front along them would be drawn by noise."""
SURE_FRAC, DOUBTFUL_FRAC = 0.8, 0.2
"""Shares of the resamples from which a marker is filled, and from which half of it is."""
NUM_RESAMPLES = 2000
DODGE_PT = 8.0
"""Sideways distance of arms of the same cost, in printer's points."""
LOG_FROM = 4.0
"""Ratio of the largest to the smallest cost from which the axis is logarithmic."""


@dataclass(frozen=True)
class CostAxis:
    name: str
    label: str
    of: Callable[[ArmComparison], float | None]
    """In the unit of the label; None where it is not known."""


def _solo_mebibytes(arm: ArmComparison) -> float | None:
    return arm.solo.peak_memory_bytes / 2**20 if arm.solo and arm.solo.peak_memory_bytes is not None else None


AXES = (
    CostAxis("params", "stored parameters (thousands)", lambda arm: arm.params.high / 1e3 if arm.params else None),
    CostAxis("memory", "peak memory alone (MiB)", _solo_mebibytes),
    CostAxis("time", "wall time of a run alone (s)", lambda arm: arm.solo.wall_s if arm.solo else None),
)


def cost_axes(comparison: StudyComparison) -> list[CostAxis]:
    """Costs that are known of every arm with a score, and differ; none where nothing but one or two budgets
    does, or no seed finished in all of them."""
    arms = [arm for arm in comparison.arms if arm.test_loss]
    if not _shared_seeds(arms):
        return []
    found = [axis for axis in AXES if len(arms) > 1 and _differs([axis.of(arm) for arm in arms])]
    budgets = {arm.budget_params for arm in arms}
    return found if len(budgets) >= FEWEST_BUDGETS or any(axis.name != "params" for axis in found) else []


def _differs(costs: Sequence[float | None]) -> bool:
    known = [cost for cost in costs if cost is not None]
    return len(known) == len(costs) and min(known) > 0 and max(known) / min(known) - 1 > APART_FRAC


@matplotlib.rc_context(RC)
def draw_pareto(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel a cost; None where `cost_axes` has none."""
    axes = cost_axes(comparison)
    if not axes:
        return None
    arms = [arm for arm in comparison.arms if arm.test_loss]
    fronts = [front_of(axis, arms) for axis in axes]
    styles = arm_styles(results.arm_names, comparison.baseline)
    shown = shown_arms(comparison, "pareto", (arm.name for arm in arms))
    styles = {name: style for name, style in styles.items() if name in shown}
    figure = new_figure(DOUBLE_COLUMN_IN, 2.5 + 0.14 * -(-len(styles) // 4))
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis, front in zip(panels, axes, fronts, strict=True):
        _draw_panel(panel, axis, front, arms, styles)
    panels[0].set_ylabel("test loss (nats per answer token)")
    handles, labels = panels[0].get_legend_handles_labels()
    best_first = sorted(range(len(labels)), key=lambda index: float(labels[index].split()[0]))
    figure.legend(
        [handles[i] for i in best_first], [labels[i] for i in best_first], loc="outside lower center", ncols=4
    )
    caption = caption_of(comparison, axes, fronts, arms) + crowd_note(comparison, "pareto")
    return save_figure(figure, folder, "pareto", caption, HEADER, _rows_of(axes, fronts, arms))


def caption_of(
    comparison: StudyComparison, axes: Sequence[CostAxis], fronts: Sequence[ParetoFront], arms: Sequence[ArmComparison]
) -> str:
    return (
        "Test loss against what an arm costs. Line: the front of means, arms that no other beats on both. Filled: on "
        f"the front in {SURE_FRAC:.0%} or more of {NUM_RESAMPLES:,} paired resamples of {fronts[0].n} seeds; half "
        f"filled: in {DOUBTFUL_FRAC:.0%} or more; hollow: in fewer. Bars: {comparison.level:.0%} interval of the "
        f"difference to {comparison.baseline}, paired by seed, around the arm's mean. Arms of the same "
        f"cost stand side by side.{_about_solo(axes, arms)}"
    )


def front_of(axis: CostAxis, arms: Sequence[ArmComparison]) -> ParetoFront:
    """The front along one cost, and how sure it is."""
    losses = [_losses(arm) for arm in arms]
    loss_AS = np.array([[found[seed] for seed in sorted(_shared_seeds(arms))] for found in losses])
    rng = stream(0, "bootstrap", "pareto", axis.name)
    return pareto_front([cost_of(axis, arm) for arm in arms], loss_AS, rng=rng, num_resamples=NUM_RESAMPLES)


def _shared_seeds(arms: Sequence[ArmComparison]) -> set[int]:
    """Seeds on which every one of the arms was scored."""
    return set.intersection(*(set(_losses(arm)) for arm in arms)) if arms else set()


def _losses(arm: ArmComparison) -> dict[int, float]:
    return {score.seed: score.test_loss for score in arm.seeds if score.test_loss is not None}


def _about_solo(axes: Sequence[CostAxis], arms: Sequence[ArmComparison]) -> str:
    if all(axis.name == "params" for axis in axes):
        return (
            " Memory and time of single arms are not known: their runs were trained beside others, and --solo-first "
            "measures them."
        )
    numbers = [arm.solo.num_runs for arm in arms if arm.solo]
    many = str(numbers[0]) if len(set(numbers)) == 1 else f"{min(numbers)} to {max(numbers)}"
    return (
        f" Memory and wall time are measured on runs that were trained alone, {many} of each arm; wall time contains "
        "what else the machine did."
    )


def _draw_panel(
    panel: Axes, axis: CostAxis, front: ParetoFront, arms: Sequence[ArmComparison], styles: dict[str, ArmStyle]
) -> None:
    """The front of all arms, and those of them that have a style."""
    costs = [cost_of(axis, arm) for arm in arms]
    if max(costs) / min(costs) > LOG_FROM:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
    on_front = sorted(
        (cost_of(axis, arm), loss_of(arm)) for arm, is_on in zip(arms, front.is_on_front_A, strict=True) if is_on
    )
    panel.step(*zip(*on_front, strict=True), where="post", color=NEUTRAL, linewidth=0.8, zorder=1)
    drawn = [(arm, float(frac)) for arm, frac in zip(arms, front.on_front_frac_A, strict=True) if arm.name in styles]
    offsets_pt = _offsets_pt([cost_of(axis, arm) for arm, _ in drawn])
    for (arm, frac), offset_pt in zip(drawn, offsets_pt, strict=True):
        _draw_point(panel, axis, arm, styles[arm.name], frac, offset_pt)
    panel.margins(x=0.12, y=0.08)
    panel.autoscale_view()
    panel.grid(color="#EEEEEE", linewidth=0.5)
    panel.set_xlabel(axis.label)


def _offsets_pt(costs: Sequence[float]) -> list[float]:
    """How far each point moves aside, so that arms of the same cost stand side by side around it."""
    alike = [[j for j, other in enumerate(costs) if abs(other / cost - 1) <= APART_FRAC / 2] for cost in costs]
    return [DODGE_PT * (group.index(i) - (len(group) - 1) / 2) for i, group in enumerate(alike)]


def _draw_point(
    panel: Axes, axis: CostAxis, arm: ArmComparison, style: ArmStyle, on_front_frac: float, offset_pt: float
) -> None:
    cost, loss = cost_of(axis, arm), loss_of(arm)
    aside = panel.transData + ScaledTranslation(offset_pt / 72, 0, panel.figure.dpi_scale_trans)
    low, high = paired_bar(arm)
    panel.update_datalim([(cost, edge) for edge in (loss, low, high) if edge is not None])
    if low is not None and high is not None:
        panel.vlines(cost, low, high, color=style.colour, linewidth=1.0, transform=aside, zorder=2)
    fill = "full" if on_front_frac >= SURE_FRAC else "left" if on_front_frac >= DOUBTFUL_FRAC else "none"
    panel.plot(
        cost, loss, linestyle="none", marker=style.marker, markersize=5.5, markeredgecolor=style.colour,
        markeredgewidth=1.0, markerfacecolor="white" if fill == "none" else style.colour, markerfacecoloralt="white",
        fillstyle="left" if fill == "left" else "full", transform=aside, zorder=3,
        label=f"{format_loss(loss)}  {short(arm.name)}",
    )  # fmt: skip


def cost_of(axis: CostAxis, arm: ArmComparison) -> float:
    cost = axis.of(arm)
    assert cost is not None
    return cost


def loss_of(arm: ArmComparison) -> float:
    assert arm.test_loss is not None
    return arm.test_loss.value


def paired_bar(arm: ArmComparison) -> tuple[float | None, float | None]:
    """The interval of the arm's difference to the baseline, moved to its mean; none for the baseline."""
    if arm.difference is None or arm.difference.estimate.low is None or arm.difference.estimate.high is None:
        return None, None
    shift = loss_of(arm) - arm.difference.estimate.value
    return arm.difference.estimate.low + shift, arm.difference.estimate.high + shift


def _rows_of(
    axes: Sequence[CostAxis], fronts: Sequence[ParetoFront], arms: Sequence[ArmComparison]
) -> Iterator[tuple[object, ...]]:
    for axis, front in zip(axes, fronts, strict=True):
        for arm, is_on, frac in zip(arms, front.is_on_front_A, front.on_front_frac_A, strict=True):
            solo = arm.solo.num_runs if arm.solo and axis.name != "params" else None
            yield arm.name, axis.name, cost_of(axis, arm), loss_of(arm), *paired_bar(arm), int(is_on), float(frac), solo
