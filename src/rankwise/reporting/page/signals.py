"""Signal against rank of each measuring arm; each site tells its name, its ranks and its signal."""

from collections.abc import Sequence

from markupsafe import Markup

from rankwise.allocation.sites import SiteKind
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.figures.signals import (
    CAPTION,
    KIND_STYLES,
    SitePoint,
    agreement_in_words,
    is_logarithmic,
    measured_runs,
    signal_of,
    site_points,
)
from rankwise.reporting.format import format_count, format_range, format_span
from rankwise.reporting.page.figure import PageFigure, arm_looks, panel, panels
from rankwise.reporting.page.plot import Axes, axes
from rankwise.reporting.page.svg import element, marker_path, tip
from rankwise.reporting.style import short
from rankwise.reporting.values import Range, Span, StudyComparison

MOST_DOTS = 8_000
"""Of all single seeds together; where there are more, the page shows means alone."""


def draw_signals(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where no arm's signal was recorded."""
    runs = measured_runs(results)
    if not runs:
        return None
    looks = arm_looks(results, comparison)
    with_seeds = sum(len(run.sites) for found in runs.values() for run in found) <= MOST_DOTS
    highest = max(rank for found in runs.values() for run in found for rank in run.spent_ranks)
    drawn = [
        panel(f"{arm}: {agreement_in_words(found)}", _draw_arm(arm, found, highest, with_seeds), looks[arm])
        for arm, found in runs.items()
    ]
    kinds = {site.kind for found in runs.values() for run in found for site in run.sites}
    caption = CAPTION if with_seeds else f"{CAPTION} There are too many single seeds to show them here."
    return PageFigure(body=_legend(kinds) + panels(drawn, "medium"), caption=caption)


def _draw_arm(arm: str, runs: Sequence[RunRow], highest: int, with_seeds: bool) -> Markup:
    points = site_points(runs)
    signals = [signal for point in points for signal in point.signals]
    space = axes(signals, [0, highest], height=250, log_x=is_logarithmic(signals))
    seeds = [_draw_seed(space, run) for run in runs] if with_seeds else []
    return space.draw(
        *seeds, *(_draw_site(space, point) for point in points),
        x_label=short(str(runs[0].signal), 70), y_label="rank (components)",
        summary=f"Rank against signal of {arm} at {format_count(len(points), 'site')}: {agreement_in_words(runs)}",
    )  # fmt: skip


def _draw_seed(space: Axes, run: RunRow) -> Markup:
    """One path a kind, because points of a single seed say nothing by themselves."""
    paths = []
    for kind in KIND_STYLES:
        marks = "".join(
            marker_path(KIND_STYLES[kind][1], space.x(signal_of(site)), space.y(rank), 1.8)
            for site, rank in zip(run.sites, run.spent_ranks, strict=True)
            if site.kind == kind
        )
        if marks:
            paths.append(element("path", d=marks, class_=f"dot kind-{kind}"))
    return element("g", *paths, class_="seed", data_seed=run.seed)


def _draw_site(space: Axes, point: SitePoint) -> Markup:
    about = tip(
        point.site.site,
        f"rank {format_span(Span.of(point.ranks))}",
        f"signal {format_range(Range.of(point.signals))}, {format_count(len(point.ranks), 'run')}",
    )
    shape = marker_path(KIND_STYLES[point.site.kind][1], space.x(point.mean_signal), space.y(point.mean_rank), 4.2)
    return element("path", about, d=shape, class_=f"mark kind-{point.site.kind}")


def _legend(kinds: set[SiteKind]) -> Markup:
    entries = []
    for kind, (_, marker) in KIND_STYLES.items():
        if kind in kinds:
            shape = element("path", d=marker_path(marker, 7, 7, 4.2), class_=f"mark kind-{kind}")
            entries.append(
                element("li", element("svg", shape, viewBox="0 0 14 14", class_="key", aria_hidden="true"), kind)
            )
    return element("ul", *entries, class_="legend")
