"""Rank maps whose cells tell their site: at the end, as planned, before training, and scales; of all seeds or one."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cache
from statistics import fmean
from typing import Any

from markupsafe import Markup
from matplotlib import colormaps

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.records import SiteAllocation
from rankwise.reporting.figures.rank_maps import allocated_runs, module_labels
from rankwise.reporting.format import format_count, format_range, format_span
from rankwise.reporting.page.figure import PageFigure, arm_looks, panel, panels
from rankwise.reporting.page.plot import drawing
from rankwise.reporting.page.svg import element, tip
from rankwise.reporting.values import Range, Span, StudyComparison

CELL_WIDTH, CELL_HEIGHT = 23.0, 16.0
NUM_COLOURS = 48
DARK_TEXT_FROM = 0.46
"""Share of the colour scale from which black reads better than white."""
VIEWS = {
    "final": "rank at the end",
    "planned": "planned rank",
    "realised": "rank before training",
    "scale": "scale",
}
"""What a map can show -> its name. The page draws the first; its script redraws."""


def draw_rank_maps(results: StudyResults, comparison: StudyComparison) -> PageFigure | None:
    """None where no run has been allocated."""
    runs = {arm: found for arm in results.arm_names if (found := allocated_runs(results, arm))}
    if not runs:
        return None
    every_site = [site for found in runs.values() for run in found for site in run.sites]
    labels = module_labels(every_site)
    modules = list(dict.fromkeys(labels[site.site] for site in every_site))
    layers = sorted({site.layer for site in every_site})
    highest = max(max(run.spent_ranks, default=0) for found in runs.values() for run in found)
    looks = arm_looks(results, comparison)
    drawn = [
        panel(arm, _draw_map(arm, found, labels, modules, layers, highest), looks[arm]) for arm, found in runs.items()
    ]
    body = element("div", _legend(highest), class_="map-tools") + panels(drawn, "small")
    moved = [arm for arm, found in runs.items() if any(run.revisions for run in found)]
    caption = (
        "Rank maps: components at each adapted layer, on one colour scale; where an arm's map differs between seeds, "
        "the mean over its reported runs. Plain grey: no adapter there. "
        + (f"Ranks moved while training in {', '.join(moved)}." if moved else "No rank moved while training.")
    )
    return PageFigure(body=body, caption=caption)


def map_data(results: StudyResults) -> dict[str, Any]:
    """What the script redraws maps from: per arm its sites, its distinct maps, and which map each run has."""
    return {
        "colours": colours(),
        "views": VIEWS,
        "dark_text_from": DARK_TEXT_FROM,
        "arms": [
            _arm_maps(
                [run for run in results.of_arm(arm) if run.sites],
                {run.id for run in allocated_runs(results, arm)},
            )
            for arm in results.arm_names
        ],
    }


@cache
def colours() -> tuple[str, ...]:
    """From rank 0 to the highest; cividis, which reads the same with any colour vision and in grey."""
    shades = colormaps["cividis"]
    found = [shades(index / (NUM_COLOURS - 1))[:3] for index in range(NUM_COLOURS)]
    return tuple("#" + "".join(f"{round(255 * part):02x}" for part in shade) for shade in found)


def _arm_maps(runs: Sequence[RunRow], drawn: Set[str]) -> dict[str, Any]:
    """Sites stand in the order of the map's cells, which is that of the runs that are drawn."""
    sites = list(dict.fromkeys(s.site for run in sorted(runs, key=lambda r: r.id not in drawn) for s in run.sites))
    maps: dict[tuple[Any, ...], int] = {}
    of_run = []
    for run in runs:
        at = {site.site: index for index, site in enumerate(run.sites)}
        views = tuple(
            tuple(None if site not in at else values[at[site]] for site in sites) for values in _values(run).values()
        )
        number = maps.setdefault(views, len(maps))
        of_run.append({"id": run.id, "seed": run.seed, "map": number, "drawn": run.id in drawn})
    return {"sites": sites, "runs": of_run, "maps": [dict(zip(VIEWS, views, strict=True)) for views in maps]}


def _values(run: RunRow) -> dict[str, Sequence[float]]:
    """One sequence a view, in the order of the run's sites."""
    return {
        "final": run.spent_ranks,
        "planned": [site.planned_rank for site in run.sites],
        "realised": [site.realised_rank for site in run.sites],
        "scale": [site.scale for site in run.sites],
    }


def _draw_map(
    arm: str,
    runs: Sequence[RunRow],
    labels: Mapping[str, str],
    modules: Sequence[str],
    layers: Sequence[int],
    highest: int,
) -> Markup:
    left, top = 10.0 + 7 * len(str(layers[-1])), 2.0
    width, height = left + CELL_WIDTH * len(modules) + 2, top + CELL_HEIGHT * len(layers)
    parts = [
        element("rect", x=left, y=top, width=width - left - 2, height=height - top, class_="no-adapter"),
        *(
            element("text", layer, x=left - 5, y=top + CELL_HEIGHT * row + 12, class_="tick end")
            for row, layer in enumerate(layers)
        ),
        *(_column_name(name, left + CELL_WIDTH * (column + 0.5), height) for column, name in enumerate(modules)),
    ]
    found: dict[str, list[tuple[SiteAllocation, int]]] = defaultdict(list)
    for run in runs:
        for site, rank in zip(run.sites, run.spent_ranks, strict=True):
            found[site.site].append((site, rank))
    for index, (site, _) in enumerate(same[0] for same in found.values()):
        x = left + CELL_WIDTH * modules.index(labels[site.site])
        y = top + CELL_HEIGHT * layers.index(site.layer)
        parts.append(_cell(index, found[site.site], x, y, highest))
    label_height = 6.3 * max(map(len, modules)) + 10
    return drawing(width, height + label_height, *parts, summary=_summary(arm, runs), class_="map")


def _column_name(name: str, x: float, bottom: float) -> Markup:
    at = f"translate({x + 4:.1f} {bottom + 5:.1f}) rotate(-90)"
    return element("text", name, transform=at, class_="tick end")


def _cell(index: int, found: Sequence[tuple[SiteAllocation, int]], x: float, y: float, highest: int) -> Markup:
    """`found`: the site as each run has it, with its rank at the end."""
    mean = fmean(rank for _, rank in found)
    shade = mean / highest if highest else 0.0
    text = f"{mean:.1f}".removesuffix(".0")
    return element(
        "g",
        element(
            "rect", _about(found), x=x + 0.5, y=y + 0.5, width=CELL_WIDTH - 1, height=CELL_HEIGHT - 1,
            fill=colours()[round(shade * (NUM_COLOURS - 1))],
        ),
        element("text", text, x=x + CELL_WIDTH / 2, y=y + 12, fill="#000" if shade > DARK_TEXT_FROM else "#fff"),
        class_="cell", data_cell=index,
    )  # fmt: skip


def _about(found: Sequence[tuple[SiteAllocation, int]]) -> Markup:
    site = found[0][0]
    cost = site.in_features + site.out_features
    return tip(
        site.site,
        f"rank {_span(rank for _, rank in found)}, planned {_span(s.planned_rank for s, _ in found)}, "
        f"before training {_span(s.realised_rank for s, _ in found)}",
        f"scale {format_range(Range.of(s.scale for s, _ in found))}, "
        f"{_span(rank * cost for _, rank in found)} parameters",
        f"{site.out_features:,} × {site.in_features:,}, {format_count(len(found), 'run')}",
    )


def _span(values: Iterable[int]) -> str:
    return format_span(Span.of(values))


def _summary(arm: str, runs: Sequence[RunRow]) -> str:
    return f"Rank map of {arm}: ranks {_span(rank for run in runs for rank in run.spent_ranks)}"


def colour_scale(highest: str) -> Markup:
    """From 0 to the highest, which stands behind it."""
    bars = [
        element("rect", x=index * 4, y=0, width=4.2, height=12, fill=colour) for index, colour in enumerate(colours())
    ]
    svg = element(
        "svg", *bars,
        viewBox=f"0 0 {4 * NUM_COLOURS} 12", class_="colours", shape_rendering="crispEdges", aria_hidden="true",
    )  # fmt: skip
    return Markup(" 0 ") + svg + Markup(" ") + element("span", highest, class_="map-highest")


def _legend(highest: int) -> Markup:
    """The colour scale, and what it shows."""
    shown = element("span", VIEWS["final"], class_="map-view")
    return element("p", shown, colour_scale(str(highest)), class_="map-legend")
