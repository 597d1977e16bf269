"""Signal against rank: what a measuring strategy went by at each site, beside the rank that it gave there.

Points off a rising line are where the rule did something else than follow its signal: bounds, the cost of a component,
or, in a control, a permutation.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.stats import spearmanr

from rankwise.allocation.sites import SiteKind
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.records import SiteAllocation
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.figures.rank_maps import allocated_runs, module_labels
from rankwise.reporting.format import format_rate
from rankwise.reporting.style import (
    COLOURS,
    DOUBLE_COLUMN_IN,
    NEUTRAL,
    RC,
    FigureFiles,
    new_figure,
    panel_grid,
    save_figure,
    short,
)
from rankwise.reporting.values import StudyComparison

HEADER = ("arm", "run_id", "seed", "site", "kind", "layer", "module", "signal", "value", "rank")
KIND_STYLES: Mapping[SiteKind, tuple[str, str]] = {
    "attention": (COLOURS[0], "o"),
    "mlp": (COLOURS[1], "s"),
    "other": (COLOURS[2], "^"),
}
"""Colour and marker of each kind of site."""
LOG_FROM = 8.0
"""Ratio of the largest to the smallest signal from which its axis is logarithmic."""


def measured_runs(results: StudyResults) -> dict[str, tuple[RunRow, ...]]:
    """Arm -> its runs whose signal was recorded; arms without any are left out."""
    found = {
        arm: tuple(
            run
            for run in allocated_runs(results, arm)
            if run.signal is not None
            and all(site.signal is not None and math.isfinite(site.signal) for site in run.sites)
        )
        for arm in results.arm_names
    }
    return {arm: runs for arm, runs in found.items() if runs}


@dataclass(frozen=True, kw_only=True)
class SitePoint:
    """One site of one arm, over the arm's runs."""

    site: SiteAllocation
    signals: tuple[float, ...]
    """Of each run."""
    ranks: tuple[int, ...]

    @property
    def mean_signal(self) -> float:
        return fmean(self.signals)

    @property
    def mean_rank(self) -> float:
        return fmean(self.ranks)


def site_points(runs: Sequence[RunRow]) -> list[SitePoint]:
    """In forward order; the runs have the same sites, as those of one arm do."""
    signals: dict[str, list[float]] = {}
    ranks: dict[str, list[int]] = {}
    for run in runs:
        for site, rank in zip(run.sites, run.spent_ranks, strict=True):
            signals.setdefault(site.site, []).append(signal_of(site))
            ranks.setdefault(site.site, []).append(rank)
    sites = {site.site: site for run in reversed(runs) for site in run.sites}
    return [SitePoint(site=sites[name], signals=tuple(signals[name]), ranks=tuple(ranks[name])) for name in signals]


def signal_of(site: SiteAllocation) -> float:
    assert site.signal is not None
    return site.signal


def agreement(runs: Sequence[RunRow]) -> float | None:
    """Spearman's rank correlation of signal and rank over the sites, mean over runs; None where one of them is the same
    everywhere in every run."""
    found = []
    for run in runs:
        signals, ranks = [signal_of(site) for site in run.sites], run.spent_ranks
        if len(set(signals)) > 1 and len(set(ranks)) > 1:
            found.append(float(spearmanr(signals, ranks).statistic))
    return fmean(found) if found else None


def agreement_in_words(runs: Sequence[RunRow]) -> str:
    found = agreement(runs)
    return "all ranks alike" if found is None else f"ρ = {found:.2f}".replace("-", "−")


def is_logarithmic(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOG_FROM


@matplotlib.rc_context(RC)
def draw_signals(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel an arm; None where no arm's signal was recorded."""
    runs = measured_runs(results)
    if not runs:
        return None
    shown = shown_arms(comparison, "signals", runs)
    drawn = {arm: found for arm, found in runs.items() if arm in shown}
    num_columns = min(len(drawn), 3)
    num_rows = -(-len(drawn) // num_columns)
    figure = new_figure(DOUBLE_COLUMN_IN * max(num_columns, 2) / 3, 2.0 * num_rows + 0.4)
    axes = panel_grid(figure, len(drawn), num_columns, sharey=True)
    for axis, (arm, found) in zip(axes, drawn.items(), strict=True):
        _draw_arm(axis, found)
        axis.set_title(f"{short(arm)}\n{agreement_in_words(found)}")
    figure.supylabel("rank (components)", fontsize=RC["axes.labelsize"])
    kinds = {site.kind for found in drawn.values() for run in found for site in run.sites}
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="none", label=kind)
        for kind, (colour, marker) in KIND_STYLES.items()
        if kind in kinds
    ]
    handles.append(Line2D([], [], color=NEUTRAL, marker="o", markersize=2.4, linestyle="none", label="one seed"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return save_figure(figure, folder, "signals", CAPTION + crowd_note(comparison, "signals"), HEADER, _rows_of(runs))


CAPTION = (
    "What each measuring strategy went by, against the rank that it gave, site by site: large markers are means over "
    "seeds, small ones single seeds. ρ: Spearman's rank correlation over sites, mean over seeds. Where ranks do not "
    "follow the signal, a bound, the cost of a component or, in a control, a permutation decided."
)


def _draw_arm(axis: Axes, runs: Sequence[RunRow]) -> None:
    points = site_points(runs)
    for kind, (colour, marker) in KIND_STYLES.items():
        mine = [point for point in points if point.site.kind == kind]
        axis.plot(
            [signal for point in mine for signal in point.signals],
            [rank for point in mine for rank in point.ranks],
            linestyle="none", marker=marker, markersize=2, color=colour, alpha=0.3, markeredgewidth=0, zorder=2,
        )  # fmt: skip
        axis.plot(
            [point.mean_signal for point in mine],
            [point.mean_rank for point in mine],
            linestyle="none", marker=marker, markersize=4.4, color=colour, markeredgecolor="white", markeredgewidth=0.5,
            zorder=3,
        )  # fmt: skip
    if is_logarithmic([signal for point in points for signal in point.signals]):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(numticks=5))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_rate(value)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(color="#EEEEEE", linewidth=0.5)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(textwrap.fill(short(str(runs[0].signal), 114), 38))


def _rows_of(runs: Mapping[str, Sequence[RunRow]]) -> Iterator[tuple[object, ...]]:
    labels = module_labels([site for found in runs.values() for run in found for site in run.sites])
    for arm, found in runs.items():
        for run in found:
            for site, rank in zip(run.sites, run.spent_ranks, strict=True):
                yield (
                    arm, run.id, run.seed, site.site, site.kind, site.layer, labels[site.site], run.signal,
                    site.signal, rank,
                )  # fmt: skip
