"""What loss costs: test loss against parameters, memory and time, with the arms that no other beats on both."""

from collections.abc import Sequence

from markupsafe import Markup

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.pareto import (
    DOUBTFUL_FRAC,
    LOG_FROM,
    SURE_FRAC,
    CostAxis,
    caption_of,
    cost_axes,
    cost_of,
    front_of,
    loss_of,
    paired_bar,
)
from rankwise.reporting.format import format_difference, format_loss, format_size
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks, legend, mark, of_arm, panel, panels
from rankwise.reporting.page.plot import Axes, axes
from rankwise.reporting.page.svg import Point, element, line_path, tip
from rankwise.reporting.values import ArmComparison, StudyComparison
from rankwise.statistics.pareto import ParetoFront


def draw_pareto(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """One panel a cost; None where no cost is known of every arm, or none differs."""
    costs = cost_axes(comparison)
    if not costs:
        return None
    arms = [arm for arm in comparison.arms if arm.test_loss]
    fronts = [front_of(cost, arms) for cost in costs]
    looks = arm_looks(results, comparison)
    drawn = [
        panel(cost.label, _draw_panel(cost, front, arms, [looks[arm.name] for arm in arms]))
        for cost, front in zip(costs, fronts, strict=True)
    ]
    body = legend({arm.name: looks[arm.name] for arm in arms}) + panels(drawn, "medium")
    return PageFigure(body=body, caption=caption_of(comparison, costs, fronts, arms))


def _draw_panel(cost: CostAxis, front: ParetoFront, arms: Sequence[ArmComparison], looks: Sequence[Look]) -> Markup:
    across = [cost_of(cost, arm) for arm in arms]
    bars = [end for arm in arms for end in paired_bar(arm) if end is not None]
    space = axes(across, [*map(loss_of, arms), *bars], height=270, log_x=max(across) / min(across) > LOG_FROM)
    best = [arm for arm, is_on in zip(arms, front.is_on_front_A, strict=True) if is_on]
    line = element("path", d=line_path(_steps(space, cost, best)), class_="dotted")
    points = [
        _draw_arm(space, cost, arm, look, float(frac))
        for arm, look, frac in zip(arms, looks, front.on_front_frac_A, strict=True)
    ]
    return space.draw(
        line, *points, x_label=cost.label, y_label="test loss (nats per answer token)",
        summary=f"Test loss of {len(arms)} arms against {cost.label}; on the front: {', '.join(a.name for a in best)}",
    )  # fmt: skip


def _steps(space: Axes, cost: CostAxis, best: Sequence[ArmComparison]) -> list[Point]:
    """The front as stairs: a loss holds until the next arm that costs more has a lower one."""
    corners = sorted((cost_of(cost, arm), loss_of(arm)) for arm in best)
    points = [(space.x(corners[0][0]), space.y(corners[0][1]))]
    for x, loss in corners[1:]:
        points += [(space.x(x), points[-1][1]), (space.x(x), space.y(loss))]
    return points


def _draw_arm(space: Axes, cost: CostAxis, arm: ArmComparison, look: Look, frac: float) -> Markup:
    x, y = space.x(cost_of(cost, arm)), space.y(loss_of(arm))
    low, high = paired_bar(arm)
    about = tip(
        arm.name,
        f"{cost.label}: {format_size(cost_of(cost, arm))}",
        f"test loss {format_loss(loss_of(arm))}",
        f"difference {format_difference(arm.difference.estimate)}" if arm.difference else "the baseline",
        f"on the front in {frac:.0%} of the resamples",
    )
    parts = []
    if low is not None and high is not None:
        parts.append(element("path", d=line_path([(x, space.y(low)), (x, space.y(high))]), class_="interval"))
    fill = "sure" if frac >= SURE_FRAC else "doubtful" if frac >= DOUBTFUL_FRAC else "unlikely"
    return of_arm(look, *parts, element("g", mark(look, x, y, about, radius=5.5), class_=fill))
