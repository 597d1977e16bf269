"""The forest plot: one row an arm, its text in HTML so that it keeps its size on any screen."""

from collections.abc import Mapping

from markupsafe import Markup

from rankwise.ledger.results import StudyResults
from rankwise.reporting.format import format_difference, format_equals, format_p, format_signed
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks
from rankwise.reporting.page.plot import WIDTH, Scale, drawing, linear_scale, plain_labels
from rankwise.reporting.page.svg import element, line_path, marker_path, tip
from rankwise.reporting.style import OUTCOME_STYLES
from rankwise.reporting.values import ArmComparison, Difference, StudyComparison

ROW, MIDDLE, DOTS = 30.0, 11.0, 23.0
"""Height of a row, and where in it the interval and the seeds lie, in pixels."""


def draw_forest(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where nothing is compared."""
    arms = sorted((arm for arm in comparison.arms if arm.difference), key=lambda arm: bool(arm.deviations))
    if not arms:
        return None
    looks, x = arm_looks(results, comparison), _scale(comparison)
    equal = [_row(arm, looks, x, comparison) for arm in arms if not arm.deviations]
    others = [_row(arm, looks, x, comparison) for arm in arms if arm.deviations]
    rule = [element("p", "Not an equal comparison:", class_="forest-rule")] if others else []
    body = element("div", *equal, *rule, *others, _axis(x, comparison), class_="forest")
    caption = (
        f"Difference in test loss to {comparison.baseline}, paired by seed: mean with {comparison.level:.0%} interval; "
        f"small dots are single seeds. Shaded: differences below {comparison.equivalence_nats:g} nats, practically "
        "nothing. Triangles point to the side of a significant difference."
    )
    return PageFigure(body=body, caption=caption)


def _scale(comparison: StudyComparison) -> Scale:
    zone = comparison.equivalence_nats
    values = [0.0, -zone, zone]
    for arm in comparison.arms:
        if arm.difference:
            estimate = arm.difference.estimate
            values += [value for value in (estimate.low, estimate.high) if value is not None]
            values += [estimate.value, *arm.difference.per_seed]
    return linear_scale(values, 8.0, WIDTH - 8.0)


def _row(arm: ArmComparison, looks: Mapping[str, Look], x: Scale, comparison: StudyComparison) -> Markup:
    found = arm.difference
    assert found is not None
    note = "control" if arm.is_control else "; ".join(arm.deviations)
    name = element(
        "span", element("a", arm.name, href=f"#arm-{looks[arm.name].index}"),
        *([Markup(" "), element("small", note)] if note else []),
        class_="forest-name",
    )  # fmt: skip
    p = f", p {format_equals(format_p(found.p_holm))}" if found.p_holm is not None else ""
    numbers = element(
        "span", format_difference(found.estimate), Markup(" "),
        element("small", f"{found.outcome}, n = {len(found.seeds)}{p}"), class_="forest-numbers",
    )  # fmt: skip
    return element(
        "div", name, _line(arm, found, x, comparison), numbers,
        class_=f"forest-row {outcome_class(found.outcome)}", data_arm=looks[arm.name].index,
    )  # fmt: skip


def _line(arm: ArmComparison, found: Difference, x: Scale, comparison: StudyComparison) -> Markup:
    """The interval, the mean and the seeds of one arm."""
    zone, estimate = comparison.equivalence_nats, found.estimate
    run_of = {score.seed: score.run_id for score in arm.seeds}
    parts = [element("rect", x=x(-zone), y=0, width=x(zone) - x(-zone), height=ROW, class_="zone")]
    parts += [element("path", d=line_path([(x(tick), 0), (x(tick), ROW)]), class_="grid") for tick in x.ticks()]
    parts.append(element("path", d=line_path([(x(0), 0), (x(0), ROW)]), class_="axis"))
    if estimate.low is not None and estimate.high is not None:
        parts.append(
            element("path", d=line_path([(x(estimate.low), MIDDLE), (x(estimate.high), MIDDLE)]), class_="interval")
        )
    parts += [
        element(
            "circle", tip(f"{arm.name}, seed {seed}", f"{format_signed(value)} nats"),
            cx=x(value), cy=DOTS, r=3, class_="seed", data_seed=seed, data_run=run_of.get(seed),
        )
        for seed, value in zip(found.seeds, found.per_seed, strict=True)
    ]  # fmt: skip
    about = tip(arm.name, f"{format_difference(estimate)} nats", f"{found.outcome}, n = {len(found.seeds)}")
    _, marker = OUTCOME_STYLES[found.outcome]
    parts.append(element("path", about, d=marker_path(marker, x(estimate.value), MIDDLE, 6), class_="mean"))
    summary = f"{arm.name} against {comparison.baseline}: {format_difference(estimate)} nats, {found.outcome}"
    return drawing(WIDTH, ROW, *parts, summary=summary)


def _axis(x: Scale, comparison: StudyComparison) -> Markup:
    ticks = x.ticks()
    parts = [
        element("text", text, x=x(tick), y=12, class_="tick middle")
        for tick, text in zip(ticks, plain_labels(ticks), strict=True)
    ]
    parts += [
        element("text", "← better", x=4, y=30, class_="label"),
        element("text", "nats per answer token", x=WIDTH / 2, y=30, class_="label middle"),
        element("text", "worse →", x=WIDTH - 4, y=30, class_="label end"),
    ]
    svg = element("svg", *parts, viewBox=f"0 0 {WIDTH:g} 36", class_="plot", aria_hidden="true")
    return element("div", element("span"), svg, element("span"), class_="forest-row forest-axis")


def outcome_class(outcome: str) -> str:
    """`practically the same` -> `practically-the-same`."""
    return outcome.replace(" ", "-")
