"""Test loss against stored parameters, one point an arm; nearly equal arms are spread sideways around one tick."""

from markupsafe import Markup

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.loss_against_params import middle_params, nearly_equal, thousands
from rankwise.reporting.figures.pareto import cost_axes
from rankwise.reporting.format import format_estimate, format_span
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks, mark, of_arm, with_legend
from rankwise.reporting.page.plot import LEFT, RIGHT, WIDTH, Axes, Scale, axes
from rankwise.reporting.page.svg import element, line_path, tip
from rankwise.reporting.values import ArmComparison, StudyComparison

MOST_SPREAD_PX, DODGE_PX = 90.0, 13.0


def draw_loss_against_params(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None with fewer than two arms, and where the Pareto figure shows the same."""
    arms = [arm for arm in comparison.arms if arm.test_loss and arm.params]
    if len(arms) < 2 or cost_axes(comparison):
        return None
    looks, groups = arm_looks(results, comparison), nearly_equal(arms)
    centres = [sum(middle_params(arm) for arm in group) / len(group) for group in groups]
    space = _space(arms, centres)
    drawn = [
        _draw_arm(space, arm, space.x(centre) + _offset(index, len(group)), looks[arm.name])
        for group, centre in zip(groups, centres, strict=True)
        for index, arm in enumerate(group)
    ]
    body = space.draw(
        *drawn, x_label="stored adapter parameters", y_label="test loss (nats per answer token)",
        x_ticks=centres, x_tick_label=thousands,
        summary=f"Test loss of {len(arms)} arms against their parameters; the table Results has the same numbers",
    )  # fmt: skip
    caption = (
        f"Test loss against stored adapter parameters, mean over seeds with {comparison.level:.0%} interval. Arms of "
        "(nearly) equal parameters are spread sideways. The intervals contain what seeds have in common; whether two "
        "arms differ is shown by the paired differences."
    )
    return PageFigure(body=with_legend(body, {arm.name: looks[arm.name] for arm in arms}), caption=caption)


def _space(arms: list[ArmComparison], centres: list[float]) -> Axes:
    """With room at both sides for the widest group."""
    losses = [
        value
        for arm in arms
        if arm.test_loss
        for value in (arm.test_loss.value, arm.test_loss.low, arm.test_loss.high)
        if value is not None
    ]
    space = axes([0.0, 1.0], losses, height=300)
    low, high = min(centres), max(centres)
    margin = 0.0 if high > low else 1.0
    room = MOST_SPREAD_PX / 2 + 10
    x = Scale(low=low - margin, high=high + margin, start=LEFT + room, end=WIDTH - RIGHT - room)
    return Axes(x=x, y=space.y, height=space.height)


def _offset(index: int, num: int) -> float:
    return (index - (num - 1) / 2) * min(DODGE_PX, MOST_SPREAD_PX / num)


def _draw_arm(space: Axes, arm: ArmComparison, x: float, look: Look) -> Markup:
    loss = arm.test_loss
    assert loss is not None
    about = tip(arm.name, f"{format_span(arm.params)} parameters", f"test loss {format_estimate(loss)}, n = {loss.num}")
    parts = []
    if loss.low is not None and loss.high is not None:
        parts.append(element("path", d=line_path([(x, space.y(loss.low)), (x, space.y(loss.high))]), class_="interval"))
    return of_arm(look, *parts, mark(look, x, space.y(loss.value), about, radius=5.5))
