"""Learning-rate curves: validation loss of each arm over the candidate rates, with the chosen point."""

from markupsafe import Markup

from rankwise.ledger.results import StudyResults
from rankwise.reporting.format import format_loss, format_rate
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks, cross, mark, of_arm, with_legend
from rankwise.reporting.page.plot import TOP, Axes, axes
from rankwise.reporting.page.svg import element, line_path, tip
from rankwise.reporting.values import ArmComparison, StudyComparison, TuningPoint


def draw_tuning(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where no arm was tuned over several rates."""
    arms = [arm for arm in comparison.arms if sum(bool(point.validation_losses) for point in arm.tuning) > 1]
    if not arms:
        return None
    looks = arm_looks(results, comparison)
    rates = sorted({point.learning_rate for arm in arms for point in arm.tuning})
    losses = [loss for arm in arms for point in arm.tuning for loss in point.validation_losses]
    space = axes(rates, losses, height=300, log_x=True)
    drawn = [_draw_arm(space, arm, looks[arm.name]) for arm in arms]
    body = space.draw(
        *drawn, x_label="learning rate", y_label="validation loss (nats per answer token)",
        x_ticks=rates[:: -(-len(rates) // 8)], x_tick_label=format_rate,
        summary=f"Validation loss of {len(arms)} arms over {len(rates)} learning rates; the table has the same numbers",
    )  # fmt: skip
    caption = (
        "Learning-rate tuning: validation loss at the end of training on the tuning seeds, which are not reported. "
        "Dots: single runs; line: mean; ring: the chosen rate; crosses at the top: rates at which a run diverged."
    )
    return PageFigure(body=with_legend(body, {arm.name: looks[arm.name] for arm in arms}), caption=caption)


def _draw_arm(space: Axes, arm: ArmComparison, look: Look) -> Markup:
    measured = [(point, point.mean) for point in arm.tuning if point.mean is not None]
    line = [(space.x(point.learning_rate), space.y(mean)) for point, mean in measured]
    parts = [element("path", d=line_path(line), class_="line", stroke_dasharray=look.dashes)]
    for point, mean in measured:
        parts += [*_runs(space, arm, point), _mean(space, arm, look, point, mean)]
    parts += [_diverged(space, arm, point) for point in arm.tuning if point.num_diverged]
    return of_arm(look, *parts)


def _runs(space: Axes, arm: ArmComparison, point: TuningPoint) -> list[Markup]:
    rate = format_rate(point.learning_rate)
    runs = zip(point.run_ids, point.seeds, point.validation_losses, strict=True)
    return [
        element(
            "circle",
            tip(f"{arm.name}, tuning seed {seed}, run {run_id}", f"rate {rate}: {format_loss(loss)}"),
            cx=space.x(point.learning_rate), cy=space.y(loss), r=2.5, class_="dot", data_run=run_id,
        )
        for run_id, seed, loss in runs
    ]  # fmt: skip


def _mean(space: Axes, arm: ArmComparison, look: Look, point: TuningPoint, mean: float) -> Markup:
    x, y = space.x(point.learning_rate), space.y(mean)
    about = tip(
        f"{arm.name}, rate {format_rate(point.learning_rate)}" + (", chosen" if point.chosen else ""),
        f"mean validation loss {format_loss(mean)}, n = {len(point.validation_losses)}",
        f"{point.num_diverged} diverged" if point.num_diverged else "",
    )
    ring = element("circle", cx=x, cy=y, r=8, class_="ring") if point.chosen else Markup("")
    return ring + mark(look, x, y, about)


def _diverged(space: Axes, arm: ArmComparison, point: TuningPoint) -> Markup:
    about = tip(f"{arm.name}, rate {format_rate(point.learning_rate)}", f"{point.num_diverged} diverged")
    return cross(space.x(point.learning_rate), TOP, about, half=4.0)
