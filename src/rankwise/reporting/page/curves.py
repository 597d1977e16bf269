"""Learning curves: validation loss of all arms in one plot, then each arm with its seeds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.figures.learning_curves import SMOOTHING_FRAC, smooth, validation_band
from rankwise.reporting.format import format_loss
from rankwise.reporting.page.figure import Look, PageFigure, arm_looks, cross, mark, of_arm, panel, panels, with_legend
from rankwise.reporting.page.plot import Axes, axes
from rankwise.reporting.page.svg import band_path, element, line_path, tip
from rankwise.reporting.values import StudyComparison
from rankwise.statistics.curves import CurveBand

MOST_POINTS = 60_000
"""Of all training curves together; longer ones are thinned evenly, so that the page stays small."""
MOST_BANDS = 6
"""Arms whose bands still tell apart when they lie over each other."""
MOST_POINTS_OF_ONE, FEWEST_POINTS_OF_ONE = 120, 12

Band = tuple[np.ndarray, CurveBand]
Curve = tuple[np.ndarray, np.ndarray]


def draw_learning_curves(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None before any training."""
    runs = {arm: [run for run in results.reported(arm) if run.training_curve] for arm in results.arm_names}
    runs = {arm: found for arm, found in runs.items() if found}
    if not runs:
        return None
    looks = arm_looks(results, comparison)
    num_points = MOST_POINTS // sum(map(len, runs.values()))
    num_points = min(MOST_POINTS_OF_ONE, max(FEWEST_POINTS_OF_ONE, num_points))
    curves = {arm: [thin(smooth(run.training_curve), num_points) for run in found] for arm, found in runs.items()}
    bands = {arm: band for arm, found in runs.items() if (band := validation_band(found, comparison.level))}
    together = panel("Validation loss, all arms", _together(bands, looks)) if bands else Markup("")
    space = _space([*curves.values()], [*bands.values()])
    baseline = bands.get(comparison.baseline)
    each = [
        panel(arm, _one_arm(space, arm, found, curves[arm], bands.get(arm), baseline, looks), looks[arm])
        for arm, found in runs.items()
    ]
    caption = (
        "Learning curves. Above: mean validation loss of the finished seeds after the first steps (before training all "
        f"arms are alike), with its pointwise {comparison.level:.0%} band for up to {MOST_BANDS} arms. Below, each "
        f"arm: training loss of each seed, running mean over {SMOOTHING_FRAC:.0%} of the steps, and its validation "
        f"loss (markers). Dotted: validation loss of {comparison.baseline}. Cross: a run diverged."
    )
    return PageFigure(body=together + panels(each, "medium"), caption=caption)


def thin(curve: Curve, num_points: int) -> Curve:
    """At most about `num_points` of the points, evenly spaced, both ends among them."""
    steps, values = curve
    if len(steps) <= num_points:
        return curve
    kept = np.unique(np.linspace(0, len(steps) - 1, num_points).round().astype(int))
    return steps[kept], values[kept]


def _together(bands: dict[str, Band], looks: dict[str, Look]) -> Markup:
    """Without the loss before training, which would flatten all that arms differ in."""
    bands = {arm: _after_start(band) for arm, band in bands.items()}
    steps = [step for found, _ in bands.values() for step in found]
    losses = [loss for _, band in bands.values() for loss in band.mean_T]
    space = axes(steps, losses, height=300)
    drawn = [
        of_arm(
            looks[arm],
            *(_band(space, band) if len(bands) <= MOST_BANDS else ()),
            *_means(space, arm, band, looks[arm]),
        )
        for arm, band in bands.items()
    ]
    body = space.draw(
        *drawn, x_label="optimizer step", y_label="nats per answer token",
        summary=f"Validation loss over training of {len(bands)} arms; the tables hold the final values",
    )  # fmt: skip
    return with_legend(body, {arm: looks[arm] for arm in bands})


def _after_start(band: Band) -> Band:
    steps, found = band
    if len(steps) < 3 or steps[0] > 0:
        return band
    return steps[1:], replace(found, mean_T=found.mean_T[1:], low_T=found.low_T[1:], high_T=found.high_T[1:])


def _space(curves: Sequence[Sequence[Curve]], bands: Sequence[Band]) -> Axes:
    """What every arm's panel shares."""
    steps = [step for found in curves for steps, _ in found for step in steps] or [0.0, 1.0]
    losses = [loss for found in curves for _, losses in found for loss in losses]
    losses += [loss for _, band in bands for loss in band.mean_T]
    return axes([0.0, *steps], losses or [0.0, 1.0], height=230)


def _one_arm(
    space: Axes,
    arm: str,
    runs: Sequence[RunRow],
    curves: Sequence[Curve],
    band: Band | None,
    baseline: Band | None,
    looks: dict[str, Look],
) -> Markup:
    parts = []
    for run, (steps, losses) in zip(runs, curves, strict=True):
        if not len(steps):
            continue
        points = [(space.x(step), space.y(loss)) for step, loss in zip(steps, losses, strict=True)]
        ending = f"{run.status}, last training loss {format_loss(losses[-1])}"
        about = tip(f"{arm}, seed {run.seed}, run {run.id}", ending)
        line = [element("path", about, d=line_path(points), class_="thin", data_run=run.id)]
        if run.status == "diverged":
            line.append(cross(*points[-1], about, run=run.id))
        parts.append(element("g", *line, class_="seed", data_seed=run.seed))
    if baseline and baseline is not band:
        parts.append(element("path", d=line_path(_points(space, baseline)), class_="dotted"))
    if band:
        parts += [*_band(space, band), *_means(space, arm, band, looks[arm])]
    return space.draw(
        element("g", *parts, class_=looks[arm].css_class), x_label="optimizer step", y_label="nats per answer token",
        summary=f"Training and validation loss of {arm}, {len(runs)} runs",
    )  # fmt: skip


def _points(space: Axes, band: Band) -> list[tuple[float, float]]:
    steps, found = band
    return [(space.x(step), space.y(loss)) for step, loss in zip(steps, found.mean_T, strict=True)]


def _band(space: Axes, band: Band) -> list[Markup]:
    """Nothing for one seed; cut to the plot, because the band of two seeds is wider than any curve is tall."""
    steps, found = band
    if np.isnan(found.low_T).any():
        return []
    low_T, high_T = (np.clip(values, space.y.low, space.y.high) for values in (found.low_T, found.high_T))
    upper = [(space.x(step), space.y(value)) for step, value in zip(steps, high_T, strict=True)]
    lower = [(space.x(step), space.y(value)) for step, value in zip(steps, low_T, strict=True)]
    return [element("path", d=band_path(upper, lower), class_="band")]


def _means(space: Axes, arm: str, band: Band, look: Look) -> list[Markup]:
    steps, found = band
    line = element("path", d=line_path(_points(space, band)), class_="line", stroke_dasharray=look.dashes)
    values = zip(_points(space, band), steps, found.mean_T, found.low_T, found.high_T, strict=True)
    return [line, *(
        mark(look, x, y, tip(f"{arm}, step {step:,}", _in_words(mean, low, high), f"{found.n} seeds"))
        for (x, y), step, mean, low, high in values
    )]  # fmt: skip


def _in_words(mean: float, low: float, high: float) -> str:
    interval = "" if np.isnan(low) else f" [{low:.4f}, {high:.4f}]"
    return f"validation loss {mean:.4f}{interval}"
